//! R5: which standby guards the leader's commits, and the order in which names and document change.

use std::collections::BTreeSet;

use super::action::{Action, Decision, Lane};
use super::rules::Rule;
use super::swap;
use super::sync_step::{SyncState, SyncStep, next_step};
use crate::clock::Moment;
use crate::node::Member;
use crate::view::{Link, Names, Primary, Task, View};
use crate::witness::Record;
use crate::witness::record::Durability;

/// The names to promote with. A new reign begins with an empty sync set, so that any names are safe; with
/// `strict` nothing is acknowledged before a standby has joined. A leader whose PostgreSQL went through
/// recovery within its reign finds the set that it recorded before, and goes on waiting for it: a member
/// may take over at any moment.
#[must_use]
pub fn initial_names(view: &View) -> Names {
    if let Some(record) = view.witness.record().filter(|r| r.acks > 0 && view.policy.rules.hold(Rule::KeepNames)) {
        return Names { members: record.sync_set.clone(), count: record.acks };
    }
    if view.policy.durability == Durability::Sync && view.policy.strict {
        Names { members: BTreeSet::new(), count: 1 }
    } else {
        Names::none()
    }
}

pub(super) fn check(view: &View, d: &mut Decision) {
    let (Some(record), Some(primary)) = (view.witness.record(), view.local.postgres.as_primary()) else { return };
    if !view.has_right() || !settled_since_start(view) {
        return;
    }
    if record.durability != view.policy.durability {
        let mut next = swap::refreshed(view, record);
        next.durability = view.policy.durability;
        next.sync_set.clear();
        next.acks = 0;
        swap::swap(view, d, next);
        return;
    }
    let target: BTreeSet<Member> = match record.durability {
        Durability::Async => BTreeSet::new(),
        Durability::Sync => guard(view, record, primary).into_iter().collect(),
    };
    if record.durability == Durability::Sync && target.is_empty() {
        d.problem(if view.policy.strict {
            "no standby guards commits: writes wait (strict)"
        } else {
            "no standby guards commits: they are held by the primary alone"
        });
        if view.policy.strict {
            if record.sync_set.is_empty() && primary.names.count == 0 && view.busy.is_none() {
                d.want(Action::SetNames(initial_names(view)));
            }
            return;
        }
    }
    // A swap of our own that may have landed leaves two documents possible: wait for one. And while names
    // are being changed, what is seen of them is not what will be.
    if view.witness.unsettled() || matches!(view.busy, Some((Task::SetNames, _))) {
        return;
    }
    let acks = u32::from(!target.is_empty());
    let past_barrier = match &view.barrier {
        Some(barrier) if barrier.names == primary.names => {
            Some(primary.senders.iter().filter(|(_, s)| s.flushed >= barrier.lsn).map(|(m, _)| m.clone()).collect())
        }
        _ => None,
    };
    let past_barrier = if view.policy.rules.hold(Rule::Barrier) { past_barrier } else { Some(target.clone()) };
    let now = SyncState {
        names: &primary.names,
        settled: primary.names_settled,
        sync_set: &record.sync_set,
        acks: record.acks,
        past_barrier,
    };
    match next_step(&now, &target, acks) {
        SyncStep::Settled => {}
        SyncStep::Wait => d.watchful = true,
        SyncStep::SetNames(names) => {
            d.watchful = true;
            if view.busy.is_none() {
                d.want(Action::SetNames(names));
            }
        }
        SyncStep::TakeBarrier => {
            d.watchful = true;
            if view.busy.is_none() {
                d.want(Action::TakeBarrier { from_none: record.acks == 0 });
            }
        }
        SyncStep::Record { sync_set, acks } => {
            d.watchful = true;
            if !view.policy.rules.hold(Rule::NamesAfterDocument) && sync_set.is_empty() && primary.names.count > 0 {
                if view.busy.is_none() && !d.lane_taken(Lane::Postgres) {
                    d.want(Action::SetNames(Names::none()));
                }
                return;
            }
            let mut next = swap::refreshed(view, record);
            next.sync_set = sync_set;
            next.acks = acks;
            swap::swap(view, d, next);
        }
    }
}

/// Whether a swap of this agent's present life has moved the document. Until then one of an earlier life,
/// of which nothing is remembered, may land yet, and may count on names that are about to be loosened.
fn settled_since_start(view: &View) -> bool {
    !view.policy.rules.hold(Rule::Settle) || view.right.is_some_and(|r| r.sent_at > Moment::default())
}

/// The standby that should guard commits: the present one as long as it does; else the best that can;
/// else the present one as long as commits still reach it; else nobody.
fn guard(view: &View, record: &Record, primary: &Primary) -> Option<Member> {
    let present = record.sync_set.iter().next();
    if let Some(member) = present.filter(|m| record.sync_set.len() == 1 && serves(view, primary, m)) {
        return Some(member.clone());
    }
    let best = primary
        .senders
        .keys()
        .filter(|m| serves(view, primary, m) && view.may_lead(&m.node))
        .max_by_key(|m| (view.rank(&m.node), primary.senders[*m].flushed));
    best.or(present.filter(|m| !lost(view, primary, m))).cloned()
}

/// It streams and moves, and its agent is up, in the same life, so that it could take over.
fn serves(view: &View, primary: &Primary, member: &Member) -> bool {
    let agent = view.report(&member.node).is_some_and(|r| r.member().as_ref() == Some(member) && r.pledge.is_none());
    agent && primary.senders.get(member).is_some_and(|s| s.streaming) && moves(view, member)
}

/// Its disk took something in lately, or lacks nothing.
fn moves(view: &View, member: &Member) -> bool {
    view.local.progress.get(member).is_some_and(|p| view.now.since(p.moved_at) < view.policy.silent_after)
}

/// Commits that wait for it hang: it is not connected and its agent is known to be dead, or it has not
/// moved for as long as makes a peer silent.
fn lost(view: &View, primary: &Primary, member: &Member) -> bool {
    let connected = primary.senders.contains_key(member);
    let refused =
        view.peers.get(&member.node).is_some_and(|p| p.heard_at.is_some()) && view.link(&member.node) == Link::Refused;
    // A primary that just began gives it the time to connect.
    let waited = view.local.primary_since.is_some_and(|at| view.now.since(at) >= view.policy.silent_after);
    !connected && refused || !moves(view, member) && waited
}
