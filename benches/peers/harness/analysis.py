"""From the clients' logs to figures. Pure: it reads no clock and asks nobody.

All times are seconds of CLOCK_MONOTONIC. A *new primary* is the node that acknowledged the first row after
the fault that the old primary did not.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

# Writes of the routed client that take longer count as a stall, in seconds.
STALL = 0.5


@dataclass(frozen=True)
class Ack:
    """A row that a client was told is committed."""

    client: str
    sequence: int
    sent: float
    at: float
    node: str


@dataclass(frozen=True)
class Sample:
    """What the watcher saw of a node, from this moment on."""

    at: float
    node: str
    primary: bool
    # The addresses of standbys that stream from it.
    streaming: frozenset[str]


def read_acks(client: str, lines: Iterable[str], node_of: dict[str, str], node: str | None = None) -> list[Ack]:
    """The acknowledgements in a writer's log. `node` tells where it wrote, if not what its log says."""
    acks = []
    for line in lines:
        fields = line.split()
        # The last line may be cut short.
        if len(fields) == 5 and fields[0] == "A" and line.endswith("\n"):
            where = node or node_of.get(fields[4], fields[4])
            acks.append(Ack(client, int(fields[1]), float(fields[2]), float(fields[3]), where))
    return sorted(acks, key=lambda ack: ack.at)


def read_samples(lines: Iterable[dict]) -> list[Sample]:
    """The watcher's log."""
    return [
        Sample(
            line["at"],
            line["node"],
            line["up"] and not line["in_recovery"],
            frozenset(address for address, state in line.get("standbys", []) if state == "streaming"),
        )
        for line in lines
    ]


def spread(values: Iterable[float]) -> tuple[float, float, float] | None:
    """The median, the smallest and the largest."""
    ordered = sorted(values)
    if not ordered:
        return None
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return median, ordered[0], ordered[-1]


def write_gap(acks: list[Ack], struck: float, until: float) -> tuple[float, float] | None:
    """The longest pause between two acknowledgements of one client around the fault: its begin and end.

    A pause counts if it ends after the fault and begins before `until`, when the fault is undone.
    """
    pauses = [(a.at, b.at) for a, b in pairwise(acks) if b.at > struck and a.at < until]
    return max(pauses, key=lambda pause: pause[1] - pause[0], default=None)


def stalls(acks: list[Ack], struck: float, gap: tuple[float, float] | None) -> list[tuple[float, float]]:
    """The other pauses after the fault that a user would notice."""
    pauses = [(a.at, b.at) for a, b in pairwise(acks) if b.at > struck and b.at - a.at > STALL]
    return [pause for pause in pauses if pause != gap]


def takeover(acks: list[Ack], old: str, struck: float) -> tuple[str, float] | None:
    """The new primary, and when it acknowledged its first row to anybody."""
    first = min((a for a in acks if a.at > struck and a.node != old), key=lambda a: a.at, default=None)
    return None if first is None else (first.node, first.at)


def last_before(acks: list[Ack], node: str, moment: float) -> float | None:
    """When a node acknowledged its last row before a moment."""
    return max((a.at for a in acks if a.node == node and a.at < moment), default=None)


def two_primaries(acks: list[Ack], new: str, first: float) -> list[Ack]:
    """What other nodes acknowledged between two acknowledgements of the new primary.

    A statement that was sent from the frozen or cut off host itself before the new primary's first row says
    nothing: it may have been committed long before its client could read the answer.
    """
    last = max((a.at for a in acks if a.node == new), default=first)
    late = (a for a in acks if a.node != new and first < a.at < last)
    return [a for a in late if a.client != "inside" or a.sent > first]


def seconds_together(strays: list[Ack]) -> float:
    """For how long another node than the new primary acknowledged rows."""
    times = [ack.at for ack in strays]
    return max(times) - min(times)


def lost(acks: Iterable[Ack], present: dict[str, set[int]]) -> list[Ack]:
    """The acknowledged rows that are not there."""
    return [ack for ack in acks if ack.sequence not in present.get(ack.client, set())]


def rejoined(samples: list[Sample], node_address: str, primary: str, after: float) -> float | None:
    """When the primary was first seen to have this node as a streaming standby, after a moment."""
    return min(
        (
            sample.at
            for sample in samples
            if sample.at > after and sample.node == primary and sample.primary and node_address in sample.streaming
        ),
        default=None,
    )
