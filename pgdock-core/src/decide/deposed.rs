//! R8: a primary that learns of another leader, or of another term, fences itself.

use super::action::{Action, Decision};
use super::right;
use super::rules::Rule;
use crate::view::View;

pub(super) fn check(view: &View, d: &mut Decision) {
    let Some(record) = view.witness.record() else { return };
    if !right::may_write(view) || !view.policy.rules.hold(Rule::FenceDeposed) {
        return;
    }
    let mine = record.leader.as_ref() == Some(&view.me) && view.right.is_some_and(|r| r.term == record.term);
    if !mine {
        d.want(Action::Fence { why: "another node leads" });
    }
}
