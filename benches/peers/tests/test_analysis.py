"""The arithmetic between clients' logs and the tables, on logs made by hand."""

import unittest

from harness import analysis
from harness.analysis import Ack, Sample


def acks(client: str, node: str, *times: float, first: int = 1) -> list[Ack]:
    """Rows that were acknowledged 1 ms after they had been sent."""
    return [Ack(client, first + i, at - 0.001, at, node) for i, at in enumerate(times)]


class Logs(unittest.TestCase):
    def test_only_whole_lines_of_acknowledgements_count(self):
        log = [
            "C 0.1 0.2 10.0.0.1\n",
            "A 2 1.2 1.3 10.0.0.2\n",
            "A 1 1.0 1.1 10.0.0.1\n",
            "E 1.4 1.5 insert 3 10.0.0.2 server closed the connection\n",
            "A 4 1.6 1.7 10.0.0.",
        ]
        found = analysis.read_acks("routed", log, {"10.0.0.1": "n1", "10.0.0.2": "n2"})
        self.assertEqual([(a.sequence, a.node) for a in found], [(1, "n1"), (2, "n2")])

    def test_a_client_inside_is_told_by_where_it_was_started(self):
        found = analysis.read_acks("inside", ["A 1 1.0 1.1 /var/run/postgresql\n"], {}, node="n3")
        self.assertEqual(found[0].node, "n3")

    def test_a_node_that_is_down_is_no_primary(self):
        down = analysis.read_samples([{"at": 1.0, "node": "n1", "up": False}])
        self.assertEqual(down, [Sample(1.0, "n1", False, frozenset())])


class Gaps(unittest.TestCase):
    def test_the_gap_is_the_longest_pause_around_the_fault(self):
        routed = [*acks("routed", "n1", 1, 1.02, 9, 9.02), *acks("routed", "n2", 9.5, 9.52, first=5)]
        # The pause of 8 s lies before the fault.
        self.assertEqual(analysis.write_gap(routed, struck=9.01, until=20), (9.02, 9.5))

    def test_other_pauses_are_stalls(self):
        routed = acks("routed", "n2", 10, 12, 30, 33, 33.02)
        gap = analysis.write_gap(routed, struck=10.1, until=11.9)
        self.assertEqual(gap, (10, 12))
        self.assertEqual(analysis.stalls(routed, 10.1, gap), [(12, 30), (30, 33)])

    def test_there_is_no_gap_where_nothing_was_written_again(self):
        self.assertIsNone(analysis.write_gap(acks("routed", "n1", 1, 2, 3), struck=5, until=9))

    def test_the_switch_is_from_any_client_to_any_client(self):
        everybody = [
            *acks("routed", "n1", 1.0, 1.1),
            *acks("direct-n1", "n1", 1.15),
            *acks("direct-n2", "n2", 3.0),
            *acks("routed", "n2", 4.0),
        ]
        node, first = analysis.takeover(everybody, "n1", struck=1.12)
        self.assertEqual((node, first), ("n2", 3.0))
        self.assertEqual(analysis.last_before(everybody, "n1", first), 1.15)

    def test_a_restart_in_place_is_no_takeover(self):
        self.assertIsNone(analysis.takeover(acks("routed", "n1", 1, 5), "n1", struck=2))


class TwoPrimaries(unittest.TestCase):
    def test_rows_between_two_of_the_new_primary_are_seen(self):
        everybody = [*acks("patient", "n1", 1.0, 4.0, 4.2), *acks("routed", "n2", 3.0, 5.0)]
        strays = analysis.two_primaries(everybody, "n2", first=3.0)
        self.assertEqual([a.at for a in strays], [4.0, 4.2])
        self.assertAlmostEqual(analysis.seconds_together(strays), 0.2)

    def test_one_after_the_other_is_no_overlap(self):
        everybody = [*acks("patient", "n1", 1.0, 2.9), *acks("routed", "n2", 3.0, 5.0), *acks("routed", "n3", 6.0)]
        self.assertEqual(analysis.two_primaries(everybody, "n2", first=3.0), [])

    def test_a_frozen_client_reads_an_old_answer(self):
        late = Ack("inside", 7, sent=1.0, at=4.0, node="n1")
        zombie = Ack("inside", 8, sent=4.1, at=4.2, node="n1")
        waited = Ack("patient", 9, sent=1.0, at=4.0, node="n1")
        everybody = [late, zombie, waited, *acks("routed", "n2", 3.0, 5.0)]
        self.assertEqual(analysis.two_primaries(everybody, "n2", first=3.0), [zombie, waited])


class Rows(unittest.TestCase):
    def test_what_is_acknowledged_and_not_there_is_lost(self):
        found = [*acks("routed", "n1", 1, 2, 3), *acks("inside", "n1", 1)]
        self.assertEqual(
            [(a.client, a.sequence) for a in analysis.lost(found, {"routed": {1, 3}})], [("routed", 2), ("inside", 1)]
        )


class Rejoin(unittest.TestCase):
    def test_a_node_is_back_once_the_new_primary_streams_to_it(self):
        samples = [
            Sample(1, "n1", True, frozenset({"10.0.0.2", "10.0.0.3"})),
            # Seen before the fault was undone; without the node; by a standby.
            Sample(5, "n2", True, frozenset({"10.0.0.1"})),
            Sample(7, "n2", True, frozenset({"10.0.0.3"})),
            Sample(8, "n3", False, frozenset({"10.0.0.1"})),
            Sample(9, "n2", True, frozenset({"10.0.0.3", "10.0.0.1"})),
        ]
        self.assertEqual(analysis.rejoined(samples, "10.0.0.1", "n2", after=6), 9)
        self.assertIsNone(analysis.rejoined(samples, "10.0.0.1", "n2", after=9))


class Spread(unittest.TestCase):
    def test_the_median_lies_in_the_middle(self):
        self.assertEqual(analysis.spread([5, 1, 9]), (5, 1, 9))
        self.assertEqual(analysis.spread([4, 1, 2, 9]), (3, 1, 9))
        self.assertIsNone(analysis.spread([]))


if __name__ == "__main__":
    unittest.main()
