//! [`Verdict`]: what a history proves. Pure.

use std::collections::{BTreeMap, BTreeSet};

use pgdock_core::postgres::diverged::Diverged;
use pgdock_core::postgres::wal_changes::Commit;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Lsn, TimelineId};

use super::history::{Facts, Micros, Outcome, Place, Span, Write};

/// What a node holds in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Which node.
    pub node: String,
    /// The timeline that it is on.
    pub timeline: TimelineId,
    /// The history file of that timeline.
    pub history: String,
    /// How many rows it has.
    pub rows: u64,
    /// A digest of all of them.
    pub digest: String,
}

/// All that a verdict rests on.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What was done and seen.
    pub facts: Facts,
    /// What an acknowledged commit means.
    pub durability: Durability,
    /// How long a right lasts, and how old one may be.
    pub ttl: Micros,
    /// In `async`: how far behind a successor may be, in bytes.
    pub lag_bytes_max: u64,
    /// An operator forced a failover that loses what the new primary lacks. What is lost must be reported all the same.
    pub forced: bool,
    /// The numbers that the primary has in the end.
    pub present: BTreeSet<i64>,
    /// What each node has in the end.
    pub contents: Vec<Content>,
    /// What nodes reported that they had and others did not.
    pub diverged: Vec<Diverged>,
    /// What went wrong in the run itself, such as a cluster that does not get well.
    pub failures: Vec<String>,
}

