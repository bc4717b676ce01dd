//! [`covered`]: which WAL of a history a sink holds without a gap. Pure: from a listing.

use std::collections::BTreeSet;

use super::file::Segment;
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::{History, TimelineId};

/// An unbroken stretch of WAL along one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins: at a segment's beginning.
    pub from: Lsn,
    /// Behind its last segment.
    pub to: Lsn,
}

/// The stretches of WAL that segments hold along a history, in order. Between two of them there is a gap.
///
/// Behind a fork only a segment of the timelines from there on counts. The segment in which a timeline forks off is
/// taken from the new one, which holds the end of the old one, too.
#[must_use]
pub fn covered(history: &History, segments: &BTreeSet<Segment>, segment_bytes: u64) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    // Where each timeline's own WAL begins: in the segment of the fork before it.
    let mut begin = Lsn(0);
    let ancestors = history.forks.iter().map(|fork| (fork.timeline, fork.end));
    for (timeline, end) in ancestors.chain([(history.timeline, Lsn(u64::MAX))]) {
        let first = begin.0 / segment_bytes;
        for segment in of_timeline(segments, timeline) {
            let number = segment.number(segment_bytes);
            // The one of the fork comes from the next timeline; without it there is a gap from the fork on.
            let whole = segment.end(segment_bytes) <= end;
            if number < first || !whole {
                continue;
            }
            let (from, to) = (segment.begin(segment_bytes), segment.end(segment_bytes));
            match stretches.last_mut() {
                Some(last) if last.to == from => last.to = to,
                Some(last) if last.to > from => {}
                _ => stretches.push(Stretch { from, to }),
            }
        }
        begin = end;
    }
    stretches
}

fn of_timeline(segments: &BTreeSet<Segment>, timeline: TimelineId) -> impl Iterator<Item = Segment> {
    let (first, past) =
        (Segment::numbered(timeline, 0, 1 << 30), Segment::numbered(TimelineId(timeline.0 + 1), 0, 1 << 30));
    segments.range(first..past).copied()
}

/// Up to where recovery gets from a position, by whole segments: `None` where the segment that holds it is missing.
#[must_use]
pub fn reach(history: &History, segments: &BTreeSet<Segment>, segment_bytes: u64, from: Lsn) -> Option<Lsn> {
    let stretches = covered(history, segments, segment_bytes);
    stretches.iter().find(|stretch| stretch.from <= from && from < stretch.to).map(|stretch| stretch.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::wal::WalFile;
    use crate::postgres::timeline::Fork;

    const SIZE: u64 = 16 << 20;

    fn segments(names: &[&str]) -> BTreeSet<Segment> {
        names
            .iter()
            .map(|name| match WalFile::parse(name).unwrap() {
                WalFile::Segment(segment) => segment,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// Timeline 1 ended in the middle of segment 3.
    fn history() -> History {
        let forks = vec![Fork { timeline: TimelineId(1), end: Lsn(3 * SIZE + 100) }];
        History { timeline: TimelineId(2), forks }
    }

    fn stretch(from: u64, to: u64) -> Stretch {
        Stretch { from: Lsn(from * SIZE), to: Lsn(to * SIZE) }
    }

    #[test]
    fn over_a_fork_there_is_no_gap() {
        let all = segments(&[
            "000000010000000000000001",
            "000000010000000000000002",
            "000000020000000000000003",
            "000000020000000000000004",
        ]);
        assert_eq!(covered(&history(), &all, SIZE), [stretch(1, 5)]);
        assert_eq!(reach(&history(), &all, SIZE, Lsn(SIZE + 7)), Some(Lsn(5 * SIZE)));
        assert_eq!(reach(&history(), &all, SIZE, Lsn(5 * SIZE)), None);
    }

    #[test]
    fn what_diverged_fills_no_gap() {
        // The old primary archived segments 3 and 4 of timeline 1, which the cluster did not go on with.
        let all = segments(&[
            "000000010000000000000002",
            "000000010000000000000003",
            "000000010000000000000004",
            "000000020000000000000004",
        ]);
        assert_eq!(covered(&history(), &all, SIZE), [stretch(2, 3), stretch(4, 5)]);
        assert_eq!(reach(&history(), &all, SIZE, Lsn(2 * SIZE)), Some(Lsn(3 * SIZE)));
    }

    #[test]
    fn a_missing_segment_is_a_gap() {
        let all = segments(&["000000010000000000000001", "000000020000000000000003", "000000020000000000000005"]);
        assert_eq!(covered(&history(), &all, SIZE), [stretch(1, 2), stretch(3, 4), stretch(5, 6)]);
        assert_eq!(reach(&history(), &all, SIZE, Lsn(2 * SIZE)), None);
    }

    #[test]
    fn a_fork_at_the_end_of_a_segment_leaves_that_with_the_old_timeline() {
        let forks = vec![Fork { timeline: TimelineId(1), end: Lsn(4 * SIZE) }];
        let history = History { timeline: TimelineId(2), forks };
        let all = segments(&["000000010000000000000003", "000000020000000000000004"]);
        assert_eq!(covered(&history, &all, SIZE), [stretch(3, 5)]);
    }
}
