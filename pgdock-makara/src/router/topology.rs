//! What is known of the nodes, as plain data.

use std::fmt;
use std::time::Duration;

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It did not answer yet, or no longer.
    #[default]
    Unknown,
    /// It takes writes, on this timeline.
    Primary {
        /// The timeline that it writes.
        timeline: u32,
    },
    /// It follows another.
    Standby,
}

/// What is known of one node.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// What it said last. Of several primaries only [`Topology::primary`] is one.
    pub role: Role,
    /// The term of its reign, where its agent tells it.
    pub term: Option<u64>,
    /// The timeline of the WAL that it writes or replays, as far as it tells.
    pub timeline: Option<u32>,
    /// Up to where it has written, or replayed, as of the last answer.
    pub lsn: Option<u64>,
    /// How many bytes of WAL a standby is behind the primary.
    pub lag_bytes: Option<u64>,
    /// For how long at least the primary has had WAL that a standby has not replayed.
    pub lag: Option<Duration>,
    /// Why it is left alone, while it is.
    pub banned: Option<String>,
    /// Where it stands.
    pub zone: Option<String>,
}

impl NodeState {
    /// Whether nothing but positions differs, which move all the time.
    fn is_like(&self, other: &Self) -> bool {
        (&self.name, self.role, self.term, self.timeline, &self.banned)
            == (&other.name, other.role, other.term, other.timeline, &other.banned)
    }
}

/// What is known of every node.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Topology {
    /// The nodes, in the order in which they became known.
    pub nodes: Vec<NodeState>,
    /// The latest reign that was seen.
    pub(super) reign: Option<Reign>,
}

impl fmt::Display for Topology {
    /// In one line, for errors and logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let primary = self.primary_index();
        for (index, node) in self.nodes.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}: ", node.name)?;
            match (node.role, &node.banned) {
                (Role::Primary { .. }, _) if primary == Some(index) => f.write_str("primary")?,
                (Role::Primary { timeline }, _) => write!(f, "primary that is refused, on timeline {timeline}")?,
                (Role::Standby, None) => f.write_str("standby")?,
                (Role::Standby, Some(why)) => write!(f, "standby that is left alone, {why}")?,
                (Role::Unknown, Some(why)) => f.write_str(why)?,
                (Role::Unknown, None) => f.write_str("unknown")?,
            }
        }
        Ok(())
    }
}

/// When a primary was made one, as far as one can tell. A later timeline is a later reign, whoever tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reign {
    pub(super) timeline: u32,
    /// `None` where only the server tells.
    pub(super) term: Option<u64>,
}

impl Reign {
    /// Whether another is later. A primary that no agent vouches for any more is not over for that.
    fn is_over(self, latest: Self) -> bool {
        self.timeline < latest.timeline
            || (self.timeline == latest.timeline && self.term.zip(latest.term).is_some_and(|(term, last)| term < last))
    }
}

impl Topology {
    /// The node that takes writes. Of several that say so, the one on the highest timeline, and of these the one of
    /// the highest term: it was promoted after the others, which are refused. `None` too when two claim the same,
    /// since then nobody can tell; and when the only one that says so reigned before another that was seen since.
    #[must_use]
    pub fn primary(&self) -> Option<&NodeState> {
        self.primary_index().map(|node| &self.nodes[node])
    }

    pub(super) fn primary_index(&self) -> Option<usize> {
        let claim = |node: &NodeState| match node.role {
            Role::Primary { timeline } => Some(Reign { timeline, term: node.term }),
            _ => None,
        };
        let highest = self.nodes.iter().filter_map(claim).max()?;
        let mut claims = (0..self.nodes.len()).filter(|node| claim(&self.nodes[*node]) == Some(highest));
        match (claims.next(), claims.next()) {
            (Some(primary), None) if !self.reign.is_some_and(|reign| highest.is_over(reign)) => Some(primary),
            _ => None,
        }
    }

    /// The reign of the present primary, or of the last one.
    pub(super) fn reign_of(&self, node: usize) -> Option<Reign> {
        match self.nodes[node].role {
            Role::Primary { timeline } => Some(Reign { timeline, term: self.nodes[node].term }),
            _ => None,
        }
    }

    /// The nodes that say that they are the primary, and are not believed.
    pub fn refused(&self) -> impl Iterator<Item = &NodeState> {
        let primary = self.primary_index();
        let claims = |node: &NodeState| matches!(node.role, Role::Primary { .. });
        self.nodes.iter().enumerate().filter(move |(i, node)| Some(*i) != primary && claims(node)).map(|(_, node)| node)
    }

    /// The nodes that follow another.
    pub fn standbys(&self) -> impl Iterator<Item = &NodeState> {
        self.nodes.iter().filter(|node| node.role == Role::Standby)
    }

    /// One node by its name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&NodeState> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Whether nothing differs that one who watches would want to know.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.nodes.len() == other.nodes.len() && self.nodes.iter().zip(&other.nodes).all(|(a, b)| a.is_like(b))
    }
}

