"""The systems that are measured, each with the settings that its users could choose."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import patroni
from .cluster import Cluster
from .patroni import Patroni
from .pgdock import Pgdock, Programs
from .repmgr import Repmgr

# Faults after which nothing answers for the primary any more.
SILENT = frozenset({"F2", "F3", "F3b", "F4"})


@dataclass(frozen=True, kw_only=True)
class System:
    """One system in one setting."""

    title: str
    # What its settings are, for the reader of the table.
    settings: str
    # Makes its cluster: from its name, the third part of its addresses (10.213.N.0) and the folder of logs.
    make: Callable[[str, int, Path], Cluster]
    net: int
    # The longest of the timers that it goes by, in seconds: faults come at a random moment of it.
    period: float
    # Faults that it answers by waiting for a timer of many seconds: these gaps are the same beside others.
    slow: frozenset[str] = frozenset()
    # How long its clients are expected to wait after a crash (F1), after silence (F2 to F4) and in a switchover
    # (F5), and how long until a node is back, in seconds. Only the estimate of time rests on it.
    crash: float
    silence: float
    switchover: float = 1.5
    rejoin: float

    def expected_gap(self, fault: str) -> float:
        return {"F1": self.crash, "F5": self.switchover}.get(fault, self.silence)


def systems(programs: Programs) -> dict[str, System]:
    """All of them, in the order of the table."""
    return {
        "patroni-default": System(
            title="Patroni, default",
            settings="ttl 30, loop_wait 10, retry_timeout 10, primary_start_timeout 300",
            make=partial(Patroni, timing=patroni.DEFAULT),
            net=61,
            period=10,
            slow=SILENT | {"F1"},
            crash=10,
            silence=29,
            rejoin=12,
        ),
        "patroni-fastest": System(
            title="Patroni, fastest",
            settings="ttl 20, loop_wait 1, retry_timeout 3, primary_start_timeout 0: the least that it accepts",
            make=partial(Patroni, timing=patroni.FASTEST),
            net=62,
            period=1,
            slow=SILENT,
            crash=1,
            silence=23,
            rejoin=12,
        ),
        "patroni-sync": System(
            title="Patroni, fastest, sync",
            settings="as fastest, with synchronous_mode",
            make=partial(Patroni, timing=patroni.FASTEST_SYNC),
            net=63,
            period=1,
            slow=SILENT,
            crash=1,
            silence=23,
            rejoin=12,
        ),
        "repmgr-default": System(
            title="repmgr, default",
            settings="failover automatic, reconnect_attempts 6, reconnect_interval 10, monitor_interval_secs 2",
            make=partial(Repmgr, timing={}),
            net=64,
            period=2,
            slow=SILENT | {"F1"},
            crash=52,
            silence=67,
            rejoin=29,
        ),
        "repmgr-fast": System(
            title="repmgr, fast",
            settings="failover automatic, reconnect_attempts 2, reconnect_interval 1, monitor_interval_secs 1",
            make=partial(Repmgr, timing={"reconnect_attempts": 2, "reconnect_interval": 1, "monitor_interval_secs": 1}),
            net=65,
            period=2,
            slow=SILENT,
            crash=1.6,
            silence=10,
            rejoin=29,
        ),
        "pgdock-sync-bucket": pgdock("sync", "bucket", 66, programs),
        "pgdock-sync-etcd": pgdock("sync", "etcd", 67, programs),
        "pgdock-async-bucket": pgdock("async", "bucket", 68, programs),
        "pgdock-async-etcd": pgdock("async", "etcd", 69, programs),
    }


def pgdock(durability: str, witness: str, net: int, programs: Programs) -> System:
    return System(
        title=f"pgdock {durability}, {witness}",
        settings=f'durability = "{durability}", the witness in {WITNESSES[witness]}; all else default',
        make=partial(Pgdock, durability=durability, witness=witness, programs=programs),
        net=net,
        period=2,
        crash=0.3,
        silence=2 if durability == "sync" else 11,
        switchover=0.4,
        rejoin=6,
    )


WITNESSES = {"bucket": "a bucket of an S3 server", "etcd": "an etcd of one member", "file": "a file"}


def trial_systems(programs: Programs) -> dict[str, System]:
    """For trying things out: a file on this machine is a witness that no partition cuts off."""
    return {
        "pgdock-sync-file": pgdock("sync", "file", 70, programs),
        "pgdock-async-file": pgdock("async", "file", 71, programs),
    }
