//! R2: the leader renews its right.

use super::action::Decision;
use super::swap;
use crate::view::{Postgres, View};

pub(super) fn check(view: &View, d: &mut Decision) {
    let Some(record) = view.witness.record() else { return };
    // A leader without data has nothing to lead with: it lets its right end.
    if !view.am_leader() || matches!(view.local.postgres, Postgres::Empty | Postgres::Unusable { .. }) {
        return;
    }
    let renewed_at = view.right.filter(|r| r.term == record.term).map(|r| r.sent_at);
    let due = renewed_at.is_none_or(|at| view.now.since(at) >= view.policy.heartbeat);
    let next = swap::refreshed(view, record);
    let news = next.history.timeline != record.history.timeline
        || next.members != record.members
        || next.barred != record.barred
        || next.ttl != record.ttl;
    if due || news || view.witness.unsettled() {
        swap::swap(view, d, next);
    }
}
