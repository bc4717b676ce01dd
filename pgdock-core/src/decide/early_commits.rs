//! Commits that the cluster would guard, and that somebody has told PostgreSQL to acknowledge earlier: a failover may lose
//! them. Whoever does it for a transaction means it; a setting for a role or a database is easily forgotten.

use super::action::Decision;
use crate::view::View;

pub(super) fn check(view: &View, d: &mut Decision) {
    if view.local.postgres.as_primary().is_none() || !view.policy.durability.is_guarded() {
        return;
    }
    let Some(found) = view.local.early_commits.as_deref().filter(|found| !found.is_empty()) else { return };
    d.problem(format!(
        "synchronous_commit is lowered, and a failover may lose what these have committed. for={}",
        found.join(", ")
    ));
}
