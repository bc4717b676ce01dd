"""One run: clients write, the primary is hurt, the fault is undone, and the logs are looked through.

Clients of a run, each with rows of its own:

    routed       all nodes in its connection string, the old primary first; 50 rows a second
    direct-nX    knows one node, and asks it again and again; 20 a second
    patient      sits on the old primary, and waits for an answer as long as it takes
    inside       the same over the socket in the old primary's own container, where faults leave that alive
"""

import json
import os
import random
import time
from pathlib import Path

from . import analysis
from .analysis import Ack, Sample
from .cluster import NODES, Cluster, wait_until
from .docker import Failed, docker
from .faults import FAULTS, Fault

# How long clients write before the fault, in seconds.
WARM_UP = 4.0
# How long a fault lasts once clients can write again, and how long is looked on after the node is back.
OBSERVE = 10.0
AFTERMATH = 3.0
# How long is waited for a new primary, in seconds.
RECOVERY = 240.0
FOREVER = 600.0


class Run:
    """One fault on one cluster."""

    def __init__(self, cluster: Cluster, period: float, fault: str, number: int) -> None:
        self.cluster = cluster
        self.period = period
        self.fault_name = fault
        self.fault: Fault = FAULTS[fault]
        self.number = number
        self.name = f"{fault}-{number}-{time.strftime('%H%M%S')}"
        self.dir: Path = cluster.out / self.name
        self.node_of = {address: node for node, address in cluster.addresses.items()}

    def measure(self) -> dict:
        """Does it all. Answers with a line of results."""
        cluster = self.cluster
        cluster.wait_well(120)
        time.sleep(cluster.rest)
        self.old = cluster.primary()
        self.result = {
            "kind": "run",
            "system": cluster.name,
            "fault": self.fault_name,
            "run": self.number,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "load": round(os.getloadavg()[0], 2),
            "old": self.old,
        }
        self.start_clients()
        try:
            # At a random moment of the timers that the system goes by.
            time.sleep(WARM_UP + random.uniform(0, self.period))
            self.strike()
            self.await_recovery()
            self.heal()
            self.await_rejoin()
            time.sleep(AFTERMATH)
        finally:
            self.stop_clients()
        self.figures()
        self.result["load_after"] = round(os.getloadavg()[0], 2)
        return self.result

    # ---- clients

    def start_clients(self) -> None:
        cluster, old = self.cluster, self.old
        self.dir.mkdir()
        self.dir.chmod(0o777)
        others = [node for node in NODES if node != old]
        watched = [f"{node}={cluster.dsn([node], 'connect_timeout=2')}" for node in NODES]
        self.in_background(
            "probe", "python3", "/peers/watch.py", self.inside("watch.jsonl"), self.inside("stop"), *watched
        )
        routed = cluster.dsn([old, *others], "target_session_attrs=read-write", "connect_timeout=1")
        self.clients = {"routed": None}
        self.start_writer("probe", "routed", routed)
        for node in NODES:
            self.clients[f"direct-{node}"] = node
            dsn = cluster.dsn([node], "connect_timeout=2")
            self.start_writer("probe", f"direct-{node}", dsn, "--interval", "0.05", "--stay")
        patient = ("--interval", "0.1", "--stay", "--patience", str(FOREVER))
        self.clients["patient"] = old
        self.start_writer("probe", "patient", cluster.dsn([old], "connect_timeout=2"), *patient)
        if self.fault.host_lives_on:
            self.clients["inside"] = old
            self.start_writer(old, "inside", cluster.dsn_inside(old), *patient)
        wrote = [client for client, node in self.clients.items() if node in (None, old)]
        wait_until("clients write", 30, lambda: all(self.acks_of(client) for client in wrote), 0.1)

    def start_writer(self, container: str, client: str, dsn: str, *options: str) -> None:
        self.in_background(
            *(container, "python3", "/peers/write.py", "--dsn", dsn, "--source", f"{self.name}/{client}"),
            *("--out", self.inside(f"{client}.log"), "--stop-file", self.inside("stop"), *options),
        )

    def in_background(self, container: str, *command: str) -> None:
        docker("exec", "-d", "-u", "postgres", self.cluster.container(container), *command)

    def inside(self, file: str) -> str:
        """The path of a log within the containers."""
        return f"/out/{self.name}/{file}"

    def stop_clients(self) -> None:
        (self.dir / "stop").touch()
        # None of them is in the middle of a round any more, but those whose statement hangs.
        time.sleep(1.5)

    def acks_of(self, client: str) -> list[Ack]:
        """What a client was acknowledged so far."""
        log = self.dir / f"{client}.log"
        if not log.exists():
            return []
        with log.open() as lines:
            return analysis.read_acks(client, lines, self.node_of, self.clients[client])

    def samples(self) -> list[Sample]:
        lines = (self.dir / "watch.jsonl").read_text().splitlines(keepends=True)
        return analysis.read_samples(json.loads(line) for line in lines if line.endswith("\n"))

    # ---- the fault

    def strike(self) -> None:
        self.struck = time.monotonic()
        said = self.fault.strike(self.cluster, self.old)
        self.struck_until = time.monotonic()
        if isinstance(said, str):
            (self.dir / "strike.log").write_text(said + "\n")
        self.result["strike_s"] = round(self.struck_until - self.struck, 2)

    def await_recovery(self) -> None:
        def recovered() -> bool:
            acks = self.acks_of("routed")
            if any(ack.at > self.struck and ack.node != self.old for ack in acks):
                return True
            # Restarted where it was: rows that came after a pause, which the fault's own duration does not hide.
            return not self.fault.moves and any(ack.at > self.struck_until + 1 for ack in acks)

        try:
            wait_until("clients write again", RECOVERY, recovered, 0.3)
        except Failed:
            self.result["note"] = f"nobody could write within {RECOVERY:.0f} s"
        time.sleep(OBSERVE)

    def heal(self) -> None:
        self.healed = time.monotonic()
        if self.fault.heal is not None:
            self.fault.heal(self.cluster, self.old)
        else:
            # Nothing was in the way of coming back from the beginning.
            self.healed = self.struck
        writes = self.acks_of("routed")
        self.new = writes[-1].node if writes else self.old

    def await_rejoin(self) -> None:
        cluster, result = self.cluster, self.result
        result["new"] = self.new
        if self.new == self.old:
            result["rejoin"] = "in place"
            return
        time.sleep(4)
        result["fresh_client"] = self.fresh_client()
        address = cluster.addresses[self.old]

        def back(after: float) -> float | None:
            return analysis.rejoined(self.samples(), address, self.new, after)

        try:
            wait_until("the old primary streams", cluster.rejoin_patience, lambda: back(self.healed))
            result["rejoin"] = "by itself"
            result["rejoin_s"] = round(back(self.healed) - self.healed, 2)
            return
        except Failed:
            result["rejoin"] = "no"
        repair = time.monotonic()
        said = cluster.repair(self.old, self.new)
        if said is None:
            return
        (self.dir / "repair.log").write_text(said + "\n")
        try:
            wait_until("the repaired node streams", 60, lambda: back(repair))
            result["rejoin"] = "by hand"
            result["by_hand_s"] = round(back(repair) - repair, 2)
        except Failed:
            pass

    def fresh_client(self) -> str:
        """Where a client lands that connects now, with the old primary first in its list."""
        order = [self.old, *(node for node in NODES if node != self.old)]
        dsn = self.cluster.dsn(order, "target_session_attrs=read-write", "connect_timeout=2")
        query = "select host(inet_server_addr())"
        try:
            address = self.cluster.execute("probe", "psql", "-XAtq", dsn, "-c", query, timeout=30)
        except Failed:
            return "nowhere"
        return self.node_of.get(address, "nowhere")

    # ---- figures

    def figures(self) -> None:
        result, struck = self.result, self.struck
        acks = {client: self.acks_of(client) for client in self.clients}
        routed = acks["routed"]
        outside = [ack for client, found in acks.items() if client != "inside" for ack in found]
        everything = [ack for found in acks.values() for ack in found]
        until = self.healed if self.healed > struck else struck + FOREVER
        gap = analysis.write_gap(routed, struck, until)
        if gap is not None:
            result["gap_s"] = round(gap[1] - gap[0], 3)
        result["stalls"] = [
            [round(begin - struck, 1), round(end - begin, 2)] for begin, end in analysis.stalls(routed, struck, gap)
        ]
        found = analysis.takeover(outside, self.old, struck)
        present = self.present()
        if found is not None:
            new, first = found
            before = analysis.last_before(outside, self.old, first)
            if before is not None:
                result["switch_s"] = round(first - before, 3)
            strays = analysis.two_primaries(everything, new, first)
            if strays:
                result["two_primaries"] = {
                    "seconds": round(analysis.seconds_together(strays), 2),
                    "rows": len(strays),
                    "lost": len(analysis.lost(strays, present)),
                    "clients": sorted({ack.client for ack in strays}),
                    "before_heal": sum(ack.at < self.healed for ack in strays) if self.healed > struck else len(strays),
                }
        cut_off = [ack for ack in acks.get("inside", []) if ack.at > struck]
        if cut_off:
            result["cut_off"] = {
                "rows": len(cut_off),
                "lost": len(analysis.lost(cut_off, present)),
                "until_s": round(max(ack.at for ack in cut_off) - struck, 2),
            }
        result["acked"] = {client: len(found) for client, found in acks.items()}
        result["lost"] = {client: len(analysis.lost(found, present)) for client, found in acks.items()}
        latencies = sorted(ack.at - ack.sent for ack in routed if ack.at < struck)
        if latencies:
            result["insert_ms"] = [round(1000 * latencies[len(latencies) * share // 100], 2) for share in (50, 99)]

    def present(self) -> dict[str, set[int]]:
        """The rows of this run that the primary has now."""
        query = f"select source, sequence from probe where source like '{self.name}/%'"
        present: dict[str, set[int]] = {}
        for line in self.cluster.sql(self.new, query, timeout=60).splitlines():
            source, sequence = line.split("|")
            present.setdefault(source.split("/", 1)[1], set()).add(int(sequence))
        return present
