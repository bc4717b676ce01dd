"""repmgr with repmgrd, as Debian has them: no witness, failover automatic."""

from .cluster import COMMON_SETTINGS, NODES, Cluster

CONF = "/etc/peers/repmgr.conf"


class Repmgr(Cluster):
    manager_programs = ("repmgrd",)
    # It has nothing that would bring an old primary back; seen once, it need not be waited for any longer.
    rejoin_patience = 25.0
    # Each repmgrd must have found the present primary.
    rest = 8.0

    def __init__(self, name, net, out, timing: dict[str, int]) -> None:
        super().__init__(name, net, out)
        self.timing = timing

    def configure(self) -> None:
        settings = {
            "listen_addresses": "*",
            "wal_log_hints": "on",
            "shared_preload_libraries": "repmgr",
            "logging_collector": "on",
            "log_directory": "/var/log/pg",
            "log_filename": "pg.log",
            **COMMON_SETTINGS,
        }
        for number, node in enumerate(NODES, 1):
            folder = self.conf_dir(node)
            (folder / "postgresql.conf").write_text("".join(f"{k} = '{v}'\n" for k, v in settings.items()))
            repmgr = {
                "node_id": number,
                "node_name": node,
                "conninfo": f"host={self.addresses[node]} user=repmgr dbname=repmgr connect_timeout=2",
                "data_directory": "/pgdata/data",
                "pg_bindir": "/usr/lib/postgresql/17/bin",
                "log_file": "/var/log/repmgr/repmgrd.log",
                "failover": "automatic",
                "promote_command": f"repmgr standby promote -f {CONF} --log-to-file",
                "follow_command": f"repmgr standby follow -f {CONF} --log-to-file --upstream-node-id=%n",
                **self.timing,
            }
            (folder / "repmgr.conf").write_text("".join(f"{k}='{v}'\n" for k, v in repmgr.items()))

    def start_nodes(self) -> None:
        for node in NODES:
            volumes = [f"{self.conf_dir(node)}:/etc/peers:ro"]
            self.start_container(node, self.addresses[node], "/peers/repmgr-boot.sh", user="root", volumes=volumes)
        self.execute(NODES[0], "/peers/repmgr-found.sh", "primary")
        for node in NODES[1:]:
            self.execute(node, "/peers/repmgr-found.sh", "standby", self.addresses[NODES[0]])
        for node in NODES:
            self.execute(node, "/peers/repmgrd.sh", user="root")

    def settled(self) -> bool:
        dead = [node for node in NODES if not self.execute(node, "pgrep", "-x", "repmgrd", check=False)]
        for node in dead:
            self.execute(node, "/peers/repmgrd.sh", user="root", check=False)
        return not dead

    def switchover(self, primary: str) -> str:
        candidate = next(node for node in NODES if node != primary)
        return self.execute(
            candidate, *("repmgr", "-f", CONF, "standby", "switchover", "--siblings-follow"), timeout=180
        )

    def repair(self, node: str, primary: str) -> str:
        said = self.execute(node, "/peers/repmgr-rejoin.sh", self.addresses[primary], check=False, timeout=180)
        self.execute(node, "/peers/repmgrd.sh", user="root", check=False)
        return said
