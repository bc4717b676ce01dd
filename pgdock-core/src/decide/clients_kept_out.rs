//! R1: this primary went through recovery, and lets no client in yet.
//!
//! A commit that waited for a standby when PostgreSQL ended is in its WAL, and was never acknowledged. After recovery
//! everybody can see its rows, although another node may take over without them: whoever reads them, or finds on
//! a second try that they are there, takes for certain what may be lost. So clients stay out until the document's a of D
//! hold all that was recovered. With an empty D nobody takes over, and what is here is all there is.

use super::action::{Action, Decision};
use super::rules::Rule;
use super::sync_set;
use crate::postgres::lsn::Lsn;
use crate::view::{Primary, View};

pub(super) fn check(view: &View, d: &mut Decision) {
    let Some(primary) = view.local.postgres.as_primary().filter(|p| p.closed) else { return };
    if !view.has_right() {
        return;
    }
    d.watchful = true;
    let end = view.local.closed_at.unwrap_or(primary.flushed);
    match hindrance(view, primary, end) {
        Some(why) => d.problem(format!("clients are kept out: {why}")),
        None if view.busy.is_none() => d.want(Action::AdmitClients),
        None => {}
    }
}

/// What must come first.
fn hindrance(view: &View, primary: &Primary, end: Lsn) -> Option<String> {
    let waits = primary.names.count > 0 && primary.names_settled;
    if sync_set::strict(view) && !waits {
        return Some("commits do not wait for a standby yet (strict)".into());
    }
    if !view.policy.rules.hold(Rule::KeepOut) {
        return None;
    }
    if !sync_set::settled_since_start(view) {
        return Some("the witness has not confirmed this node's lead since the agent began".into());
    }
    // Whichever version the document is at.
    view.witness.possible().find_map(|record| {
        let holds = |m: &&_| primary.senders.get(*m).is_some_and(|s| s.flushed >= end);
        let held = record.sync_set.iter().filter(holds).count();
        (held < record.acks as usize).then(|| {
            let members: Vec<_> = record.sync_set.iter().map(|m| m.node.as_str()).collect();
            format!(
                "what this primary recovered is not held by enough standbys yet. held={held}, acks={}, sync_set={}, lsn={end}",
                record.acks,
                members.join(",")
            )
        })
    })
}