/// What a history proves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Writes of which nobody knows, or which were cancelled while they waited for standbys.
    pub unknown: usize,
    /// Acknowledged writes that are gone.
    pub lost: usize,
    /// How many timelines acknowledged writes.
    pub reigns: usize,
    /// In `async`: writes that a node acknowledged after its successor had begun to.
    pub late: usize,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Verdict {
    /// Judges.
    #[must_use]
    pub fn of(evidence: &Evidence) -> Self {
        let acknowledged: Vec<_> = evidence.facts.writes.iter().filter_map(acknowledged).collect();
        let mut verdict = Self {
            acknowledged: acknowledged.len(),
            unknown: evidence.facts.writes.len() - acknowledged.len(),
            violations: evidence.failures.clone(),
            ..Self::default()
        };
        if acknowledged.is_empty() {
            verdict.violations.push("nothing was acknowledged, so nothing could be lost".into());
        }
        verdict.one_primary(evidence, &acknowledged);
        verdict.nothing_lost(evidence, &acknowledged);
        verdict.one_history(evidence);
        verdict
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }

    /// A timeline is one reign, or a part of one: each is one node's, and all acknowledgements of the one can
    /// lie before all of the next. An acknowledgement lies anywhere between sending and hearing of it.
    fn one_primary(&mut self, evidence: &Evidence, acknowledged: &[(&Write, Place)]) {
        let mut reigns: BTreeMap<TimelineId, Vec<&Write>> = BTreeMap::new();
        for (write, place) in acknowledged {
            reigns.entry(place.timeline).or_default().push(write);
        }
        self.reigns = reigns.len();
        for (timeline, writes) in &reigns {
            let nodes: BTreeSet<_> = writes.iter().map(|w| &evidence.facts.nodes[usize::from(w.node)]).collect();
            if nodes.len() > 1 {
                self.violations.push(format!("timeline {timeline} was acknowledged on by several nodes: {nodes:?}"));
            }
        }
        // The earliest moment by which each reign and all after it were at work.
        let mut begun: Option<(Micros, TimelineId, &Write)> = None;
        for (timeline, writes) in reigns.iter().rev() {
            if let Some((begun, successor, first)) = begun {
                let late: Vec<_> = writes.iter().filter(|w| w.sent > begun).collect();
                let allowed = evidence.durability == Durability::Async;
                for write in &late {
                    let node = &evidence.facts.nodes[usize::from(write.node)];
                    if allowed && was_stopped(&evidence.facts.spans, node, write) {
                        continue;
                    }
                    self.violations.push(format!(
                        "two primaries: {node} acknowledged {} on timeline {timeline}, sent {:.6} s, although {} had \
                         acknowledged on timeline {successor} by {:.6} s",
                        write.number,
                        seconds(write.sent),
                        evidence.facts.nodes[usize::from(first.node)],
                        seconds(begun),
                    ));
                }
                self.late += late.len();
            }
            if let Some(first) = writes.iter().min_by_key(|w| w.ended)
                && begun.is_none_or(|(at, ..)| first.ended < at)
            {
                begun = Some((first.ended, *timeline, first));
            }
        }
        self.violations.truncate(50);
    }

    fn nothing_lost(&mut self, evidence: &Evidence, acknowledged: &[(&Write, Place)]) {
        let lost: Vec<_> = acknowledged.iter().filter(|(w, _)| !evidence.present.contains(&w.number)).collect();
        self.lost = lost.len();
        let node = |write: &Write| evidence.facts.nodes[usize::from(write.node)].as_str();
        if evidence.durability != Durability::Async && !evidence.forced {
            for (write, place) in lost.iter().take(20) {
                self.violations.push(format!(
                    "lost: {} was acknowledged by {} on timeline {} near {}, at {:.6} s",
                    write.number,
                    node(write),
                    place.timeline,
                    place.lsn,
                    seconds(write.ended)
                ));
            }
            if lost.len() > 20 {
                self.violations.push(format!("lost: {} more", lost.len() - 20));
            }
            return;
        }
        // What is lost lies in what a node reported, and is no more than what a successor may lack, and what
        // came after the leader's position was recorded last.
        let mut reigns: BTreeMap<(u16, TimelineId), Vec<Place>> = BTreeMap::new();
        for (write, place) in &lost {
            reigns.entry((write.node, place.timeline)).or_default().push(*place);
            let reported = evidence.diverged.iter().any(|report| {
                report.node.as_str() == node(write)
                    && report.timeline == place.timeline
                    && (report.fork <= place.lsn && place.lsn <= report.end
                        || committed(report).any(|commit| commit.xid == place.xid))
            });
            if !reported {
                self.violations.push(format!(
                    "lost and not reported: {} was acknowledged by {} on timeline {} near {}, transaction {}, at {:.6} s",
                    write.number,
                    node(write),
                    place.timeline,
                    place.lsn,
                    place.xid,
                    seconds(write.ended)
                ));
            }
        }
        if evidence.forced {
            // He accepted whatever it is.
            return;
        }
        for ((node, timeline), places) in reigns {
            let of_reign = || {
                let mine = acknowledged.iter().filter(move |(w, p)| (w.node, p.timeline) == (node, timeline));
                mine.map(|(w, p)| (w.ended, p.lsn))
            };
            let last = of_reign().map(|(at, _)| at).max().unwrap_or_default();
            let recorded = of_reign().filter(|(at, _)| *at + evidence.ttl < last).map(|(_, lsn)| lsn).max();
            let begin = places.iter().map(|p| p.lsn).min().unwrap_or_default();
            let bound = Lsn(recorded.unwrap_or(begin).0.saturating_sub(evidence.lag_bytes_max));
            if begin < bound {
                self.violations.push(format!(
                    "more is lost than may be: {} of timeline {timeline} from {begin} on, and the leader's position \
                     was recorded as {} or later, lag_bytes_max={}",
                    evidence.facts.nodes[usize::from(node)],
                    recorded.unwrap_or_default(),
                    evidence.lag_bytes_max
                ));
            }
        }
        self.violations.truncate(50);
    }

    fn one_history(&mut self, evidence: &Evidence) {
        let Some((first, others)) = evidence.contents.split_first() else {
            self.violations.push("no node could be looked into in the end".into());
            return;
        };
        if evidence.contents.len() < evidence.facts.nodes.len() {
            self.violations.push("not every node could be looked into in the end".into());
        }
        for other in others {
            if (first.timeline, &first.history) != (other.timeline, &other.history) {
                self.violations.push(format!(
                    "two histories: {} is on timeline {}, {} on {}:\n{}\n{}",
                    first.node, first.timeline, other.node, other.timeline, first.history, other.history
                ));
            }
            if (first.rows, &first.digest) != (other.rows, &other.digest) {
                self.violations.push(format!(
                    "two contents: {} has {} rows, {} has {}",
                    first.node, first.rows, other.node, other.rows
                ));
            }
        }
    }
}

