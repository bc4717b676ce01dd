//! R10: this standby's WAL goes past the fork of the leader's history: rewind it, or copy the leader.
//!
//! The ladder: follow, if the histories agree (`standby_not_following`); else keep the diverged WAL and
//! rewind (here); else, where a rewind failed or was interrupted, copy (`data_missing`).

use super::action::{Action, Decision};
use super::rules::Rule;
use crate::Role;
use crate::postgres::lsn::Lsn;
use crate::report::Report;
use crate::view::{Order, Standby, View};

/// The leader, if it is up, is primary in the document's term, and tells its history.
pub(super) fn present_leader(view: &View) -> Option<&Report> {
    let record = view.witness.record()?;
    let report = view.report(view.other_leader()?)?;
    let term_known = report.witness.is_some_and(|(_, term)| term == record.term);
    (report.role == Role::Primary && term_known && report.history.is_some()).then_some(report)
}

/// Whether the standby's WAL lies on the leader's history.
pub(super) fn lies_on(leader: &Report, standby: &Standby) -> bool {
    let end = standby.flushed.max(standby.replayed);
    leader.history.as_ref().is_some_and(|h| h.contains(standby.timeline, end))
}

/// The leader itself serves this standby, on a timeline that its last report does not know yet: PostgreSQL streams
/// nothing that is not on its own history, so that the report is the older of the two. A leader that goes through
/// recovery within its reign begins a timeline, and its term stays what it was.
fn outran(leader: &Report, standby: &Standby) -> bool {
    standby.receiving
        && standby.upstream.as_ref() == Some(&leader.node)
        && leader.history.as_ref().is_some_and(|h| h.timeline < standby.timeline)
}

pub(super) fn check(view: &View, d: &mut Decision) {
    let (Some(record), Some(standby)) = (view.witness.record(), view.local.postgres.as_standby()) else { return };
    let Some(leader) = present_leader(view) else { return };
    if view.busy.is_some() || !standby.end_known || view.witness.unsettled() || lies_on(leader, standby) {
        return;
    }
    if outran(leader, standby) {
        d.watchful = true;
        return;
    }
    if !view.policy.rules.hold(Rule::CompareHistory) {
        return;
    }
    if record.paused && view.order != Some(Order::Rejoin) {
        d.problem("this node's WAL has diverged from the leader's, and automatic decisions are paused");
        return;
    }
    let fork = leader.history.as_ref().and_then(|h| h.end_of(standby.timeline)).unwrap_or(Lsn(0));
    d.want(Action::Rewind { from: leader.node.clone(), fork });
}
