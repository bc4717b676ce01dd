#!/usr/bin/env python3
"""Hurts the primary of Patroni, repmgr and pgdock in the same ways, and measures what their clients see.

    bench.py plan            what is left to measure, and how long it takes
    bench.py run             measure it; what results.jsonl has already is not measured again
    bench.py table           write the tables of docs/failover.md from the results; --check only compares
    bench.py try SYSTEM FAULT
                             runs for trying things out, which count nowhere; --keep leaves the cluster up
    bench.py down            remove every container and network of any of this

README.md tells what is measured and how. Needs Docker, and Python without any packages.
"""

import argparse
import fnmatch
import queue
import sys
import threading
import time
import traceback
from pathlib import Path

from harness import docker, environment, footprint, plan, report
from harness.cluster import Cluster
from harness.docker import Failed
from harness.faults import FAULTS
from harness.measure import Run
from harness.pgdock import Programs
from harness.results import Results
from harness.systems import System, systems, trial_systems

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
RESULTS = HERE / "results.jsonl"
DOCUMENT = REPOSITORY / "docs" / "failover.md"
OUT = REPOSITORY / "target" / "peers"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["plan", "run", "table", "try", "down"])
    parser.add_argument("names", nargs="*", help="of `try`: the system and the faults")
    parser.add_argument("--systems", default="*", help="only these, separated by commas; * and ? match")
    parser.add_argument("--faults", default=",".join(FAULTS), help="only these, separated by commas")
    parser.add_argument("--runs", type=int, default=3, help="of each fault on each system (default 3)")
    parser.add_argument(
        "--lanes", type=int, default=3, help="systems side by side where timers set the gap (default 3)"
    )
    parser.add_argument("--again", help="measure these systems' cells anew")
    parser.add_argument(
        "--profile", default="release", help="the folder of target/ with the programs (default release)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of results")
    parser.add_argument("--check", action="store_true", help="of `table`: only tell whether the document has it")
    parser.add_argument("--keep", action="store_true", help="of `try`: leave the cluster up, and use one that is")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    target = REPOSITORY / "target" / args.profile
    programs = Programs(target / "pgdock", target / "s3-test-server")
    known = systems(programs)
    results = Results(args.results)
    if args.command == "table":
        return table(results, known, args.check)
    if args.command == "down":
        docker.remove()
        return 0
    if args.command == "try":
        return try_out(args, {**known, **trial_systems(programs)})

    wanted = chosen(known, args.systems)
    faults = [fault for fault in FAULTS if fault in args.faults.split(",")]
    if args.command == "run" and args.again:
        again = chosen(known, args.again)
        print(f"{results.forget(lambda line: line.get('system') in again)} results are measured again")
    todo = plan.make(wanted, faults, args.runs, results.read())
    print(plan.describe(todo, wanted, args.lanes), flush=True)
    if args.command == "run" and (todo.beside or todo.alone or todo.footprints):
        prepare()
        machine = environment.look(programs, REPOSITORY)
        if machine["id"] not in {line.get("id") for line in results.read()}:
            results.add(machine)
        try:
            Bench(wanted, results, machine["id"]).work(todo, args.lanes)
        except KeyboardInterrupt:
            print("interrupted: what was measured is kept; removing containers", flush=True)
            docker.remove()
            return 130
        left = plan.make(wanted, faults, args.runs, results.read())
        print(plan.describe(left, wanted, args.lanes))
        return 1 if left.beside or left.alone or left.footprints else 0
    return 0


def chosen(known: dict[str, System], patterns: str) -> dict[str, System]:
    """The systems that patterns name."""
    found = {n: s for n, s in known.items() if any(fnmatch.fnmatch(n, p) for p in patterns.split(","))}
    if not found:
        raise Failed(f"no system is called `{patterns}`: there are {', '.join(known)}")
    return found


def prepare() -> None:
    docker.require_engine()
    docker.build_image(HERE / "Dockerfile")
    OUT.mkdir(parents=True, exist_ok=True)


def table(results: Results, known: dict[str, System], check: bool) -> int:
    changed = report.update(DOCUMENT, results.read(), known, write=not check)
    if check and changed:
        print(f"{DOCUMENT}: not what the results say: run `benches/peers/bench.py table`", file=sys.stderr)
    return 1 if check and changed else 0


def try_out(args: argparse.Namespace, known: dict[str, System]) -> int:
    if not args.names or args.names[0] not in known:
        raise Failed(f"name a system: {', '.join(known)}")
    name, faults = args.names[0], args.names[1:]
    prepare()
    system = known[name]
    cluster = system.make(name, system.net, OUT)
    if not (args.keep and docker.docker("ps", "-q", "--filter", f"label={docker.LABEL}={name}")):
        cluster.up()
    try:
        for run in range(1, args.runs + 1):
            for fault in faults:
                print(Run(cluster, system.period, fault, run).measure(), flush=True)
        if not faults:
            print(footprint.measure(cluster))
    finally:
        if not args.keep:
            cluster.down()
    return 0


class Bench:
    """Works off a plan."""

    def __init__(self, known: dict[str, System], results: Results, machine: str) -> None:
        self.systems = known
        self.results = results
        self.machine = machine

    def work(self, todo: plan.Plan, lanes: int) -> None:
        waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for name in plan.in_order(todo, self.systems):
            waiting.put(name)

        def lane() -> None:
            while True:
                try:
                    name = waiting.get_nowait()
                except queue.Empty:
                    return
                self.system(name, todo.beside[name], idle=False)

        threads = [threading.Thread(target=lane, daemon=True) for _ in range(lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in self.systems:
            if name in todo.alone or name in todo.footprints:
                self.system(name, todo.alone.get(name, []), idle=name in todo.footprints)

    def system(self, name: str, cells: list[plan.Cell], idle: bool) -> None:
        """All runs of one system, on one cluster unless it has to be made anew."""
        system = self.systems[name]
        cluster = system.make(name, system.net, OUT)
        try:
            self.say(name, "making the cluster")
            cluster.up()
            for cell in cells:
                self.cell(cluster, system, cell)
            if idle:
                time.sleep(plan.CALM)
                self.say(name, "watching it idle")
                for line in footprint.measure(cluster):
                    self.results.add({"kind": "footprint", "system": name, "environment": self.machine, **line})
        except Exception as error:
            self.failed(name, "the rest of this system is left out", error)
        finally:
            cluster.down()

    def cell(self, cluster: Cluster, system: System, cell: plan.Cell) -> None:
        """One run; once more on a new cluster where it cannot be measured."""
        for attempt in (1, 2):
            try:
                found = Run(cluster, system.period, cell.fault, cell.run).measure()
            except Failed as error:
                self.failed(cell.system, f"{cell.fault} #{cell.run}, attempt {attempt}", error)
                cluster.up()
                continue
            self.results.add({**found, "environment": self.machine})
            self.say(cell.system, report.one_line(found))
            return

    def say(self, system: str, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {system}: {text}", flush=True)

    def failed(self, system: str, what: str, error: Exception) -> None:
        self.say(system, f"FAILED, {what}: {error}")
        if not isinstance(error, Failed):
            traceback.print_exception(error)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failed:
        sys.exit(f"error: {failed}")