fn acknowledged(write: &Write) -> Option<(&Write, Place)> {
    match write.outcome {
        Outcome::Acknowledged(place) => Some((write, place)),
        Outcome::Cancelled | Outcome::Unknown => None,
    }
}

/// Whether a write was under way when its node, or its PostgreSQL, had been stopped for a while: in `async`, a
/// primary that is stopped past its right may acknowledge until it is killed, and nothing but the right
/// itself was promised.
fn was_stopped(spans: &[Span], node: &str, write: &Write) -> bool {
    /// A deadman looks ten times a second, and a machine that was stopped has much to do.
    const LOOK: Micros = 2_000_000;
    spans.iter().any(|span| {
        span.host == node
            && span.what.contains("stopped")
            && write.sent <= span.to.unwrap_or(Micros::MAX).saturating_add(LOOK)
            && write.ended >= span.from
    })
}

pub(super) fn seconds(at: Micros) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a run lasts hours, not centuries")]
    let seconds = at as f64 / 1e6;
    seconds
}

/// The transactions that committed behind a fork.
fn committed(report: &Diverged) -> impl Iterator<Item = &Commit> {
    report.changes.iter().flat_map(|changes| &changes.commits)
}

#[cfg(test)]
mod tests {
    use pgdock_core::NodeName;
    use pgdock_core::postgres::wal_changes::Changes;

    use super::*;

    const SECOND: Micros = 1_000_000;

    fn write(node: u16, timeline: u32, number: i64, sent: Micros, ended: Micros) -> Write {
        let lsn = Lsn(0x0100_0000 + u64::try_from(number).unwrap() * 0x100);
        let place = Place { timeline: TimelineId(timeline), lsn, xid: number.cast_unsigned() };
        Write { client: 0, node, number, sent, ended, outcome: Outcome::Acknowledged(place) }
    }

