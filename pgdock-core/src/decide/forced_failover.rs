//! An operator makes this node the primary, though no rule would.

use super::action::{Action, Decision, Verdict};
use super::{campaign, candidate, promise, suspicion, swap};
use crate::Role;
use crate::view::{Order, Postgres, Standby, View};
use crate::witness::Record;
use crate::witness::record::Durability;

pub(super) fn check(view: &View, d: &mut Decision) {
    let Some(Order::Failover { allow_data_loss, deadline }) = &view.order else { return };
    d.watchful = true;
    if view.am_leader() {
        if matches!(view.local.postgres, Postgres::Primary(_)) {
            d.verdict = Some(Verdict::Done(format!("{} is primary now", view.me)));
        }
        return;
    }
    if view.now >= *deadline {
        let why = hindrance(view).map(|why| format!(": {why}")).unwrap_or_default();
        d.verdict = Some(Verdict::Failed(format!("it could not take the lead in time{why}")));
        return;
    }
    let (Some(record), Some(standby)) = (view.witness.record(), view.local.postgres.as_standby()) else {
        return;
    };
    if let Some(leader) = view.other_leader()
        && view.report(leader).is_some_and(|r| r.role == Role::Primary)
    {
        d.verdict =
            Some(Verdict::Refused(format!("{leader} is alive and primary: use `pgdock switchover --to {}`", view.me)));
        return;
    }
    if !*allow_data_loss {
        // `campaign` and `patience` go on from here.
        d.verdict = refusal(view, record, standby).map(Verdict::Refused);
        return;
    }
    // The old leader's right must have ended, as far as it depends on the witness.
    if !suspicion::expired(view) || !standby.end_known || promise::binds(view, d) {
        return;
    }
    if !standby.detached {
        if view.busy.is_none() {
            d.want(Action::Detach { pledge: None });
        }
        return;
    }
    d.problem(format!(
        "forced failover: commits between {} on timeline {} and the old leader's end (last known {}) are lost",
        standby.flushed, standby.timeline, record.leader_lsn
    ));
    swap::swap(view, d, swap::taken_over(view, record));
}

/// What keeps the rules that guard data from letting this node win.
fn hindrance(view: &View) -> Option<String> {
    let (Some(seen), Some(standby)) = (&view.witness.seen, view.local.postgres.as_standby()) else { return None };
    seen.record.durability.is_guarded().then(|| campaign::hindrance(view, &seen.record, &seen.version, standby))?
}

/// Whether an operator told this node to take over by the rules that guard data, also while automatic
/// decisions are paused.
pub(super) fn ordered(view: &View) -> bool {
    matches!(view.order, Some(Order::Failover { allow_data_loss: false, .. }))
        && view.other_leader().is_none_or(|l| view.report(l).is_none_or(|r| r.role != Role::Primary))
}

/// Why the rules that guard data do not let this node take over.
fn refusal(view: &View, record: &Record, standby: &Standby) -> Option<String> {
    if !view.may_lead(&view.me) {
        return Some(format!(
            "{} may not lead: its setting says `failover = false`; `--allow-data-loss` takes over all the same",
            view.me
        ));
    }
    if record.durability == Durability::Async && !record.may_take_over(&view.me) {
        return Some(format!(
            "the document does not let {} take over: it was no member, or barred by `failover = false`, when the \
             leader wrote it last; `--allow-data-loss` takes over all the same",
            view.me
        ));
    }
    let allowed = match record.durability {
        Durability::Sync | Durability::Quorum => view.member().is_some_and(|m| record.sync_set.contains(&m)),
        Durability::Async => {
            let lag = record.leader_lsn.ahead_of(standby.flushed);
            standby.timeline == record.history.timeline && lag <= view.policy.lag_bytes_max
        }
    };
    if !allowed {
        return Some(format!(
            "acknowledged commits may be missing here: the leader was last known at {} on timeline {}, this node holds {} on timeline {}; \
             `--allow-data-loss` takes over all the same",
            record.leader_lsn, record.history.timeline, standby.flushed, standby.timeline
        ));
    }
    let better = candidate::successors(view, standby.timeline).find(|r| candidate::holds_more(r, standby));
    better
        .filter(|_| record.durability == Durability::Async)
        .map(|r| format!("{} holds more of the WAL than this node: use `pgdock failover --to {}`", r.node, r.node))
}
