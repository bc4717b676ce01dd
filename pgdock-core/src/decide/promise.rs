//! R7 in `async`: a leader that cannot renew its right asks those who could take over to wait, and they promise.
//!
//! ```text
//!   leader   asks at t ─────┐                                  runs on until t + ttl − margin
//!   peer                    └▶ hears at t' ≥ t, promises ──▶   takes over after t' + ttl × 1.01 + margin
//! ```
//!
//! A promise is not on disk. Whoever gave one and restarts counts its patience anew, from its first look at the
//! document, which is later than the promise was given.

use super::action::Decision;
use super::rules::Rule;
use super::{right, suspicion};
use crate::report::{Plea, Promise};
use crate::view::{Given, View};
use crate::witness::record::Durability;

/// The leader asks, once a renewal is overdue, and anew in time.
pub(super) fn ask(view: &View, d: &mut Decision) {
    let (Some(record), Some(right)) = (view.witness.record(), view.right) else { return };
    if record.durability != Durability::Async || !view.has_right() || !right::may_write(view) {
        return;
    }
    let overdue = view.now.since(right.sent_at) >= view.policy.heartbeat * 3 / 2;
    if !overdue || view.rivals().next().is_none() {
        return;
    }
    let standing = view.plea.filter(|p| {
        p.term == right.term && p.lasts == record.ttl && view.now.since(p.number) < view.policy.heartbeat / 2
    });
    let fresh = Plea { term: right.term, session: view.session, number: view.now, lasts: record.ttl };
    d.plea = Some(standing.unwrap_or(fresh));
    if view.witness.failures == 0 {
        return;
    }
    let missing: Vec<_> = view
        .rivals()
        .filter(|node| view.peers.get(*node).and_then(|p| p.promised).is_none_or(|had| view.now >= had.until))
        .map(|node| node.as_str())
        .collect();
    if missing.is_empty() {
        d.problem("the right to be primary rests on the promises of the other nodes until it can be renewed");
    } else if view.plea.is_some() {
        // Not in the first round, before anybody can have answered.
        d.problem(format!(
            "the right to be primary ends soon: not every node has promised to wait. missing={}",
            missing.join(",")
        ));
    }
}

/// Whoever is asked promises, if it knows of the term. A candidate that promises is none any more. While a swap of
/// its own is under way it promises nothing: that one may take over yet.
pub(super) fn give(view: &View, d: &mut Decision) {
    let Some(record) = view.witness.record().filter(|_| !view.witness.unsettled()) else { return };
    let Some(leader) = view.other_leader() else { return };
    let Some(plea) = view.report(leader).and_then(|r| r.aid.plea).filter(|p| p.term == record.term) else { return };
    let promise = Promise { to: leader.clone(), plea };
    // One that was answered is not answered anew: the promise counts from when it was heard first.
    if view.promise.as_ref().is_none_or(|given| given.promise != promise) {
        d.promise = Some(Given { promise, until: view.now + suspicion::outlasting(view, plea.lasts) });
    }
}

/// Whether this node has promised not to take over, before or just now.
pub(super) fn binds(view: &View, d: &Decision) -> bool {
    (view.bound().is_some() || d.promise.is_some()) && view.policy.rules.hold(Rule::KeepPromise)
}
