"""From results to the tables of docs/failover.md, which stand between marks there."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from .analysis import spread
from .docker import Failed
from .faults import FAULTS
from .systems import System

Runs = dict[tuple[str, str], list[dict]]


def update(document: Path, results: list[dict], systems: dict[str, System], write: bool) -> bool:
    """Brings the tables up to date. Answers whether anything differed."""
    before = document.read_text()
    after = before
    for name, block in blocks(results, systems).items():
        marks = re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.DOTALL)
        if not marks.search(after):
            raise Failed(f"{document}: there is no `<!-- {name}: begin -->` with its end")
        after = marks.sub(lambda found, block=block: found.group(1) + block + found.group(2), after)
    if write and after != before:
        document.write_text(after)
    return after != before


def blocks(results: list[dict], systems: dict[str, System]) -> dict[str, str]:
    """All tables as Markdown, by the name of their marks."""
    runs: Runs = {}
    for line in results:
        if line["kind"] == "run" and line["system"] in systems:
            runs.setdefault((line["system"], line["fault"]), []).append(line)
    footprints = [line for line in results if line["kind"] == "footprint" and line["system"] in systems]
    return {
        "gaps": gaps(runs, systems),
        "systems": table(["system", "settings"], ([s.title, s.settings] for s in systems.values())),
        "runs": details(runs, systems),
        "footprint": costs(footprints, systems),
        "machine": machine(results, runs, systems),
    }


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def gaps(runs: Runs, systems: dict[str, System]) -> str:
    """Only the gaps: a line for each system, a column for each fault."""
    rows = []
    for name, system in systems.items():
        rows.append([system.title, *(gap_cell(runs.get((name, fault), [])) for fault in FAULTS)])
    return table(["write gap, s", *(f"{name}: {fault.title}" for name, fault in FAULTS.items())], rows)


def gap_cell(runs: list[dict]) -> str:
    marks = ""
    if any(total_lost(run) for run in runs):
        marks += " ¹"
    if any("two_primaries" in run for run in runs):
        marks += " ²"
    return range_of(run.get("gap_s") for run in runs) + marks


def details(runs: Runs, systems: dict[str, System]) -> str:
    """Everything that was seen, a line for each fault on each system."""
    head = [
        "system",
        "fault",
        "write gap, s",
        "switch, s",
        "rows acknowledged",
        "of them lost",
        "two primaries at once",
        "other pauses",
        "old primary is back after, s",
        "a new client lands on",
    ]
    rows = []
    for name, system in systems.items():
        for fault in FAULTS:
            found = runs.get((name, fault), [])
            if found:
                rows.append(
                    [
                        system.title,
                        fault,
                        range_of(run.get("gap_s") for run in found),
                        range_of(run.get("switch_s") for run in found),
                        str(sum(sum(run["acked"].values()) for run in found)),
                        lost_cell(found),
                        primaries_cell(found),
                        stalls_cell(found),
                        rejoin_cell(found),
                        landing_cell(found),
                    ]
                )
    return table(head, rows)


def range_of(values: Iterable[float | None]) -> str:
    """The median, and from where to where the runs lie."""
    numbers = list(values)
    found = spread(value for value in numbers if value is not None)
    if found is None:
        return "–"
    digits = 2 if found[2] < 10 else 1
    median, first, last = (f"{value:.{digits}f}" for value in found)
    missing = len([value for value in numbers if value is None])
    text = median if first == last else f"{median} ({first}–{last})"
    return f"{text}, {missing} never" if missing else text


def total_lost(run: dict) -> int:
    return sum(run["lost"].values())


def lost_cell(runs: list[dict]) -> str:
    """Rows lost: of the client that follows the primary, and of those that know one node."""
    routed = sum(run["lost"].get("routed", 0) for run in runs)
    others = sum(total_lost(run) for run in runs) - routed
    if not routed and not others:
        return "0"
    return f"{routed} routed, {others} others"


def primaries_cell(runs: list[dict]) -> str:
    seen = [run["two_primaries"] for run in runs if "two_primaries" in run]
    if not seen:
        return "no"
    seconds = max(found["seconds"] for found in seen)
    rows = sum(found["rows"] for found in seen)
    # Where somebody had to end it, its length is that of the harness's patience.
    by_hand = all(run.get("rejoin") == "by hand" for run in runs if "two_primaries" in run)
    length = "until repaired by hand" if by_hand else f"{seconds:.2f} s"
    return f"**{length}**, {rows} rows, in {len(seen)} of {len(runs)} runs"


def stalls_cell(runs: list[dict]) -> str:
    """The longest pause besides the gap itself, such as while the old primary comes back."""
    pauses = [max(length for _, length in run["stalls"]) for run in runs if run["stalls"]]
    return f"{max(pauses):.1f} s, in {len(pauses)} of {len(runs)} runs" if pauses else "no"


def rejoin_cell(runs: list[dict]) -> str:
    if all(run["rejoin"] == "in place" for run in runs):
        return "restarted in place"
    parts = []
    alone = [run["rejoin_s"] for run in runs if run["rejoin"] == "by itself"]
    if alone:
        parts.append(range_of(alone))
    for how in ("in place", "by hand", "no"):
        count = len([run for run in runs if run["rejoin"] == how])
        if count:
            word = {"by hand": "only by hand", "no": "never"}.get(how, how)
            parts.append(word if count == len(runs) else f"{word} ({count} of {len(runs)})")
    return ", ".join(parts)


def landing_cell(runs: list[dict]) -> str:
    """Whether a client that has the old primary first in its list is sent to the new one."""
    places = []
    for run in runs:
        where = run.get("fresh_client")
        if where is None:
            continue
        place = {run["new"]: "new", run["old"]: "**old**"}.get(where, where)
        if place not in places:
            places.append(place)
    return "/".join(places) or "–"


def costs(footprints: list[dict], systems: dict[str, System]) -> str:
    """Memory and processor time of each kind of process."""
    kinds: dict[tuple[str, str, str], list[dict]] = {}
    for line in footprints:
        kinds.setdefault((line["system"], line["process"], line["role"]), []).append(line)
    rows = []
    for (name, process, role), lines in sorted(kinds.items(), key=lambda item: list(systems).index(item[0][0])):
        rows.append(
            [
                systems[name].title,
                f"{process} ({role})",
                *(range_of_cost(lines, key) for key in ("rss_mb", "pss_mb", "cpu_percent")),
            ]
        )
    return table(["system", "process", "resident, MB", "its share, MB", "processor, % of a core"], rows)


def range_of_cost(lines: list[dict], key: str) -> str:
    values = [line[key] for line in lines]
    digits = 2 if key == "cpu_percent" else 1
    first, last = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return first if first == last else f"{first}–{last}"


def machine(results: list[dict], runs: Runs, systems: dict[str, System]) -> str:
    """What it was measured on, and how busy that was."""
    measured = [run for found in runs.values() for run in found]
    used = {run["environment"] for run in measured}
    lines = []
    for facts in results:
        if facts["kind"] == "environment" and facts["id"] in used:
            lines.append(
                f"- {facts['seen']}: {facts['cores']} cores ({facts['processor']}), {facts['memory_gb']} GB, "
                f"{facts['system']}, Docker {facts['docker']}. "
                + "; ".join(f"{name}: {version}" for name, version in facts["versions"].items())
                + f"; {facts['pgdock']}.\n"
            )
    for title, slow in (("side by side", True), ("alone", False)):
        loads = [run["load"] for run in measured if (run["fault"] in systems[run["system"]].slow) == slow]
        if loads:
            median, _, highest = spread(loads)
            lines.append(
                f"- {len(loads)} runs {title}: load average at their beginning {median:.1f} (median), "
                f"{highest:.1f} (highest).\n"
            )
    return "".join(lines) or "Nothing was measured yet.\n"


def one_line(run: dict) -> str:
    """A run for whoever watches the bench."""
    parts = [
        f"{run['fault']} #{run['run']}",
        f"gap {run.get('gap_s', '–')} s",
        f"switch {run.get('switch_s', '–')} s",
        f"acknowledged {sum(run['acked'].values())}",
        f"lost {total_lost(run)}",
        f"rejoin {run['rejoin']} {run.get('rejoin_s', run.get('by_hand_s', ''))}".strip(),
    ]
    optional: list[tuple[str, Callable[[dict], str]]] = [
        ("two_primaries", lambda found: f"TWO PRIMARIES {found['seconds']} s, {found['rows']} rows"),
        ("stalls", lambda found: f"stalls {found}"),
        ("note", str),
    ]
    parts += [show(run[key]) for key, show in optional if run.get(key)]
    return ", ".join(parts)
