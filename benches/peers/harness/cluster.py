"""`Cluster`: three PostgreSQL nodes of one system, each a container, on a bridge network of their own.

10.213.N.0/24  ── n1 .11   n2 .12   n3 .13   the nodes
               ── witness .10                etcd or the bucket, where the system has one
               ── probe .20                  the clients
"""

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from .docker import IMAGE, LABEL, Failed, docker, remove

NODES = ("n1", "n2", "n3")
CONTAINER_FILES = Path(__file__).resolve().parent.parent / "container"

# What all systems set alike in PostgreSQL; all else is PostgreSQL's default, or the system's own.
COMMON_SETTINGS = {"shared_buffers": "64MB", "wal_keep_size": "512MB"}


def wait_until(what: str, seconds: float, condition: Callable[[], object], every: float = 0.5) -> None:
    """Waits for a condition. A node that cannot be asked does not fulfil it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except Failed:
            pass
        time.sleep(every)
    raise Failed(f"not within {seconds:.0f} s: {what}")


class Cluster(ABC):
    """What all systems have in common; each one is a subclass in a file of its own."""

    # The database that the clients write to, and the user of watchers and writers.
    database = "postgres"
    client = "user=postgres"
    # The user in the container that the manager runs as, and its programs, for their footprint.
    manager_user = "postgres"
    manager_programs: tuple[str, ...] = ()
    # How long the old primary may take to come back by itself before it counts as not coming.
    rejoin_patience = 120.0
    # How long a settled cluster is left alone before the next fault.
    rest = 2.0
    # Whether its witness is an etcd of its own.
    runs_etcd = False

    def __init__(self, name: str, net: int, out: Path) -> None:
        self.name = name
        self.net = net
        self.out = out / name
        self.addresses = {node: f"10.213.{net}.1{i + 1}" for i, node in enumerate(NODES)}
        self.witness_address = f"10.213.{net}.10"
        self.out.mkdir(parents=True, exist_ok=True)
        # The clients write their logs here as the user postgres of the container.
        self.out.chmod(0o777)

    # ---- what each system answers for itself

    @abstractmethod
    def configure(self) -> None:
        """Writes the configuration of its nodes."""

    @abstractmethod
    def start_nodes(self) -> None:
        """Starts the nodes, and makes the first primary and its standbys."""

    @abstractmethod
    def switchover(self, primary: str) -> str:
        """Moves the primary on purpose. Answers with what the tool printed."""

    def settled(self) -> bool:
        """What the system demands of a cluster beyond one primary and two standbys that stream."""
        return True

    def data_dir(self, node: str) -> str:
        """The data directory, within the container."""
        return "/pgdata/data"

    def socket_dir(self, node: str) -> str:
        """The folder of PostgreSQL's Unix socket, within the container."""
        return "/var/run/postgresql"

    def repair(self, node: str, primary: str) -> str | None:
        """What an operator does with a node that does not come back. None: nothing is known that helps."""
        return None

    # ---- containers

    def container(self, node: str) -> str:
        return f"{LABEL}-{self.name}-{node}"

    @property
    def network(self) -> str:
        return f"{LABEL}-{self.name}"

    def start_container(self, node: str, address: str, *command: str, user: str = "postgres", volumes=()) -> None:
        """Starts a container. Its first process reaps what others leave behind."""
        mounts = [f"{CONTAINER_FILES}:/peers:ro", f"{self.out}:/out", *volumes]
        docker(
            *("run", "-d", "--init", "--name", self.container(node), "--hostname", node),
            *("--label", f"{LABEL}={self.name}", "--network", self.network, "--ip", address, "-u", user),
            *(argument for mount in mounts for argument in ("-v", mount)),
            *(IMAGE, *command),
        )

    def execute(self, node: str, *command: str, user: str = "postgres", check: bool = True, timeout: float = 60) -> str:
        """Runs a program in a node's container."""
        return docker("exec", "-u", user, self.container(node), *command, check=check, timeout=timeout)

    def sql(self, node: str, query: str, timeout: float = 10) -> str:
        """A query as superuser, over the socket."""
        return self.execute(
            node,
            *("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.socket_dir(node), "-U", "postgres"),
            *("-d", self.database, "-c", query),
            timeout=timeout,
        )

    def conf_dir(self, node: str) -> Path:
        """The folder of a node's configuration, which is mounted into its container."""
        folder = self.out / f"etc-{node}"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        return folder

    def up(self) -> None:
        """Makes the cluster anew, and waits until it is well."""
        remove(self.name)
        for node in NODES:
            shutil.rmtree(self.conf_dir(node))
        docker(
            "network", "create", "--label", f"{LABEL}={self.name}", "--subnet", f"10.213.{self.net}.0/24", self.network
        )
        self.configure()
        self.start_nodes()
        self.start_container("probe", f"10.213.{self.net}.20", "sleep", "infinity", volumes=self.probe_volumes())
        # In the machine's own network, to pull a node's cable there.
        docker(
            *("run", "-d", "--init", "--name", self.container("cables"), "--label", f"{LABEL}={self.name}"),
            *("--network", "host", "--cap-add", "NET_ADMIN", IMAGE, "sleep", "infinity"),
        )
        wait_until("a primary with two standbys", 120, self.streams, 1)
        self.prepare_database()
        self.wait_well(120)

    def down(self) -> None:
        """Leaves nothing of it but the logs."""
        remove(self.name)

    def probe_volumes(self) -> list[str]:
        """What the container of the clients needs besides."""
        return []

    def prepare_database(self) -> None:
        """The table that all clients write to."""
        self.sql(
            self.primary(),
            "create table if not exists probe (source text, sequence bigint, primary key (source, sequence));"
            " grant select, insert on probe to public",
        )

    # ---- state

    def roles(self) -> dict[str, str]:
        """What each node's PostgreSQL says that it is: primary, standby, or nothing."""
        roles = {}
        for node in NODES:
            try:
                answer = self.sql(node, "select pg_is_in_recovery()", timeout=5)
            except Failed:
                answer = ""
            roles[node] = {"f": "primary", "t": "standby"}.get(answer, "down")
        return roles

    def primary(self) -> str:
        """The one primary."""
        primaries = [node for node, role in self.roles().items() if role == "primary"]
        if len(primaries) != 1:
            raise Failed(f"not one primary: {primaries}")
        return primaries[0]

    def streams(self) -> bool:
        """Whether there is one primary, and both others stream from it."""
        standbys = ", ".join(f"'{address}'" for address in self.addresses.values())
        query = (
            f"select count(*) from pg_stat_replication where state = 'streaming' and host(client_addr) in ({standbys})"
        )
        return self.sql(self.primary(), query) == "2"

    def wait_well(self, seconds: float) -> None:
        """Waits until the next fault may come."""
        wait_until(f"{self.name} is well", seconds, lambda: self.streams() and self.settled(), 1)

    # ---- clients

    def dsn(self, hosts: list[str], *options: str) -> str:
        """libpq's connection string for nodes, tried in this order."""
        addresses = ",".join(self.addresses[node] for node in hosts)
        return " ".join([f"host={addresses} port=5432 dbname={self.database} {self.client}", *options])

    def dsn_inside(self, node: str) -> str:
        """The connection string for a client in the node's own container."""
        return f"host={self.socket_dir(node)} dbname={self.database} user=postgres"
