//! The leader's PostgreSQL does not run: hand over, or start it again in place.

use std::time::Duration;

use super::action::{Action, Decision};
use super::rules::Rule;
use super::{candidate, swap, tail};
use crate::node::Member;
use crate::report::Report;
use crate::view::{Order, Postgres, Stopped, View};
use crate::witness::Record;
use crate::witness::record::Durability;

/// How long after its deadline a switchover's undoing is waited for: until PostgreSQL has recovered.
const UNDO_BUDGET: Duration = Duration::from_secs(60);

pub(super) fn check(view: &View, d: &mut Decision) {
    let (true, Postgres::Stopped(stopped), Some(record)) =
        (view.am_leader(), &view.local.postgres, view.witness.record())
    else {
        return;
    };
    if view.busy.is_some() || view.durable.rewinding {
        return;
    }
    if !stopped.was_primary {
        // It became leader, and did not come to promote: that goes through recovery, as always.
        d.want(Action::StartStandby { upstream: None });
        return;
    }
    d.watchful = true;
    match &view.order {
        Some(Order::Switchover { to: Some(heir), deadline }) => {
            let holds = stopped.clean && view.report(heir).is_some_and(|r| holds_shutdown(r, stopped));
            if holds || !view.policy.rules.hold(Rule::HoldShutdown) {
                swap::swap(view, d, swap::handed_over(view, record, Some(heir), view.member()));
            } else if !stopped.clean || view.now >= *deadline {
                let why = if stopped.clean {
                    format!("{heir} did not receive the last of the WAL in time")
                } else {
                    "the primary did not stop in time and was killed".to_owned()
                };
                d.order = Some(Order::UndoSwitchover { why, deadline: *deadline + UNDO_BUDGET });
                start_in_place(view, d, stopped);
            }
            return;
        }
        Some(Order::Restart { .. }) => {}
        // Killed on purpose, it is no crash. One that does not start again is.
        Some(Order::UndoSwitchover { .. }) if view.local.start_failures < 2 => {}
        _ => {
            let crashed = stopped.ended_at.is_some() && !stopped.clean;
            let broken = view.local.start_failures >= 2;
            if (crashed || broken)
                && !record.paused
                && !view.trust.is_broken()
                && let Some(successor) = successor(view, record, stopped)
            {
                if tail::serve(view, d, &successor, stopped) {
                    return;
                }
                let heir = match successor {
                    Successor::Heir(report) => Some(&report.node),
                    Successor::MostAdvanced => None,
                };
                swap::swap(view, d, swap::handed_over(view, record, heir, view.member()));
                return;
            }
        }
    }
    start_in_place(view, d, stopped);
}

/// The heir's WAL includes the shutdown checkpoint: it has replayed past its beginning.
fn holds_shutdown(heir: &Report, stopped: &Stopped) -> bool {
    heir.timeline == stopped.timeline && heir.replayed > stopped.checkpoint
}

/// Who is to take over from a primary that crashed. No process of it is left, so nobody receives anything
/// any more.
pub(super) enum Successor<'a> {
    /// This one.
    Heir(&'a Report),
    /// Whoever of the sync set turns out to hold the most.
    MostAdvanced,
}

/// In `sync` and `quorum`, a member of the sync set where each of them holds every acknowledged commit. Where only some
/// do, reports do not tell which, since they may be older than the last commit: the members find out by
/// pledges. In `async` the most advanced of all, if it is not too far behind.
fn successor<'a>(view: &'a View, record: &Record, stopped: &Stopped) -> Option<Successor<'a>> {
    let candidates = candidate::successors(view, stopped.timeline);
    match record.durability {
        Durability::Sync | Durability::Quorum => {
            let members: Vec<_> =
                candidates.filter(|r| r.member().is_some_and(|m: Member| record.sync_set.contains(&m))).collect();
            let needed = record.pledges_needed();
            if record.sync_set.is_empty() || members.len() < needed {
                None
            } else if needed > 1 {
                Some(Successor::MostAdvanced)
            } else {
                // Better one without much room than nobody.
                members.into_iter().max_by_key(|r| (!r.disk_low, candidate::of_report(view, r))).map(Successor::Heir)
            }
        }
        Durability::Async => candidates
            .filter(|r| stopped.flushed.ahead_of(r.flushed) <= view.policy.lag_bytes_max)
            .max_by_key(|r| (tail::taken_by(view, r, stopped), candidate::of_report(view, r)))
            .map(Successor::Heir),
    }
}

/// R1: as a primary, without a new timeline, but only right after a swap that renewed the right.
fn start_in_place(view: &View, d: &mut Decision, stopped: &Stopped) {
    let Some(record) = view.witness.record() else { return };
    let ended_at = stopped.ended_at.unwrap_or_default();
    let renewed = view.has_right() && !view.witness.unsettled() && view.right.is_some_and(|r| r.sent_at > ended_at);
    if renewed {
        d.want(Action::StartPrimary);
    } else {
        swap::swap(view, d, swap::refreshed(view, record));
    }
}
