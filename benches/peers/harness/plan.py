"""Which runs are still to be made, in which order, and how long they take."""

from collections.abc import Iterable
from dataclasses import dataclass

from . import measure
from .systems import System

# What a cluster costs before its first run and after its last one, in seconds.
SET_UP = 35.0
# What a run costs besides waiting: starting clients, looking through their logs, being well before and after.
AROUND = 12.0
# How long a cluster is left alone before its idle processes are watched, and for how long they are.
CALM = 10.0
IDLE = 30.0


@dataclass(frozen=True)
class Cell:
    """One run of one fault on one system."""

    system: str
    fault: str
    run: int


@dataclass(frozen=True)
class Plan:
    """What is to be done, by system. Cells of one system share a cluster, one after the other."""

    # Gaps that timers of many seconds set: several systems side by side.
    beside: dict[str, list[Cell]]
    # Gaps that are shorter than what a busy neighbour costs, and the footprint: one system at a time.
    alone: dict[str, list[Cell]]
    footprints: list[str]


def make(systems: dict[str, System], faults: Iterable[str], runs: int, done: Iterable[dict]) -> Plan:
    """All cells that results do not have yet. Every fault once comes before any fault twice."""
    results = list(done)
    have = {(r["system"], r["fault"], r["run"]) for r in results if r["kind"] == "run"}
    measured = {r["system"] for r in results if r["kind"] == "footprint"}
    faults = list(faults)
    beside: dict[str, list[Cell]] = {}
    alone: dict[str, list[Cell]] = {}
    for name, system in systems.items():
        for run in range(1, runs + 1):
            for fault in faults:
                if (name, fault, run) not in have:
                    side = beside if fault in system.slow else alone
                    side.setdefault(name, []).append(Cell(name, fault, run))
    return Plan(beside, alone, [name for name in systems if name not in measured])


def seconds_of(system: System, fault: str) -> float:
    """How long one run is expected to take."""
    writing = measure.WARM_UP + system.period / 2 + measure.OBSERVE + measure.AFTERMATH
    return writing + system.expected_gap(fault) + system.rejoin + AROUND


def seconds(plan: Plan, systems: dict[str, System], lanes: int) -> float:
    """How long a plan is expected to take."""

    def total(name: str, cells: list[Cell]) -> float:
        return SET_UP + sum(seconds_of(systems[name], cell.fault) for cell in cells)

    busy = [0.0] * lanes
    for name in in_order(plan, systems):
        busy[busy.index(min(busy))] += total(name, plan.beside[name])
    alone = {name: total(name, plan.alone.get(name, [])) for name in {*plan.alone, *plan.footprints}}
    return max(busy) + sum(alone.values()) + (CALM + IDLE) * len(plan.footprints)


def in_order(plan: Plan, systems: dict[str, System]) -> list[str]:
    """The systems that run side by side, those that take longest first."""

    def total(name: str) -> float:
        return sum(seconds_of(systems[name], cell.fault) for cell in plan.beside[name])

    return sorted(plan.beside, key=total, reverse=True)


def describe(plan: Plan, systems: dict[str, System], lanes: int) -> str:
    """The plan for a person."""
    count = sum(len(cells) for side in (plan.beside, plan.alone) for cells in side.values())
    if not count and not plan.footprints:
        return "nothing is left to measure"
    lines = [f"{count} runs, {len(plan.footprints)} footprints; about {seconds(plan, systems, lanes) / 60:.0f} minutes"]
    for title, side in ((f"side by side, {lanes} at a time", plan.beside), ("alone", plan.alone)):
        for name, cells in side.items():
            counts: dict[str, int] = {}
            for cell in cells:
                counts[cell.fault] = counts.get(cell.fault, 0) + 1
            lines.append(f"  {title}: {name}: " + ", ".join(f"{n} x {fault}" for fault, n in counts.items()))
    return "\n".join(lines)
