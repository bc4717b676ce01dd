//! A standby whose upstream is not the leader attaches to it, if their histories agree.

use super::action::{Action, Decision};
use super::rules::Rule;
use super::standby_diverged::{lies_on, present_leader};
use crate::view::View;

pub(super) fn check(view: &View, d: &mut Decision) {
    let (Some(version), Some(standby)) = (view.witness.version(), view.local.postgres.as_standby()) else { return };
    if view.am_leader() {
        return;
    }
    let Some(leader) = present_leader(view) else {
        if view.other_leader().is_none() {
            d.problem("nobody leads");
        } else if !standby.receiving {
            d.problem("the leader is not known to be primary");
        }
        return;
    };
    d.watchful |= standby.upstream.as_ref() != Some(&leader.node);
    if standby.upstream.as_ref() == Some(&leader.node) || view.busy.is_some() || !standby.end_known {
        return;
    }
    // A pledge holds until a newer version names the old leader, and a swap of our own may have won.
    let pledged = view.durable.pledge.as_ref().is_some_and(|p| p.version == *version);
    if pledged && view.policy.rules.hold(Rule::StayDetached) || view.witness.unsettled() {
        return;
    }
    if lies_on(leader, standby) || !view.policy.rules.hold(Rule::CompareHistory) {
        d.want(Action::Attach { upstream: leader.node.clone() });
    }
}