/// How far a primary had written at a few moments, from which the lag of its standbys follows. No clock of a server is
/// asked: a standby lags at least since the first moment at which the primary had what the standby lacks.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The primary that it is of.
    name: String,
    samples: std::collections::VecDeque<(Duration, u64)>,
}

/// At one a second, more than four minutes.
const SAMPLES_MAX: usize = 256;

impl Progress {
    pub(super) fn note(&mut self, now: Duration, lsn: u64) {
        if self.samples.back().is_some_and(|(_, last)| *last >= lsn) {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, lsn));
    }

    /// That of a new primary.
    pub(super) fn of(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub(super) fn is_of(&self, name: &str) -> bool {
        self.name == name
    }

    /// The lag, in bytes and in time, of a standby that was asked then, and had replayed so far: at least that much.
    /// `None` where the primary had told nothing by then.
    pub(super) fn lag(&self, asked: Duration, replayed: u64) -> Option<(u64, Duration)> {
        // What the primary told since says nothing of how it was when the standby answered.
        let before = self.samples.partition_point(|(at, _)| *at <= asked);
        let (_, latest) = self.samples.get(before.checked_sub(1)?)?;
        let lacking = self.samples.partition_point(|(_, lsn)| *lsn <= replayed);
        let since = self.samples.get(lacking).filter(|_| lacking < before).map(|(at, _)| *at);
        let time = since.map_or(Duration::ZERO, |at| asked.saturating_sub(at));
        Some((latest.saturating_sub(replayed), time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(roles: &[(Role, Option<u64>)]) -> Topology {
        let nodes = roles.iter().map(|(role, term)| NodeState { role: *role, term: *term, ..NodeState::default() });
        Topology { nodes: nodes.collect(), reign: None }
    }

    #[test]
    fn of_several_primaries_the_highest_timeline_counts_and_a_tie_is_nobody() {
        let (old, new) = (Role::Primary { timeline: 1 }, Role::Primary { timeline: 2 });
        for (roles, primary) in [
            (vec![], None),
            (vec![(Role::Unknown, None), (Role::Standby, None)], None),
            (vec![(Role::Standby, None), (old, None)], Some(1)),
            (vec![(old, None), (new, None), (Role::Standby, None)], Some(1)),
            (vec![(new, None), (old, Some(9))], Some(0)),
            (vec![(new, None), (new, None), (old, None)], None),
            (vec![(new, Some(3)), (new, Some(4))], Some(1)),
            (vec![(new, None), (new, Some(4))], Some(1)),
            (vec![(new, Some(4)), (new, Some(4))], None),
        ] {
            let topology = topology(&roles);
            assert_eq!(topology.primary_index(), primary, "{roles:?}");
            let claims = roles.iter().filter(|(role, _)| matches!(role, Role::Primary { .. })).count();
            assert_eq!(topology.refused().count(), claims - usize::from(primary.is_some()), "{roles:?}");
        }
    }

    #[test]
    fn who_reigned_before_the_last_that_was_seen_is_refused() {
        let reign = |timeline, term| Reign { timeline, term };
        for (claim, latest, believed) in [
            ((1, None), reign(2, None), false),
            ((2, None), reign(2, None), true),
            ((2, None), reign(2, Some(7)), true),
            ((2, Some(6)), reign(2, Some(7)), false),
            ((3, Some(6)), reign(2, Some(7)), true),
        ] {
            let (timeline, term) = claim;
            let mut topology = topology(&[(Role::Primary { timeline }, term), (Role::Unknown, None)]);
            topology.reign = Some(latest);
            assert_eq!(topology.primary_index().is_some(), believed, "{claim:?} after {latest:?}");
        }
    }

    #[test]
    fn lag_counts_from_when_the_primary_had_what_a_standby_lacks() {
        let at = Duration::from_secs;
        let mut progress = Progress::default();
        assert_eq!(progress.lag(at(1), 5), None);
        for (second, lsn) in [(1, 100), (2, 200), (3, 200), (9, 300)] {
            progress.note(at(second), lsn);
        }
        assert_eq!(progress.lag(at(10), 300), Some((0, at(0))));
        assert_eq!(progress.lag(at(10), 400), Some((0, at(0))), "a later answer than the primary's");
        assert_eq!(progress.lag(at(10), 250), Some((50, at(1))));
        assert_eq!(progress.lag(at(10), 200), Some((100, at(1))), "an idle primary makes no standby late");
        assert_eq!(progress.lag(at(10), 150), Some((150, at(8))));
        assert_eq!(progress.lag(at(10), 1), Some((299, at(9))));
        assert_eq!(progress.lag(at(5), 200), Some((0, at(0))), "what came after it was asked is not held against it");
        assert_eq!(progress.lag(at(5), 150), Some((50, at(3))));
        assert_eq!(progress.lag(at(0), 150), None);
        for lsn in 0..1000 {
            progress.note(at(20 + lsn), 1000 + lsn);
        }
        assert_eq!(progress.samples.len(), SAMPLES_MAX);
    }
}
