//! A cluster that another program looked after: its primary's data directory founds the document, on the timeline that it has.
//!
//! Only one that was shut down in order as a primary does: then no process is left that could write beside the leader that
//! the document names, and its standbys have what it has, or less.

use super::action::{Decision, Verdict};
use super::bootstrap;
use crate::view::{Order, Postgres, View};

pub(super) fn check(view: &View, d: &mut Decision) {
    let Some(Order::Adopt { system_identifier }) = &view.order else { return };
    if !bootstrap::may_found(view, d) || view.busy.is_some() {
        return;
    }
    let refused = |why: String| Some(Verdict::Refused(why));
    match &view.local.postgres {
        Postgres::Stopped(stopped) => {
            d.verdict = if view.local.system_identifier != Some(*system_identifier) {
                let found = view.local.system_identifier.unwrap_or_default();
                refused(format!(
                    "the data directory is another cluster's. system_identifier={found}, expected={system_identifier}"
                ))
            } else if !stopped.was_primary {
                refused("the data directory is a standby's: the cluster begins with its primary's".into())
            } else if !stopped.clean {
                refused(
                    "the data directory was not shut down in order: start it the way it was started before, stop it, try again"
                        .into(),
                )
            } else {
                return bootstrap::create(view, d, stopped);
            };
        }
        Postgres::Empty => d.verdict = refused("there is no data directory here to begin with".into()),
        Postgres::Unusable { reason } => d.verdict = refused(reason.clone()),
        Postgres::Starting { .. } | Postgres::Standby(_) | Postgres::Primary(_) => {
            d.verdict = refused("PostgreSQL runs here: it is stopped before its data directory is taken over".into());
        }
        Postgres::Unknown => {}
    }
}
