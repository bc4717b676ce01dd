//! Orders of an operator that need no rule: pause, resume, reload, restart, rejoin, clone anew.

use std::time::Duration;

use super::action::{Action, Decision, Verdict};
use super::swap;
use crate::view::{Order, Postgres, View};

/// How long a restart waits for PostgreSQL to stop in order.
const STOP_BUDGET: Duration = Duration::from_secs(60);

pub(super) fn check(view: &View, d: &mut Decision) {
    let Some(order) = &view.order else { return };
    match order {
        Order::Pause(wanted) => pause(view, d, *wanted),
        Order::Reload if view.busy.is_none() => match &view.local.postgres {
            Postgres::Standby(_) | Postgres::Primary(_) => d.want(Action::Reload),
            _ => d.verdict = Some(Verdict::Refused("PostgreSQL does not run here".into())),
        },
        Order::Restart { stopped } => restart(view, d, *stopped),
        Order::Reclone => reclone(view, d),
        Order::Rejoin => rejoin(view, d),
        _ => {}
    }
}

fn pause(view: &View, d: &mut Decision, wanted: bool) {
    let Some(record) = view.witness.record() else { return };
    if record.paused == wanted && !view.witness.unsettled() {
        let what = if wanted { "automatic decisions are paused" } else { "automatic decisions are resumed" };
        d.verdict = Some(Verdict::Done(what.into()));
    } else if view.am_leader() {
        let mut next = swap::refreshed(view, record);
        next.paused = wanted;
        swap::swap(view, d, next);
    } else {
        d.verdict = Some(Verdict::Refused(not_leader(view)));
    }
}

fn restart(view: &View, d: &mut Decision, stopped: bool) {
    if view.busy.is_some() {
        return;
    }
    match &view.local.postgres {
        Postgres::Standby(_) | Postgres::Primary(_) if !stopped => {
            d.order = Some(Order::Restart { stopped: true });
            d.want(Action::Stop { checkpoint: true, budget: STOP_BUDGET });
        }
        // Restarted for those who use it, once they are let in.
        Postgres::Primary(primary) if primary.closed => {}
        Postgres::Primary(_) => d.verdict = Some(Verdict::Done("PostgreSQL was restarted as primary".into())),
        Postgres::Standby(standby) if standby.receiving || view.other_leader().is_none() => {
            d.verdict = Some(Verdict::Done("PostgreSQL was restarted as standby".into()));
        }
        Postgres::Stopped(_) => d.order = Some(Order::Restart { stopped: true }),
        _ => {}
    }
}

fn reclone(view: &View, d: &mut Decision) {
    if view.am_leader() {
        d.verdict = Some(Verdict::Refused("this node leads: it holds the only history there is".into()));
    } else if view.other_leader().is_some_and(|l| view.report(l).is_none()) {
        d.verdict = Some(Verdict::Refused("the leader is not reachable from here: there is nothing to copy".into()));
    } else if view.durable.reclone {
        // The finding of a missing or diverged data directory goes on from here, and ends the order.
    } else if view.local.postgres.as_standby().is_some_and(|s| s.receiving) && view.busy.is_none() {
        d.verdict = Some(Verdict::Done("this node was copied anew, and follows".into()));
    }
}

fn rejoin(view: &View, d: &mut Decision) {
    if view.am_leader() {
        d.verdict = Some(Verdict::Refused("this node leads: there is nobody to follow".into()));
    } else if view
        .local
        .postgres
        .as_standby()
        .is_some_and(|s| s.receiving && s.upstream.as_ref() == view.other_leader())
    {
        d.verdict = Some(Verdict::Done("this node follows the leader".into()));
    }
}

/// Says who should have been asked.
pub(super) fn not_leader(view: &View) -> String {
    match view.other_leader() {
        Some(leader) => format!("this node does not lead. leader={leader}"),
        None => "this node does not lead, and nobody does at present".into(),
    }
}
