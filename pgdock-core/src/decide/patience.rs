//! R3: in `async` a standby takes over once the leader's right has ended for certain: by itself, or, while
//! automatic decisions are paused, because an operator told it to.

use super::action::Decision;
use super::rules::Rule;
use super::{candidate, forced_failover, promise, suspicion, swap};
use crate::Role;
use crate::view::View;
use crate::witness::record::Durability;

pub(super) fn check(view: &View, d: &mut Decision) {
    let (Some(record), Some(standby)) = (view.witness.record(), view.local.postgres.as_standby()) else { return };
    let ordered = forced_failover::ordered(view);
    if record.durability != Durability::Async
        || (record.paused || view.trust.is_broken()) && !ordered
        || view.am_leader()
        || !view.may_lead(&view.me)
        || !record.may_take_over(&view.me)
    {
        return;
    }
    let patient = suspicion::expired(view)
        || !view.policy.rules.hold(Rule::Patience) && view.other_leader().is_some_and(|l| suspicion::suspects(view, l));
    if !patient || !standby.end_known {
        return;
    }
    d.watchful = true;
    let lag = record.leader_lsn.ahead_of(standby.flushed);
    if standby.timeline != record.history.timeline || lag > view.policy.lag_bytes_max {
        d.problem(format!(
            "the leader is gone, and this node is too far behind to take over. lag_bytes={lag}, lag_bytes_max={}",
            view.policy.lag_bytes_max
        ));
        return;
    }
    let mine = candidate::standing(view, &view.me, standby.timeline, standby.flushed);
    let ahead = view
        .reports()
        .filter(|r| r.role == Role::Standby && view.may_lead(&r.node) && r.timeline == record.history.timeline)
        // An operator who names a node means this one, whatever its priority, as long as nobody holds more.
        .any(|r| if ordered { candidate::holds_more(r, standby) } else { candidate::of_report(view, r) > mine });
    if !ahead && !promise::binds(view, d) {
        swap::swap(view, d, swap::taken_over(view, record));
    }
}
