//! R11: the leader no longer has the WAL that this standby needs next: its slot was lost. There is nothing to stream,
//! and never will be. Where WAL is archived it is taken from there; else, or where the archive lacks it, the leader is copied.

use super::action::{Action, Decision};
use super::standby_diverged::{lies_on, present_leader};
use crate::report::Report;
use crate::view::{Order, Standby, View};

pub(super) fn check(view: &View, d: &mut Decision) {
    let (Some(record), Some(standby)) = (view.witness.record(), view.local.postgres.as_standby()) else { return };
    let Some(leader) = present_leader(view) else { return };
    // A file of WAL that was removed does not come back.
    let gone = leader.aid.oldest_wal.is_some_and(|oldest| standby.flushed < oldest);
    let idle = view.busy.is_none() && standby.end_known && !standby.receiving;
    if !gone || !idle || !lies_on(leader, standby) || view.witness.unsettled() {
        return;
    }
    let gone =
        |what: &str| format!("the leader no longer has the WAL that this node needs{what}. needs={}", standby.flushed);
    let ordered = view.order == Some(Order::Rejoin);
    // While it counts as a guard of commits, it holds some that nobody else may.
    if view.member().is_some_and(|m| record.sync_set.contains(&m)) {
        d.problem(gone(": it still guards commits, and is copied when it does not"));
    } else if record.paused && !ordered {
        d.problem(gone(", and automatic decisions are paused"));
    } else if let (true, Some(to)) = (from_archive(view, leader, standby), leader.aid.oldest_wal) {
        d.problem(gone(": it is taken from the archive"));
        d.want(Action::FetchWal { timeline: standby.timeline, to });
    } else if view.durable.copied && !ordered {
        // Each copy leaves the data directory before it behind: that must not go on for ever.
        d.problem(gone(", though it was copied: that took too long"));
    } else {
        d.problem(gone(": the leader is copied"));
        d.want(Action::Clone { from: leader.node.clone(), system_identifier: record.system_identifier });
    }
}

/// Whether to try the archive: once for each position that it was found not to go on from. Over a fork the leader is copied.
fn from_archive(view: &View, leader: &Report, standby: &Standby) -> bool {
    let same = leader.history.as_ref().is_some_and(|history| history.timeline == standby.timeline);
    view.policy.archive && same && view.archive_lacks != Some(standby.flushed)
}
