//! R6: a planned hand over. Preflight, checkpoint, stop; `leader_stopped` goes on from there.

use std::time::Duration;

use super::action::{Action, Decision, Verdict};
use super::operator;
use crate::clock::Moment;
use crate::view::{Order, Postgres, Trust, View};
use crate::{NodeName, Role};

/// How far behind the heir may be when the old primary is told to stop, in bytes.
const LAG_BYTES_MAX: u64 = 16 << 20;

/// A switchover that is undone has ended once the old primary is one again.
fn undone(view: &View, d: &mut Decision, why: &str, deadline: Moment) {
    d.watchful = true;
    let end = if !view.am_leader() {
        "and the lead was lost meanwhile"
    } else if matches!(view.local.postgres, Postgres::Primary(_)) && view.has_right() {
        "the old primary goes on, and nothing has changed"
    } else if view.local.start_failures >= 2 {
        "and it does not start again"
    } else if view.now >= deadline {
        "and the old primary is not back yet"
    } else {
        return;
    };
    d.verdict = Some(Verdict::Failed(format!("{why}; {end}")));
}

pub(super) fn check(view: &View, d: &mut Decision) {
    if let Some(Order::UndoSwitchover { why, deadline }) = &view.order {
        undone(view, d, why, *deadline);
        return;
    }
    let Some(Order::Switchover { to, deadline }) = &view.order else { return };
    d.watchful = true;
    // The heir leads: done.
    if let (Some(heir), Some(leader)) = (to, view.other_leader()) {
        if leader == heir {
            if view.report(heir).is_some_and(|r| r.role == Role::Primary) {
                d.verdict = Some(Verdict::Done(format!("{heir} is primary now")));
            }
        } else {
            d.verdict = Some(Verdict::Failed(format!("{leader} has taken the lead instead of {heir}")));
        }
        return;
    }
    if view.now >= *deadline && !matches!(view.local.postgres, Postgres::Stopped(_)) {
        d.verdict = Some(Verdict::Failed(match to {
            Some(heir) => format!("{heir} did not take the lead in time"),
            None => "it did not begin in time".into(),
        }));
        return;
    }
    if !view.am_leader() {
        if to.is_none() || view.other_leader().is_some() {
            d.verdict = Some(Verdict::Refused(operator::not_leader(view)));
        }
        return;
    }
    let Postgres::Primary(_) = &view.local.postgres else { return };
    if view.busy.is_some() || !view.has_right() || view.witness.in_flight {
        return;
    }
    match choose(view, to.as_ref()) {
        Ok(heir) => {
            d.order = Some(Order::Switchover { to: Some(heir), deadline: *deadline });
            let budget =
                Duration::from_nanos(u64::try_from(deadline.since(view.now).as_nanos()).unwrap_or(u64::MAX)) / 2;
            d.want(Action::Stop { checkpoint: true, budget });
        }
        Err(why) => d.verdict = Some(Verdict::Refused(why)),
    }
}

/// The heir: the one that was named, if it can take over now, or the best of those that can.
pub(super) fn choose(view: &View, named: Option<&NodeName>) -> Result<NodeName, String> {
    if !view.witness.reachable() {
        return Err("the witness is not reachable".into());
    }
    if let Trust::Broken(how) = &view.trust {
        return Err(how.clone());
    }
    let Postgres::Primary(primary) = &view.local.postgres else { return Err("PostgreSQL is not primary here".into()) };
    let ready = |node: &NodeName| -> Result<(), String> {
        if *node == view.me {
            return Err(format!("{node} is the primary already"));
        }
        if !view.policy.members.contains_key(node) {
            return Err(format!("there is no node {node}"));
        }
        if !view.may_lead(node) {
            return Err(format!("{node} may not lead: its setting says `failover = false`"));
        }
        let Some(report) = view.report(node) else { return Err(format!("the agent of {node} is not reachable")) };
        let Some(sender) = report.member().and_then(|m| primary.senders.get(&m)) else {
            return Err(format!("{node} does not stream from this primary. state={}", report.state));
        };
        let lag = primary.flushed.ahead_of(sender.flushed);
        if !sender.streaming || lag > LAG_BYTES_MAX {
            return Err(format!("{node} has not caught up. lag_bytes={lag}, lag_bytes_max={LAG_BYTES_MAX}"));
        }
        if !report.witness_reachable {
            return Err(format!("{node} cannot reach the witness"));
        }
        if report.disk_low {
            return Err(format!("the disk of {node} is almost full"));
        }
        Ok(())
    };
    if let Some(node) = named {
        return ready(node).map(|()| node.clone());
    }
    // A standby that has followed just now may not have seen the new timeline yet; that it holds the last of
    // the WAL is checked before the lead is given to it.
    let best = view.reports().filter(|r| ready(&r.node).is_ok()).max_by_key(|r| (view.rank(&r.node), r.flushed));
    best.map(|r| r.node.clone()).ok_or_else(|| {
        let reasons: Vec<_> = view.peers.keys().filter_map(|n| ready(n).err()).collect();
        format!(
            "no standby can take over: {}",
            if reasons.is_empty() { "there is none".into() } else { reasons.join("; ") }
        )
    })
}
