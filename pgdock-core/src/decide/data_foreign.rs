//! A data directory that is not ours, or of another cluster, is not touched.

use super::action::Decision;
use crate::view::{Postgres, View};

/// Whether there is such a thing: then nothing else is decided.
pub(super) fn check(view: &View, d: &mut Decision) -> bool {
    if let Postgres::Unusable { reason } = &view.local.postgres {
        if view.busy.is_none() {
            d.problem(reason.clone());
        }
        // What a rewind left behind is ours, and worth nothing: it is copied anew.
        return !view.durable.rewinding;
    }
    let (Some(record), Some(ours)) = (view.witness.record(), view.local.system_identifier) else { return false };
    if record.system_identifier == ours {
        return false;
    }
    d.problem(format!(
        "the data directory belongs to another cluster. system_identifier={ours}, expected={}; move it aside, and it is cloned anew",
        record.system_identifier
    ));
    true
}
