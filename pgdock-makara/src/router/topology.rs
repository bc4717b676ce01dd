//! What is known of the nodes, as plain data.

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
}

impl Topology {
    /// The node that takes writes. Of several that say so, the one on the highest timeline, and of these the one of
    /// the highest term: it was promoted after the others, which are refused. `None` too when two claim the same,
    /// since then nobody can tell.
    #[must_use]
    pub fn primary(&self) -> Option<&NodeState> {
        self.primary_index().map(|node| &self.nodes[node])
    }

    pub(super) fn primary_index(&self) -> Option<usize> {
        let claim = |node: &NodeState| match node.role {
            Role::Primary { timeline } => Some((timeline, node.term)),
            _ => None,
        };
        let highest = self.nodes.iter().filter_map(claim).max()?;
        let mut claims = (0..self.nodes.len()).filter(|node| claim(&self.nodes[*node]) == Some(highest));
        match (claims.next(), claims.next()) {
            (Some(primary), None) => Some(primary),
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

    /// Another primary writes now.
    pub(super) fn reset(&mut self) {
        self.samples.clear();
    }

    /// The lag of a standby in bytes and in time. `None` while nothing is known of the primary.
    pub(super) fn lag(&self, now: Duration, replayed: u64) -> Option<(u64, Duration)> {
        let (_, latest) = self.samples.back()?;
        let lacking = self.samples.partition_point(|(_, lsn)| *lsn <= replayed);
        let time = self.samples.get(lacking).map_or(Duration::ZERO, |(at, _)| now.saturating_sub(*at));
        Some((latest.saturating_sub(replayed), time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(roles: &[(Role, Option<u64>)]) -> Topology {
        let nodes = roles.iter().map(|(role, term)| NodeState { role: *role, term: *term, ..NodeState::default() });
        Topology { nodes: nodes.collect() }
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
        for lsn in 0..1000 {
            progress.note(at(20 + lsn), 1000 + lsn);
        }
        assert_eq!(progress.samples.len(), SAMPLES_MAX);
        progress.reset();
        assert_eq!(progress.lag(at(10), 1), None);
    }
}
