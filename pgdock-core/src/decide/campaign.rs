//! R4: a member of the sync set takes over at once, on suspicion alone.
//!
//! It reads version v, gathers pledges for v from |D| − a + 1 members of D, its own among them, and, if it
//! is the most advanced of them, swaps exactly v. A pledged member receives nothing from the old leader,
//! so no commit can be acknowledged any more that the pledged ones do not hold between them.

use super::action::{Action, Decision};
use super::rules::Rule;
use super::{candidate, forced_failover, suspicion, swap};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::report::Report;
use crate::view::{Standby, View};
use crate::witness::{Record, Version};

pub(super) fn check(view: &View, d: &mut Decision) {
    let (Some(seen), Some(standby)) = (&view.witness.seen, view.local.postgres.as_standby()) else { return };
    let record = &seen.record;
    if !record.durability.is_guarded() || record.leader.as_ref() == Some(&view.me) || !eligible(view, record) {
        return;
    }
    // A doubt may become a suspicion at any moment.
    d.watchful |= record.leader.as_ref().is_some_and(|leader| suspicion::doubts(view, leader));
    let pledged = view.durable.pledge.as_ref().is_some_and(|p| p.version == seen.version);
    let halted = record.paused || view.trust.is_broken();
    let wants = (!halted && suspects(view, record)) || forced_failover::ordered(view);
    if !(wants || pledged && !halted) {
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
    } else if let Some(why) = hindrance(view, record, &seen.version, standby) {
        d.problem(format!("the leader is taken for dead, and this node cannot take over: {why}"));
    }
}

/// What keeps a candidate from winning that only an operator can change: members that cannot be reached, or,
/// while automatic decisions are paused, one that holds more and takes over by order alone.
pub(super) fn hindrance(view: &View, record: &Record, version: &Version, standby: &Standby) -> Option<String> {
    let others: Vec<_> = record.sync_set.iter().filter(|m| m.node != view.me).collect();
    let silent: Vec<_> = others.iter().filter(|m| view.report(&m.node).is_none()).map(|m| m.node.as_str()).collect();
    let (answer, needed) = (others.len() + 1 - silent.len(), record.pledges_needed());
    if answer < needed {
        return Some(format!(
            "a commit may be held by those of the sync set alone that do not answer. answer={answer}, needed={needed}, silent={}",
            silent.join(",")
        ));
    }
    let ahead = pledges(view, record, version).into_iter().find(|(report, held)| {
        record.paused && view.may_lead(&report.node) && *held > (standby.timeline, standby.flushed)
    });
    ahead
        .map(|(r, _)| format!("{} holds more of the WAL than this node: use `pgdock failover --to {}`", r.node, r.node))
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

/// The other members of the sync set that have pledged, each with what it holds.
fn pledges<'a>(view: &'a View, record: &Record, version: &Version) -> Vec<(&'a Report, (TimelineId, Lsn))> {
    view.reports()
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
        .collect()
}

/// Whether this node has the pledges that it needs, and is the most advanced of those that gave them.
fn won(view: &View, record: &Record, version: &Version, standby: &Standby) -> bool {
    let others = pledges(view, record, version);
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
