//! R2: the right to be primary, and its end.

use super::action::{Action, Decision};
use super::rules::Rule;
use crate::clock::Moment;
use crate::view::{Task, View};

/// Whether a primary runs here, or is on its way.
pub(super) fn may_write(view: &View) -> bool {
    view.local.postgres.may_write() || matches!(view.busy, Some((Task::StartPrimary | Task::Promote, _)))
}

/// When the right ends; `None` without one.
///
/// While the sync set streams, nobody else can take over: the right then lasts a ttl from now, whether
/// the witness answers or not. In `async` it lasts as long as all who could take over have promised not to (R7).
fn until(view: &View) -> Option<Moment> {
    let right = view.right?;
    if !view.has_right() || !view.policy.rules.hold(Rule::OutliveOutage) {
        return Some(right.until);
    }
    let ttl = view.witness.record().map_or(view.policy.ttl, |r| r.ttl);
    let outlives =
        if view.guarded_by_sync_set() { Some((view.now + ttl) - view.policy.margin) } else { view.promised_until() };
    Some(outlives.map_or(right.until, |until| right.until.max(until)))
}

/// A primary without a right is fenced.
pub(super) fn expired(view: &View, d: &mut Decision) {
    let over = until(view).is_none_or(|until| view.now >= until);
    if may_write(view) && over && view.policy.rules.hold(Rule::Expire) {
        d.problem("the right to be primary has ended: the witness could not be reached in time");
        d.want(Action::Fence { why: "the right to be primary has ended" });
    }
}

/// Arms the deadman while a primary runs here, and before one is made.
pub(super) fn deadline(view: &View, d: &mut Decision) {
    let makes = d.actions.iter().any(|a| matches!(a, Action::StartPrimary | Action::Promote { .. }));
    if (may_write(view) || makes) && view.policy.rules.hold(Rule::Expire) {
        d.deadline = Some(until(view).unwrap_or(view.now));
    }
}
