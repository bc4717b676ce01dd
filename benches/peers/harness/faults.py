"""What is done to the primary, and how it is undone."""

from collections.abc import Callable
from dataclasses import dataclass

from .cluster import Cluster
from .docker import docker


@dataclass(frozen=True)
class Fault:
    """One way to hurt a primary."""

    title: str
    strike: Callable[[Cluster, str], object]
    # None: nothing is to be undone.
    heal: Callable[[Cluster, str], object] | None = None
    # Whether clients on the primary's own host may go on writing to it.
    host_lives_on: bool = False
    # Whether another node must take over: a crashed PostgreSQL may also be restarted where it is.
    moves: bool = True


def kill_postmaster(cluster: Cluster, node: str) -> None:
    pid_file = f"{cluster.data_dir(node)}/postmaster.pid"
    cluster.execute(node, "sh", "-c", f"kill -9 $(head -1 {pid_file})")


def pull_cable(cluster: Cluster, node: str) -> None:
    cable(cluster, node, "nomaster")


def plug_cable(cluster: Cluster, node: str) -> None:
    network = docker("network", "inspect", "-f", "{{.Id}}", cluster.network)
    cable(cluster, node, f"master br-{network[:12]}")


def cable(cluster: Cluster, node: str, to: str) -> None:
    """Takes the machine's end of a container's cable off the bridge, or puts it back on."""
    index = cluster.execute(node, "cat", "/sys/class/net/eth0/iflink")
    link = f"$(ip -o link | sed -n 's/^{index}: \\([^@:]*\\).*/\\1/p')"
    cluster.execute("cables", "sh", "-c", f'ip link set dev "{link}" {to}', user="root")


FAULTS = {
    "F1": Fault("`kill -9` of the postmaster", kill_postmaster, moves=False),
    "F2": Fault(
        "node lost (`docker kill`), started again later",
        lambda cluster, node: docker("kill", cluster.container(node)),
        lambda cluster, node: docker("start", cluster.container(node)),
    ),
    "F3": Fault(
        "network gone (`docker network disconnect`)",
        lambda cluster, node: docker("network", "disconnect", cluster.network, cluster.container(node)),
        lambda cluster, node: docker(
            *("network", "connect", "--ip", cluster.addresses[node], cluster.network, cluster.container(node))
        ),
        host_lives_on=True,
    ),
    "F3b": Fault("silent partition (cable off the bridge)", pull_cable, plug_cable, host_lives_on=True),
    "F4": Fault(
        "node frozen (`docker pause`)",
        lambda cluster, node: docker("pause", cluster.container(node)),
        lambda cluster, node: docker("unpause", cluster.container(node)),
        host_lives_on=True,
    ),
    "F5": Fault("planned switchover", lambda cluster, node: cluster.switchover(node)),
}
