"""What is measured, what is left, and what the tables say of it."""

import tempfile
import unittest
from pathlib import Path

from harness import plan, report
from harness.docker import Failed
from harness.faults import FAULTS
from harness.pgdock import Programs
from harness.results import Results
from harness.systems import systems

KNOWN = systems(Programs(Path("pgdock"), Path("s3-test-server")))


def run(system: str, fault: str, number: int = 1, **more) -> dict:
    """A line of results where all went well."""
    return {
        "kind": "run",
        "system": system,
        "fault": fault,
        "run": number,
        "environment": "e1",
        "load": 0.5,
        "old": "n1",
        "new": "n2",
        "gap_s": 0.2,
        "switch_s": 0.15,
        "stalls": [],
        "acked": {"routed": 100, "patient": 10},
        "lost": {"routed": 0, "patient": 0},
        "rejoin": "by itself",
        "rejoin_s": 2.0,
        "fresh_client": "n2",
        **more,
    }


class Plans(unittest.TestCase):
    def test_nothing_is_measured_twice(self):
        one = {"patroni-fastest": KNOWN["patroni-fastest"]}
        first = plan.make(one, ["F1", "F4"], 2, [])
        done = [run(c.system, c.fault, c.run) for side in (first.beside, first.alone) for c in side["patroni-fastest"]]
        self.assertEqual(len(done), 4)
        rest = plan.make(one, ["F1", "F4"], 2, [*done, {"kind": "footprint", "system": "patroni-fastest"}])
        self.assertEqual(rest, plan.Plan({}, {}, []))
        more = plan.make(one, ["F1", "F4"], 3, done)
        self.assertEqual([c.run for c in more.alone["patroni-fastest"]], [3])

    def test_short_gaps_are_measured_alone(self):
        todo = plan.make(KNOWN, FAULTS, 1, [])
        self.assertFalse([name for name in todo.beside if name.startswith("pgdock")])
        self.assertFalse([c for cells in todo.beside.values() for c in cells if c.fault == "F5"])

    def test_every_fault_comes_once_before_any_comes_twice(self):
        todo = plan.make(KNOWN, FAULTS, 2, [])
        self.assertEqual([c.run for c in todo.alone["pgdock-sync-etcd"]], [1] * 6 + [2] * 6)

    def test_more_lanes_take_less_time(self):
        todo = plan.make(KNOWN, FAULTS, 1, [])
        self.assertLess(plan.seconds(todo, KNOWN, 3), plan.seconds(todo, KNOWN, 1))


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.results = Results(Path(folder.name) / "results.jsonl")
        self.document = Path(folder.name) / "failover.md"

    def test_a_line_that_was_cut_short_costs_no_other(self):
        self.results.add(run("repmgr-fast", "F1"))
        with self.results.path.open("a") as file:
            file.write('{"kind": "run", "sys')
        self.assertEqual(len(self.results.read()), 1)
        self.results.add(run("repmgr-fast", "F2"))
        self.assertEqual([line["fault"] for line in self.results.read()], ["F1", "F2"])

    def test_only_what_is_measured_again_is_forgotten(self):
        for system in ("repmgr-fast", "patroni-sync"):
            self.results.add(run(system, "F1"))
        self.assertEqual(self.results.forget(lambda line: line["system"] == "repmgr-fast"), 1)
        self.assertEqual([line["system"] for line in self.results.read()], ["patroni-sync"])

    def test_only_what_stands_between_the_marks_changes(self):
        names = list(report.blocks([], KNOWN))
        text = "before\n" + "".join(f"<!-- {n}: begin -->\nold\n<!-- {n}: end -->\nbetween\n" for n in names)
        self.document.write_text(text)
        lines = [run("pgdock-sync-etcd", "F1")]
        self.assertTrue(report.update(self.document, lines, KNOWN, write=False))
        self.assertEqual(self.document.read_text(), text)
        self.assertTrue(report.update(self.document, lines, KNOWN, write=True))
        self.assertFalse(report.update(self.document, lines, KNOWN, write=False))
        after = self.document.read_text()
        self.assertTrue(after.startswith("before\n") and after.count("between\n") == len(names))
        self.assertNotIn("\nold\n", after)
        self.document.write_text("no marks")
        with self.assertRaises(Failed):
            report.update(self.document, lines, KNOWN, write=True)


class Tables(unittest.TestCase):
    def row(self, *runs: dict) -> list[str]:
        """The only row of the table of runs."""
        table = report.blocks(list(runs), KNOWN)["runs"].splitlines()
        self.assertEqual(len(table), 3)
        return [cell.strip() for cell in table[2].strip("|").split("|")]

    def test_a_range_is_shown_where_runs_differ(self):
        same = self.row(run("pgdock-sync-etcd", "F1"), run("pgdock-sync-etcd", "F1", 2))
        self.assertEqual(same[2], "0.20")
        other = self.row(run("pgdock-sync-etcd", "F1"), run("pgdock-sync-etcd", "F1", 2, gap_s=0.4))
        self.assertEqual(other[2], "0.30 (0.20–0.40)")

    def test_a_run_without_an_end_is_not_left_out(self):
        row = self.row(run("repmgr-fast", "F4"), run("repmgr-fast", "F4", 2, gap_s=None))
        self.assertEqual(row[2], "0.20, 1 never")

    def test_losses_are_told_by_whom_they_hit(self):
        row = self.row(run("patroni-fastest", "F3", lost={"routed": 1, "inside": 20, "patient": 2}))
        self.assertEqual((row[4], row[5]), ("110", "1 routed, 22 others"))

    def test_two_primaries_stand_out(self):
        two = {"seconds": 0.16, "rows": 3, "lost": 3, "clients": ["patient"], "before_heal": 0}
        runs = [run("patroni-fastest", "F4", two_primaries=two), run("patroni-fastest", "F4", 2)]
        self.assertEqual(self.row(*runs)[6], "**0.16 s**, 3 rows, in 1 of 2 runs")
        self.assertIn("0.20 ² |", report.blocks(runs, KNOWN)["gaps"])

    def test_an_overlap_that_a_person_ended_has_no_length(self):
        two = {"seconds": 29.4, "rows": 300, "lost": 300, "clients": ["patient"], "before_heal": 0}
        row = self.row(run("repmgr-fast", "F2", two_primaries=two, rejoin="by hand", rejoin_s=None, fresh_client="n1"))
        self.assertEqual(row[6], "**until repaired by hand**, 300 rows, in 1 of 1 runs")
        self.assertEqual((row[8], row[9]), ("only by hand", "**old**"))

    def test_the_longest_other_pause_is_told(self):
        row = self.row(run("patroni-sync", "F4", stalls=[[16.5, 0.67], [17.1, 2.26]]), run("patroni-sync", "F4", 2))
        self.assertEqual(row[7], "2.3 s, in 1 of 2 runs")


if __name__ == "__main__":
    unittest.main()
