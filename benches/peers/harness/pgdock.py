"""pgdock: an agent in each container, with its defaults, and a witness that is reached over the network."""

import json
from dataclasses import dataclass
from pathlib import Path

from .cluster import COMMON_SETTINGS, NODES, Cluster, wait_until
from .docker import IMAGE, Failed, docker
from .patroni import start_etcd

PASSFILE = "/var/lib/postgresql/passfile"
BUCKET = "witness"
S3_PORT = 9000
# The keys that the server for tests takes unless it is told otherwise; they guard nothing.
S3_CREDENTIALS = r"AWS_ACCESS_KEY_ID=pgdock-test\nAWS_SECRET_ACCESS_KEY=not-a-secret\n"


@dataclass(frozen=True)
class Programs:
    """Where cargo put the programs, on this machine."""

    pgdock: Path
    s3_server: Path


class Pgdock(Cluster):
    database = "app"
    # As `pgdock dsn` has it; every connection is TLS with a password.
    client = f"user=app passfile={PASSFILE} sslmode=require"
    manager_user = "root"
    manager_programs = ("pgdock",)

    def __init__(self, name, net, out, durability: str, witness: str, programs: Programs) -> None:
        super().__init__(name, net, out)
        self.durability = durability
        self.witness = witness
        self.runs_etcd = witness == "etcd"
        self.programs = programs
        self.dir = self.out / "cluster"

    def configure(self) -> None:
        docker("run", "--rm", "-v", f"{self.out}:/out", IMAGE, "rm", "-rf", "/out/cluster", "/out/witness")
        self.dir.mkdir()
        (self.out / "witness").mkdir()
        sections = [
            '[cluster]\nname = "peers"\nroot = "/pgdata"',
            "[postgres.settings]\n" + "\n".join(f'{key} = "{value}"' for key, value in COMMON_SETTINGS.items()),
            f'[failover]\ndurability = "{self.durability}"',
            "[witness]\n" + "\n".join(f"{key} = {value}" for key, value in self.witness_section().items()),
            *(f'[nodes.{node}]\naddress = "{address}"' for node, address in self.addresses.items()),
        ]
        (self.dir / "cluster.toml").write_text("\n\n".join(sections) + "\n")
        # It makes what is missing: secrets and certificates.
        docker("run", "--rm", *self.mounts(), IMAGE, "pgdock", "init", "/cluster")
        if self.witness == "bucket":
            write = f"umask 077; printf '{S3_CREDENTIALS}' >/cluster/secrets/witness.env"
            docker("run", "--rm", *self.mounts(), IMAGE, "sh", "-c", write)

    def witness_section(self) -> dict[str, str]:
        """`[witness]` of cluster.toml, its values as TOML. Neither etcd nor the bucket of a test speaks TLS."""
        match self.witness:
            case "bucket":
                endpoint = f"http://{self.witness_address}:{S3_PORT}"
                return {"url": f'"s3://{BUCKET}"', "endpoint": f'"{endpoint}"', "tls": "false"}
            case "etcd":
                return {"url": f'"etcd://{self.witness_address}:2379"', "tls": "false"}
            case "file":
                return {"url": '"file:/witness/peers.json"'}
            case _:
                raise Failed(f"no such witness: {self.witness}")

    def mounts(self) -> list[str]:
        return [argument for volume in self.volumes() for argument in ("-v", volume)]

    def volumes(self) -> list[str]:
        program = f"{self.programs.pgdock}:/usr/local/bin/pgdock:ro"
        return [program, f"{self.dir}:/cluster", f"{self.out}/witness:/witness"]

    def start_nodes(self) -> None:
        if self.witness == "etcd":
            start_etcd(self)
        elif self.witness == "bucket":
            self.start_bucket()
        for node in NODES:
            command = ("pgdock", "--config", "/cluster", "agent", "--node", node)
            self.start_container(node, self.addresses[node], *command, user="root", volumes=self.volumes())
        # The agent runs already: all that is left to do for this node is to found the cluster.
        wait_until("the cluster is founded", 90, lambda: self.pgdock(NODES[0], "up", NODES[0]))

    def start_bucket(self) -> None:
        """An S3 server that honours conditions, as the bucket of a provider would."""
        self.start_container(
            "witness",
            self.witness_address,
            *("s3-test-server", "--listen", f"{self.witness_address}:{S3_PORT}", "--dir", "/pgdata/s3"),
            *("--bucket", BUCKET),
            user="root",
            volumes=[f"{self.programs.s3_server}:/usr/local/bin/s3-test-server:ro"],
        )
        wait_until("the S3 server answers", 30, lambda: docker("logs", self.container("witness")))

    def pgdock(self, node: str, *arguments: str, timeout: float = 60) -> str:
        """Runs a command of pgdock's in a node's container."""
        return self.execute(node, "pgdock", "--config", "/cluster", *arguments, user="root", timeout=timeout)

    def settled(self) -> bool:
        # What a failover in async lost is kept, and is a problem until somebody has looked: that is somebody's work.
        for kept in json.loads(self.pgdock(self.primary(), "diverged", "list", "--output", "json")):
            if not kept["seen"]:
                self.pgdock(self.primary(), "diverged", "show", f"{kept['node']}/{kept['id']}")
        # Ends with 3 where anything is wrong, such as that no standby guards commits.
        return bool(self.pgdock(self.primary(), "status"))

    def switchover(self, primary: str) -> str:
        return self.pgdock(next(node for node in NODES if node != primary), "switchover")

    def data_dir(self, node: str) -> str:
        return f"/pgdata/{node}/data"

    def socket_dir(self, node: str) -> str:
        return f"/pgdata/{node}/run"

    def probe_volumes(self) -> list[str]:
        return [f"{self.dir}:/cluster"]

    def prepare_database(self) -> None:
        super().prepare_database()
        # The watcher looks at pg_stat_replication.
        self.sql(self.primary(), "grant pg_monitor to app")
        entry = "printf '*:*:*:app:%s' $(cat /cluster/secrets/app.password)"
        install = f"{entry} | install -m 600 -o postgres -g postgres /dev/stdin {PASSFILE}"
        self.execute("probe", "sh", "-c", install, user="root")
