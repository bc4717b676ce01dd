//! [`TimelineId`] and [`History`]: which past a WAL position belongs to.

use serde::{Deserialize, Serialize};

use super::lsn::Lsn;

/// The number of a timeline (PostgreSQL documentation, section 26.3.6). Every promotion begins a new one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl std::fmt::Display for TimelineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Debug for TimelineId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a timeline ended, because another one forked off it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fork {
    /// The timeline that ended.
    pub timeline: TimelineId,
    /// The position up to which it belongs to the history.
    pub end: Lsn,
}

/// The past of a timeline: the forks that led to it, oldest first (the `.history` files in `pg_wal`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct History {
    /// The timeline that this is the history of.
    pub timeline: TimelineId,
    /// Its ancestors, each with its end.
    pub forks: Vec<Fork>,
}

impl History {
    /// The history of a timeline without ancestors.
    #[must_use]
    pub fn new(timeline: TimelineId) -> Self {
        Self { timeline, forks: Vec::new() }
    }

    /// Where `timeline` ends in this history: `None` if it is not part of it, `Lsn(u64::MAX)` if it is
    /// the present one.
    #[must_use]
    pub fn end_of(&self, timeline: TimelineId) -> Option<Lsn> {
        if timeline == self.timeline {
            return Some(Lsn(u64::MAX));
        }
        self.forks.iter().find(|fork| fork.timeline == timeline).map(|fork| fork.end)
    }

    /// Whether a node whose WAL ends at `lsn` on `timeline` lies on this history, and so can follow it
    /// without a rewind.
    #[must_use]
    pub fn contains(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.end_of(timeline).is_some_and(|end| lsn <= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_past_the_fork_does_not_lie_on_the_history() {
        let history = History {
            timeline: TimelineId(3),
            forks: vec![
                Fork { timeline: TimelineId(1), end: Lsn(100) },
                Fork { timeline: TimelineId(2), end: Lsn(200) },
            ],
        };
        assert!(history.contains(TimelineId(1), Lsn(100)));
        assert!(!history.contains(TimelineId(1), Lsn(101)));
        assert!(history.contains(TimelineId(2), Lsn(150)));
        assert!(history.contains(TimelineId(3), Lsn(9999)));
        assert!(!history.contains(TimelineId(4), Lsn(1)));
    }
}
