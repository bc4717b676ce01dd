//! R0: an ambiguous swap is settled only by a newer version. Also the ways to swap the document.

use std::time::Duration;

use super::action::{Action, Decision, Lane};
use super::backup_claim;
use super::rules::Rule;
use crate::node::Member;
use crate::postgres::timeline::TimelineId;
use crate::view::View;
use crate::witness::Record;

/// Whether the witness may be asked something now: one request at a time, and with growing pauses while
/// it does not answer.
pub(super) fn ready(view: &View, d: &Decision) -> bool {
    let failures = view.witness.failures.min(6);
    let pause =
        if failures == 0 { Duration::ZERO } else { Duration::from_millis(50 << failures).min(view.policy.heartbeat) };
    !view.witness.in_flight && !d.lane_taken(Lane::Witness) && (failures == 0 || view.witness.idle(view.now) >= pause)
}

/// Whether the newest version is known well enough to build on it: every swap of our own is settled, or
/// was seen not to have landed. (Then the same version is swapped again, which settles the older ones.)
pub(super) fn known(view: &View) -> bool {
    let Some(seen) = &view.witness.seen else { return false };
    view.witness.attempts.iter().all(|a| seen.read_at > a.sent_at)
}

/// Reads after a swap whose outcome is open.
pub(super) fn settle(view: &View, d: &mut Decision) {
    if view.witness.unsettled() && !(view.witness.seen.is_some() && known(view)) && ready(view, d) {
        d.want(Action::ReadWitness);
    }
}

/// Where a swap is still open although the version did not move, and no finding had a change of its own
/// to make, the version is moved by a change of nothing, so that the old swap can never land.
pub(super) fn move_on(view: &View, d: &mut Decision) {
    if view.witness.unsettled()
        && known(view)
        && let Some(record) = view.witness.record()
    {
        let next = record.successor();
        swap(view, d, next);
    }
}

/// Asks for a swap of the newest known version, if one can be made now.
pub(super) fn swap(view: &View, d: &mut Decision, next: Record) {
    if known(view) && ready(view, d) {
        d.want(Action::SwapWitness { expected: view.witness.version().cloned(), next });
    }
}

/// The document with what this leader knows better: its settings, and where its PostgreSQL stands.
pub(super) fn refreshed(view: &View, record: &Record) -> Record {
    let mut next = record.successor();
    next.ttl = view.policy.ttl;
    next.members = view.policy.members.iter().map(|(name, m)| (name.clone(), m.address.clone())).collect();
    next.barred = view.barred();
    next.backup = backup_claim::standing(view, record);
    if let Some(primary) = view.local.postgres.as_primary() {
        next.timeline = record.timeline.max(primary.timeline);
        next.leader_lsn = primary.flushed;
        next.history = primary.history.clone();
    }
    next
}

/// The timeline that this standby's next promotion takes: one that nobody was ever given.
pub(super) fn fresh_timeline(view: &View, record: &Record) -> TimelineId {
    let mine = view.local.postgres.as_standby().map_or(record.timeline, |s| s.timeline);
    let taken = if view.policy.rules.hold(Rule::OwnTimeline) { record.timeline.max(mine) } else { mine };
    TimelineId(taken.0 + 1)
}

/// The document with this node as leader of a new term. Nobody has acknowledged anything to it yet, so
/// the sync set is empty.
pub(super) fn taken_over(view: &View, record: &Record) -> Record {
    let mut next = record.successor();
    next.term = record.term.next();
    next.leader = Some(view.me.clone());
    next.timeline = fresh_timeline(view, record);
    next.handoff_to = None;
    next.sync_set.clear();
    next.acks = 0;
    next
}

/// The document with the lead given up: in favour of an heir, or of whoever of the sync set wins it.
///
/// The giver holds every acknowledged commit, so that it joins the set with a + 1: should the heir not
/// answer, the giver may take the lead back by the same rule as everyone.
pub(super) fn handed_over(
    view: &View,
    record: &Record,
    heir: Option<&crate::NodeName>,
    giver: Option<Member>,
) -> Record {
    let mut next = refreshed(view, record);
    next.leader = None;
    next.handoff_to = heir.cloned();
    if record.durability.is_guarded()
        && let Some(giver) = giver
        && next.sync_set.insert(giver)
    {
        next.acks += 1;
    }
    next
}
