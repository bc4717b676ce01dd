//! R5: the leader brings names and document, one step at a time, to what should guard commits.

use std::collections::BTreeSet;

use super::action::{Action, Decision, Lane};
use super::rules::Rule;
use super::swap;
use super::sync_step::{SyncState, SyncStep, next_step};
use super::sync_target::{self, Target};
use crate::clock::Moment;
use crate::node::Member;
use crate::view::{Names, Task, View};
use crate::witness::Record;

/// The names to promote with. A new reign begins with an empty sync set, so that any names are safe; with
/// `strict` nothing is acknowledged before a standby has joined. A leader whose PostgreSQL went through
/// recovery within its reign finds the set that it recorded before, and goes on waiting for it: a member
/// may take over at any moment.
#[must_use]
pub fn initial_names(view: &View) -> Names {
    if let Some(record) = view.witness.record().filter(|r| r.acks > 0 && view.policy.rules.hold(Rule::KeepNames)) {
        return Names { members: record.sync_set.clone(), count: record.acks };
    }
    if strict(view) { Names { members: BTreeSet::new(), count: 1 } } else { Names::none() }
}

pub(super) fn check(view: &View, d: &mut Decision) {
    let (Some(record), Some(primary)) = (view.witness.record(), view.local.postgres.as_primary()) else { return };
    if !view.has_right() || !settled_since_start(view) {
        return;
    }
    if record.durability != view.policy.durability {
        let mut next = swap::refreshed(view, record).with_durability(view.policy.durability);
        if !next.durability.is_guarded() {
            next.sync_set.clear();
            next.acks = 0;
        }
        swap::swap(view, d, next);
        return;
    }
    let Target { sync_set: target, acks } = sync_target::target(view, record, primary);
    if record.durability.is_guarded() {
        sync_target::watch(view, record, primary, d);
        tell(view, record, &target, d);
        if strict(view) && target.is_empty() {
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
                let nobody = names.count == 0 && strict(view);
                d.want(Action::SetNames(if nobody { initial_names(view) } else { names }));
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
pub(super) fn settled_since_start(view: &View) -> bool {
    !view.policy.rules.hold(Rule::Settle) || view.right.is_some_and(|r| r.sent_at > Moment::default())
}

/// Whether commits rather wait than be acknowledged by the primary alone.
pub(super) fn strict(view: &View) -> bool {
    view.policy.durability.is_guarded() && view.policy.strict && view.policy.rules.hold(Rule::Strict)
}

/// Says where fewer guard commits than the operator wants.
fn tell(view: &View, record: &Record, target: &BTreeSet<Member>, d: &mut Decision) {
    let wanted = view.policy.acks;
    if target.is_empty() {
        d.problem(if strict(view) {
            "no standby guards commits: writes wait (strict)"
        } else {
            "no standby guards commits: they are held by the primary alone"
        });
    } else if record.acks > 0 && record.acks < wanted {
        d.problem(format!(
            "fewer standbys guard commits than wanted: each commit is held by that many. acks={}, wanted={wanted}",
            record.acks
        ));
    }
}
