//! Which nodes are left alone after they failed, and for how long: with the clock and chance as parameters.

use std::time::Duration;

/// For how long a node that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BanPolicy {
    /// After the first failure. Zero never bans.
    pub duration: Duration,
    /// At most, however often it fails: each failure of a probe doubles the time.
    pub duration_max: Duration,
    /// Which part of the time chance may add, from 0 to 1, so that many routers do not probe at once.
    pub jitter: f64,
}

impl Default for BanPolicy {
    /// 5 s at first, 60 s at most, and up to a tenth more.
    fn default() -> Self {
        Self { duration: Duration::from_secs(5), duration_max: Duration::from_secs(60), jitter: 0.1 }
    }
}

impl BanPolicy {
    /// The default, but with this time after the first failure.
    #[must_use]
    pub fn lasting(duration: Duration) -> Self {
        let default = Self::default();
        Self { duration, duration_max: default.duration_max.max(duration), ..default }
    }

    /// One that never bans.
    #[must_use]
    pub fn never() -> Self {
        Self::lasting(Duration::ZERO)
    }

    fn time(&self, failures: u32, chance: f64) -> Duration {
        let doubled = self.duration.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
        let time = doubled.min(self.duration_max.max(self.duration));
        let part = self.jitter.clamp(0.0, 1.0) * chance.clamp(0.0, 1.0);
        // NaN is no time at all, and what is too long for a duration is for ever.
        let more = Duration::try_from_secs_f64(time.as_secs_f64() * part);
        time.saturating_add(more.unwrap_or(if part.is_nan() { Duration::ZERO } else { Duration::MAX }))
    }
}

/// The bans of the nodes of a router, which are known by their place in a list.
///
/// A ban does not lift itself: when its time is over, [`probe_due`](Self::probe_due) names the node to **one** caller,
/// and only when that one reports that it [`worked`](Self::worked) do others use it again. No user waits for a node
/// that is known to be dead.
///
/// Moments are durations since a fixed point of the caller's monotonic clock.
#[derive(Clone, Debug)]
pub struct Blacklist {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
struct Node {
    policy: BanPolicy,
    ban: Option<Ban>,
}

/// Why and until when a node is left alone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Ban {
    /// When it failed first since it last worked.
    pub since: Duration,
    /// When it may be probed.
    pub until: Duration,
    /// How often it failed: once, and then each probe.
    pub failures: u32,
    /// The last error.
    pub error: String,
    probing: bool,
}

impl Blacklist {
    /// One policy for each node. None is banned at first.
    #[must_use]
    pub fn new(policies: impl IntoIterator<Item = BanPolicy>) -> Self {
        Self { nodes: policies.into_iter().map(|policy| Node { policy, ban: None }).collect() }
    }

    /// The ban of a node.
    #[must_use]
    pub fn ban(&self, node: usize) -> Option<&Ban> {
        self.nodes.get(node)?.ban.as_ref()
    }

