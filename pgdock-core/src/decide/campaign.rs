//! R4: a member of the sync set takes over at once, on suspicion alone.
//!
//! It reads version v, gathers pledges for v from |D| − a + 1 members of D, its own among them, and, if it
//! is the most advanced of them, swaps exactly v. A pledged member receives nothing from the old leader,
//! so no commit can be acknowledged any more that the pledged ones do not hold between them.

use super::action::{Action, Decision};
use super::rules::Rule;
use super::{candidate, forced_failover, suspicion, swap};
use crate::view::{Standby, View};
use crate::witness::record::Durability;
use crate::witness::{Record, Version};

pub(super) fn check(view: &View, d: &mut Decision) {
    let (Some(seen), Some(standby)) = (&view.witness.seen, view.local.postgres.as_standby()) else { return };
    let record = &seen.record;
    if record.durability != Durability::Sync || record.leader.as_ref() == Some(&view.me) || !eligible(view, record) {
        return;
    }
    // A doubt may become a suspicion at any moment.
    d.watchful |= record.leader.as_ref().is_some_and(|leader| suspicion::doubts(view, leader));
    let pledged = view.durable.pledge.as_ref().is_some_and(|p| p.version == seen.version);
    let wants = (!record.paused && suspects(view, record)) || forced_failover::ordered(view);
    if !(wants || pledged && !record.paused) {
        return;
    }
    d.watchful = true;
    if wants {
        d.campaign = Some(seen.version.clone());
    }
    let detached = pledged && standby.detached;
    if !detached && view.policy.rules.hold(Rule::Detach) {
        if view.busy.is_none() {
            d.want(Action::Detach { pledge: Some(seen.version.clone()) });
        }
        return;
    }
    if standby.end_known && won(view, record, &seen.version, standby) {
        swap::swap(view, d, swap::taken_over(view, record));
    }
}

fn eligible(view: &View, record: &Record) -> bool {
    let member = if view.policy.rules.hold(Rule::Membership) {
        view.member().is_some_and(|m| record.sync_set.contains(&m))
    } else {
        !record.sync_set.is_empty()
    };
    member && view.may_lead(&view.me)
}

fn suspects(view: &View, record: &Record) -> bool {
    match (&record.leader, &record.handoff_to) {
        (Some(leader), _) => suspicion::suspects(view, leader),
        // An heir has the first word, for as long as a right would last.
        (None, Some(heir)) => *heir == view.me || suspicion::expired(view),
        (None, None) => true,
    }
}

/// Whether this node has the pledges that it needs, and is the most advanced of those that gave them.
fn won(view: &View, record: &Record, version: &Version, standby: &Standby) -> bool {
    let others: Vec<_> = view
        .reports()
        .filter_map(|r| {
            let member = r.member()?;
            let pledged = r.pledge.as_ref().filter(|p| p.version == *version && p.member == member);
            let held = match pledged {
                Some(pledge) => (pledge.timeline, pledge.flushed),
                None if !view.policy.rules.hold(Rule::Detach) => (r.timeline, r.flushed),
                None => return None,
            };
            record.sync_set.contains(&member).then_some((r, held))
        })
        .collect();
    let needed = record.pledges_needed() - usize::from(!view.policy.rules.hold(Rule::Pledges));
    if others.len() + 1 < needed {
        return false;
    }
    let mine = candidate::standing(view, &view.me, standby.timeline, standby.flushed);
    others.iter().all(|(report, (timeline, flushed))| {
        !view.may_lead(&report.node) && (*timeline, *flushed) <= (standby.timeline, standby.flushed)
            || mine > candidate::standing(view, &report.node, *timeline, *flushed)
    })
}
