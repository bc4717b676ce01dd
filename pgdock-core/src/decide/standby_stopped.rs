//! R1: a PostgreSQL that does not run is started in recovery.

use super::action::{Action, Decision};
use super::rules::Rule;
use super::standby_diverged::present_leader;
use crate::view::{Postgres, View};

/// A rewound data directory that does not start so often is copied anew (`data_missing`).
pub(super) const REWOUND_STARTS: u32 = 3;

pub(super) fn check(view: &View, d: &mut Decision) {
    // One that is to be copied anew, and has nobody to be copied from, is still good, and may hold what
    // nobody else does.
    let Postgres::Stopped(stopped) = &view.local.postgres else { return };
    if view.busy.is_some() || view.am_leader() || view.durable.rewinding {
        return;
    }
    if view.witness.absent {
        d.problem("there is a data directory, but no witness document: nobody can tell who leads");
        return;
    }
    if !of_this_cluster(view) {
        return;
    }
    if stopped.was_primary && !view.policy.rules.hold(Rule::StartInRecovery) {
        d.want(Action::StartPrimary);
        return;
    }
    if !view.durable.rewound {
        d.want(Action::StartStandby { upstream: None });
        return;
    }
    // Rewound: of no use without the WAL of a primary.
    match present_leader(view) {
        Some(leader) if view.local.start_failures < REWOUND_STARTS => {
            d.want(Action::StartStandby { upstream: Some(leader.node.clone()) });
        }
        _ => d.problem("this node was rewound, and needs a primary to catch up from"),
    }
}

/// Whether the data directory is known to be this cluster's. A start would change one that is another's, so
/// it waits until the document was read; where the witness does not answer, a peer knows, too.
fn of_this_cluster(view: &View) -> bool {
    match view.witness.record() {
        // One that is not was found before (`data_foreign`).
        Some(_) => true,
        None => {
            let ours = view.local.system_identifier;
            ours.is_some() && view.reports().any(|report| report.system_identifier == ours)
        }
    }
}