    /// Whether statements may be sent to a node.
    #[must_use]
    pub fn is_usable(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.ban.is_none())
    }

    /// Notes that a node failed. `chance`, from 0 to 1, is the caller's, for the jitter.
    ///
    /// What fails while the ban lasts was in flight when it began, and does not prolong it.
    pub fn failed(&mut self, node: usize, now: Duration, chance: f64, error: impl Into<String>) {
        let Some(Node { policy, ban }) = self.nodes.get_mut(node) else { return };
        if policy.duration.is_zero() {
            return;
        }
        let error = error.into();
        match ban {
            None => {
                let until = now.saturating_add(policy.time(1, chance));
                *ban = Some(Ban { since: now, until, failures: 1, error, probing: false });
            }
            Some(ban) if ban.probing => {
                ban.failures = ban.failures.saturating_add(1);
                ban.until = now.saturating_add(policy.time(ban.failures, chance));
                (ban.error, ban.probing) = (error, false);
            }
            Some(ban) => ban.error = error,
        }
    }

    /// Notes that a node works, which ends its ban. Returns whether there was one.
    pub fn worked(&mut self, node: usize) -> bool {
        self.nodes.get_mut(node).is_some_and(|node| node.ban.take().is_some())
    }

    /// A node whose ban is over, for the caller to probe. It is named once: the caller has to report
    /// [`worked`](Self::worked) or [`failed`](Self::failed), else nobody will.
    pub fn probe_due(&mut self, now: Duration) -> Option<usize> {
        (0..self.nodes.len()).find(|node| self.begin_probe(*node, now))
    }

    /// The same for one node: whether its ban is over, and the caller is the one to probe it.
    pub fn begin_probe(&mut self, node: usize, now: Duration) -> bool {
        match self.nodes.get_mut(node).and_then(|node| node.ban.as_mut()) {
            Some(ban) if !ban.probing && ban.until <= now => {
                ban.probing = true;
                true
            }
            _ => false,
        }
    }

    /// When the next probe is due, if one is to come.
    #[must_use]
    pub fn next_probe(&self) -> Option<Duration> {
        self.nodes.iter().filter_map(|node| node.ban.as_ref()).filter(|ban| !ban.probing).map(|ban| ban.until).min()
    }

    /// Of nodes that are all banned, the one to try when there is no other choice: the one that failed longest ago, and
    /// not all of them at once. `None` when one of them is usable.
    #[must_use]
    pub fn last_resort(&self, among: impl Fn(usize) -> bool) -> Option<usize> {
        let candidates = || (0..self.nodes.len()).filter(|node| among(*node));
        if candidates().any(|node| self.is_usable(node)) {
            return None;
        }
        candidates().min_by_key(|node| self.ban(*node).map(|ban| ban.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn blacklist(nodes: usize) -> Blacklist {
        Blacklist::new(vec![BanPolicy { jitter: 0.0, ..BanPolicy::default() }; nodes])
    }

    #[test]
    fn a_ban_ends_with_a_probe_that_works_and_one_caller_makes_it() {
        let mut list = blacklist(2);
        list.failed(0, at(0), 0.0, "gone");
        assert!(!list.is_usable(0) && list.is_usable(1));
        assert_eq!((list.probe_due(at(4)), list.next_probe()), (None, Some(at(5))));
        assert_eq!(list.probe_due(at(10)), Some(0));
        assert_eq!((list.probe_due(at(10)), list.next_probe()), (None, None), "nobody else probes");
        assert!(!list.is_usable(0), "and nobody uses it before the answer");
        assert!(list.worked(0) && !list.worked(0));
        assert!(list.is_usable(0));
    }

    #[test]
    fn each_probe_that_fails_doubles_the_time_up_to_the_most() {
        let mut list = blacklist(1);
        let mut now = at(0);
        list.failed(0, now, 0.0, "gone");
        for expected in [5, 10, 20, 40, 60, 60] {
            let until = list.ban(0).unwrap().until;
            assert_eq!(until - now, at(expected));
            now = until;
            assert_eq!(list.probe_due(now), Some(0));
            list.failed(0, now, 0.0, "still gone");
        }
        let ban = list.ban(0).unwrap();
        assert_eq!((ban.since, ban.error.as_str(), ban.failures), (at(0), "still gone", 7));
        list.worked(0);
        list.failed(0, now, 0.0, "gone again");
        assert_eq!(list.ban(0).unwrap().until - now, at(5), "a node that worked starts over");
    }

    #[test]
    fn what_was_in_flight_does_not_prolong_a_ban() {
        let mut list = blacklist(1);
        for second in 0..5 {
            list.failed(0, at(second), 0.0, format!("failure {second}"));
        }
        let ban = list.ban(0).unwrap();
        assert_eq!((ban.until, ban.failures, ban.error.as_str()), (at(5), 1, "failure 4"));
    }

    #[test]
    fn chance_adds_a_part_of_the_time_at_most() {
        for (chance, expected) in
            [(0.0, 10_000), (0.5, 10_500), (1.0, 11_000), (9.0, 11_000), (-1.0, 10_000), (f64::NAN, 10_000)]
        {
            let mut list = Blacklist::new([BanPolicy::lasting(at(10))]);
            list.failed(0, at(0), chance, "gone");
            assert_eq!(list.ban(0).unwrap().until.as_millis(), expected, "{chance}");
        }
    }

    #[test]
    fn a_policy_of_never_bans_nothing_and_no_time_overflows() {
        let mut list = Blacklist::new([BanPolicy::never(), BanPolicy::lasting(Duration::MAX)]);
        list.failed(0, at(0), 0.5, "gone");
        assert!(list.is_usable(0));
        list.failed(1, Duration::MAX, 1.0, "gone");
        assert!(!list.is_usable(1));
        list.failed(7, at(0), 0.5, "there is no such node");
        assert!(!list.is_usable(7));
    }

    #[test]
    fn when_all_are_banned_the_oldest_ban_is_tried_first() {
        let mut list = blacklist(3);
        list.failed(1, at(1), 0.0, "gone");
        assert_eq!(list.last_resort(|_| true), None);
        list.failed(2, at(2), 0.0, "gone");
        list.failed(0, at(3), 0.0, "gone");
        assert_eq!(list.last_resort(|_| true), Some(1));
        assert_eq!(list.last_resort(|node| node != 1), Some(2));
        assert_eq!(list.last_resort(|_| false), None);
    }
}
