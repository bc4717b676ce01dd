//! There is no data directory, or one that is worth nothing: copy the leader's.

use super::action::{Action, Decision};
use super::standby_stopped::REWOUND_STARTS;
use crate::Role;
use crate::report::State;
use crate::view::{Order, Postgres, View};

pub(super) fn check(view: &View, d: &mut Decision) {
    let Some(record) = view.witness.record() else {
        if view.witness.absent && view.order.is_none() && matches!(view.local.postgres, Postgres::Empty) {
            d.problem("the cluster was not bootstrapped yet: run `pgdock up`");
        }
        return;
    };
    if view.busy.is_some() {
        return;
    }
    let ordered = view.durable.reclone && view.order == Some(Order::Reclone);
    let worthless = match &view.local.postgres {
        Postgres::Empty => true,
        Postgres::Stopped(_) => {
            let rewound_in_vain = view.durable.rewound && view.local.start_failures >= REWOUND_STARTS;
            view.durable.rewinding || view.durable.reclone || rewound_in_vain
        }
        // Rewound to a primary that is gone since, perhaps: then it never gets what it needs.
        Postgres::Starting { primary: false } => {
            let since = view.local.starting_since.unwrap_or(view.now);
            view.durable.rewound && view.now.since(since) >= view.policy.rejoin_budget
        }
        Postgres::Unusable { .. } => view.durable.rewinding,
        Postgres::Standby(_) => ordered,
        _ => false,
    };
    if !worthless {
        return;
    }
    if view.am_leader() {
        d.problem("this node leads but has no usable data directory");
        return;
    }
    if record.paused && !ordered {
        d.problem("a copy of the leader is needed, and automatic decisions are paused");
        return;
    }
    match view.other_leader().and_then(|leader| view.report(leader)) {
        Some(leader) if leader.role == Role::Primary && leader.state == State::Starting => {
            d.problem("a copy of the leader is needed, and its roles are still being made");
        }
        Some(leader) if leader.role == Role::Primary => {
            d.want(Action::Clone { from: leader.node.clone(), system_identifier: record.system_identifier });
        }
        _ => d.problem("a copy of the leader is needed, and no primary is reachable"),
    }
}
