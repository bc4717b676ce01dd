"""Patroni with etcd, as Debian has them: one etcd, three nodes, pg_rewind and slots on."""

import json
from dataclasses import dataclass

from .cluster import COMMON_SETTINGS, NODES, Cluster, wait_until


@dataclass(frozen=True)
class Timing:
    """What of Patroni's dynamic configuration differs between the measured settings."""

    ttl: int
    loop_wait: int
    retry_timeout: int
    # None: Patroni's default of 300 s.
    primary_start_timeout: int | None = None
    synchronous_mode: bool = False


DEFAULT = Timing(ttl=30, loop_wait=10, retry_timeout=10)
# The least that Patroni 4.0 runs with: it raises lower values to these.
FASTEST = Timing(ttl=20, loop_wait=1, retry_timeout=3, primary_start_timeout=0)
FASTEST_SYNC = Timing(ttl=20, loop_wait=1, retry_timeout=3, primary_start_timeout=0, synchronous_mode=True)


class Patroni(Cluster):
    manager_programs = ("patroni",)
    runs_etcd = True

    def __init__(self, name, net, out, timing: Timing) -> None:
        super().__init__(name, net, out)
        self.timing = timing

    def configure(self) -> None:
        for node in NODES:
            # YAML is a superset of JSON.
            (self.conf_dir(node) / "patroni.yml").write_text(json.dumps(self.configuration(node), indent=2))

    def configuration(self, node: str) -> dict:
        """Patroni's configuration file."""
        timing = self.timing
        dynamic = {
            "ttl": timing.ttl,
            "loop_wait": timing.loop_wait,
            "retry_timeout": timing.retry_timeout,
            "synchronous_mode": timing.synchronous_mode,
            "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": COMMON_SETTINGS},
        }
        if timing.primary_start_timeout is not None:
            dynamic["primary_start_timeout"] = timing.primary_start_timeout
        address = self.addresses[node]
        role = {"password": "peers"}
        return {
            "scope": "peers",
            "name": node,
            "restapi": {"listen": "0.0.0.0:8008", "connect_address": f"{address}:8008"},
            "etcd3": {"host": f"{self.witness_address}:2379"},
            "bootstrap": {"dcs": dynamic, "initdb": [{"encoding": "UTF8"}]},
            "postgresql": {
                "listen": "0.0.0.0:5432",
                "connect_address": f"{address}:5432",
                "data_dir": "/pgdata/data",
                "bin_dir": "/usr/lib/postgresql/17/bin",
                "pgpass": "/var/lib/postgresql/.pgpass-patroni",
                "authentication": {
                    "superuser": {"username": "postgres", **role},
                    "replication": {"username": "replicator", **role},
                    "rewind": {"username": "rewind", **role},
                },
                "parameters": {"unix_socket_directories": "/var/run/postgresql"},
                "pg_hba": [
                    "local all all trust",
                    "local replication all trust",
                    "host all all 0.0.0.0/0 trust",
                    "host replication all 0.0.0.0/0 trust",
                ],
            },
            "watchdog": {"mode": "off"},
        }

    def start_nodes(self) -> None:
        start_etcd(self)
        for node in NODES:
            self.start_container(
                node,
                self.addresses[node],
                *("patroni", "/etc/peers/patroni.yml"),
                volumes=[f"{self.conf_dir(node)}:/etc/peers:ro"],
            )
            if node == NODES[0]:
                wait_until("the first primary", 90, lambda: self.roles()[NODES[0]] == "primary")

    def settled(self) -> bool:
        return not self.timing.synchronous_mode or bool(self.sync_standbys())

    def sync_standbys(self) -> list[str]:
        """The standbys that guard commits."""
        query = "select application_name from pg_stat_replication where sync_state = 'sync'"
        return self.sql(self.primary(), query).split()

    def switchover(self, primary: str) -> str:
        candidates = self.sync_standbys() if self.timing.synchronous_mode else [n for n in NODES if n != primary]
        return self.execute(
            candidates[0],
            *("patronictl", "-c", "/etc/peers/patroni.yml", "switchover", "--leader", primary),
            *("--candidate", candidates[0], "--force"),
            timeout=120,
        )


def start_etcd(cluster: Cluster) -> None:
    """One member of etcd, with its defaults."""
    address = cluster.witness_address
    cluster.start_container(
        "witness",
        address,
        *("etcd", "--name", "e1", "--data-dir", "/pgdata/etcd"),
        *("--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls", f"http://{address}:2379"),
        *("--listen-peer-urls", f"http://{address}:2380", "--initial-advertise-peer-urls", f"http://{address}:2380"),
        *("--initial-cluster", f"e1=http://{address}:2380"),
    )
    health = ("etcdctl", "--endpoints", f"http://{address}:2379", "endpoint", "health")
    wait_until("etcd answers", 60, lambda: cluster.execute("witness", *health))
