//! R4, the other side: a member of the sync set pledges to a candidate.

use super::action::{Action, Decision};
use super::suspicion;
use crate::view::View;

pub(super) fn check(view: &View, d: &mut Decision) {
    let (Some(seen), Some(_)) = (&view.witness.seen, view.local.postgres.as_standby()) else { return };
    let record = &seen.record;
    let asked = view.reports().any(|r| r.campaign.as_ref() == Some(&seen.version));
    let halted = view.am_leader() || view.busy.is_some() || view.trust.is_broken();
    // While automatic decisions are paused, whoever campaigns does so because an operator told it to.
    if !asked || !record.durability.is_guarded() || halted {
        return;
    }
    let member = view.member().is_some_and(|m| record.sync_set.contains(&m));
    let doubts = record.leader.as_ref().is_none_or(|leader| suspicion::doubts(view, leader));
    let pledged = view.durable.pledge.as_ref().is_some_and(|p| p.version == seen.version);
    if member && doubts && !pledged {
        d.watchful = true;
        d.want(Action::Detach { pledge: Some(seen.version.clone()) });
    }
}