    /// n1 reigns on timeline 1, n2 on timeline 2.
    fn evidence(durability: Durability) -> Evidence {
        let writes: Vec<_> = (1..=10)
            .map(|i| write(0, 1, i, i.cast_unsigned() * SECOND, i.cast_unsigned() * SECOND + 1000))
            .chain((11..=20).map(|i| write(1, 2, i, i.cast_unsigned() * SECOND, i.cast_unsigned() * SECOND + 1000)))
            .collect();
        let content = |node: &str| Content {
            node: node.into(),
            timeline: TimelineId(2),
            history: "1\t0/2000000\n".into(),
            rows: 20,
            digest: "d".into(),
        };
        Evidence {
            facts: Facts {
                nodes: vec!["n1".into(), "n2".into()],
                clients: vec!["c".into()],
                writes,
                ..Facts::default()
            },
            durability,
            ttl: 3 * SECOND,
            lag_bytes_max: 0x200,
            forced: false,
            present: (1..=20).collect(),
            contents: vec![content("n1"), content("n2")],
            diverged: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// What n1 reports that it had and others did not.
    fn report(fork: Lsn, end: Lsn) -> Diverged {
        Diverged {
            node: NodeName::new("n1").unwrap(),
            incarnation: None,
            system_identifier: 1,
            timeline: TimelineId(1),
            fork,
            end,
            found_at: "2026-01-01T00:00:00Z".parse().unwrap(),
            files: Vec::new(),
            changes: Some(Changes::default()),
            incomplete: None,
        }
    }

    fn violations(evidence: &Evidence) -> String {
        Verdict::of(evidence).violations.join("\n")
    }

    #[test]
    fn a_history_without_fault_passes() {
        for durability in [Durability::Sync, Durability::Async] {
            let verdict = Verdict::of(&evidence(durability));
            assert_eq!((verdict.violations, verdict.acknowledged, verdict.reigns), (vec![], 20, 2));
        }
    }

    #[test]
    fn what_was_acknowledged_and_is_gone_is_lost() {
        let mut evidence = evidence(Durability::Sync);
        evidence.present.remove(&4);
        assert!(violations(&evidence).contains("lost: 4 was acknowledged by n1 on timeline 1"));
        // One of unknown outcome may be gone, and so may one whose commit was cancelled while it waited.
        for outcome in [Outcome::Unknown, Outcome::Cancelled] {
            evidence.facts.writes[3].outcome = outcome;
            assert_eq!(violations(&evidence), "");
        }
    }

    #[test]
    fn an_acknowledgement_of_something_sent_after_the_successor_began_is_a_second_primary() {
        let mut evidence = evidence(Durability::Sync);
        // Sent before, and heard of late: it may have been acknowledged in time.
        evidence.facts.writes[9].ended = 15 * SECOND;
        assert_eq!(violations(&evidence), "");
        evidence.facts.writes[9].sent = 11 * SECOND + 1001;
        assert!(violations(&evidence).starts_with("two primaries: n1 acknowledged 10"));

        // In `async`, only of a node that was stopped past its right.
        evidence.durability = Durability::Async;
        assert!(violations(&evidence).starts_with("two primaries"));
        let what = "machine stopped".into();
        evidence.facts.spans.push(Span { host: "n1".into(), what, from: 5 * SECOND, to: Some(11 * SECOND) });
        assert_eq!(violations(&evidence), "");
        assert_eq!(Verdict::of(&evidence).late, 1);
    }

    #[test]
    fn a_reign_in_between_is_not_overlooked() {
        let mut evidence = evidence(Durability::Sync);
        // n1 goes on after n2 began, and before timeline 3 does.
        evidence.facts.writes.push(write(0, 3, 30, 30 * SECOND, 31 * SECOND));
        evidence.facts.writes.push(write(0, 1, 31, 25 * SECOND, 26 * SECOND));
        evidence.present.extend([30, 31]);
        assert!(violations(&evidence).starts_with("two primaries: n1 acknowledged 31"));
    }

    #[test]
    fn a_timeline_is_one_nodes() {
        let mut evidence = evidence(Durability::Sync);
        evidence.facts.writes[9].node = 1;
        assert!(violations(&evidence).contains("timeline 1 was acknowledged on by several nodes"));
    }

    #[test]
    fn in_async_what_is_lost_was_reported_and_is_bounded() {
        let mut evidence = evidence(Durability::Async);
        for lost in [9, 10] {
            evidence.present.remove(&lost);
        }
        assert!(violations(&evidence).contains("lost and not reported: 9"));
        evidence.diverged.push(report(Lsn(0x0100_0980), Lsn(0x0100_0b00)));
        // The first write began before the fork, its commit is behind it.
        assert!(violations(&evidence).contains("lost and not reported: 9"));
        let commit = Commit { xid: 9, lsn: Lsn(0x0100_0990), at: String::new() };
        evidence.diverged[0].changes.as_mut().unwrap().commits.push(commit);
        assert_eq!(violations(&evidence), "");
        assert_eq!(Verdict::of(&evidence).lost, 2);

        // At 6 s the leader's position was recorded for certain, and the successor may lack two rows.
        evidence.diverged[0].fork = Lsn(0x0100_0100);
        evidence.present.remove(&3);
        assert!(violations(&evidence).contains("more is lost than may be: n1 of timeline 1"));
    }

    #[test]
    fn what_a_forced_failover_loses_was_reported_and_may_be_any_amount() {
        let mut evidence = evidence(Durability::Sync);
        for lost in 3..=10 {
            evidence.present.remove(&lost);
        }
        evidence.forced = true;
        assert!(violations(&evidence).contains("lost and not reported: 3"));
        evidence.diverged.push(report(Lsn(0x0100_0300), Lsn(0x0100_0b00)));
        assert_eq!(violations(&evidence), "");
        assert_eq!(Verdict::of(&evidence).lost, 8);
        evidence.forced = false;
        assert!(violations(&evidence).contains("lost: 3 was acknowledged"));
    }

    #[test]
    fn nodes_that_differ_in_the_end_are_told() {
        let mut evidence = evidence(Durability::Sync);
        evidence.contents[1].history = "1\t0/3000000\n".into();
        evidence.contents[1].digest = "e".into();
        let told = violations(&evidence);
        assert!(told.contains("two histories: n1 is on timeline 2") && told.contains("two contents"), "{told}");
        evidence.contents.pop();
        assert!(violations(&evidence).contains("not every node"));
    }
}
