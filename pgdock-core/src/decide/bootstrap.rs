//! A new cluster: the first data directory, then the document, then the first primary.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Decision, Verdict};
use super::swap;
use crate::Term;
use crate::postgres::timeline::History;
use crate::view::{Order, Postgres, Stopped, Trust, View};
use crate::witness::Record;

pub(super) fn check(view: &View, d: &mut Decision) {
    if view.order != Some(Order::Bootstrap) {
        return;
    }
    if !may_found(view, d) {
        return;
    }
    match &view.local.postgres {
        Postgres::Empty if view.busy.is_none() => d.want(Action::Bootstrap),
        Postgres::Stopped(stopped) if view.durable.bootstrapping => create(view, d, stopped),
        // While it is being made it is seen already, and the mark that it was made for this is not.
        Postgres::Stopped(_) | Postgres::Standby(_) | Postgres::Primary(_) if view.busy.is_none() => {
            d.verdict = Some(Verdict::Refused(
                "there is no witness document, but there is a data directory: a new cluster needs an empty one".into(),
            ));
        }
        _ => {}
    }
}

/// Whether there is no cluster yet, and the store is one to found it on. Where there is one, the order ends.
pub(super) fn may_found(view: &View, d: &mut Decision) -> bool {
    if let Some(record) = view.witness.record() {
        match &record.leader {
            Some(leader) if *leader == view.me => {
                if view.local.postgres.as_primary().is_some_and(|p| !p.closed)
                    && view.has_right()
                    && !view.durable.bootstrapping
                {
                    d.verdict = Some(Verdict::Done(format!("{leader} is the first primary")));
                }
            }
            leader => {
                let leader = leader.as_ref().map_or("nobody at present".to_owned(), ToString::to_string);
                d.verdict = Some(Verdict::Refused(format!("the cluster exists already. leader={leader}")));
            }
        }
        return false;
    }
    if !view.witness.absent {
        return false;
    }
    // A cluster is founded on a proven store alone.
    match &view.trust {
        Trust::Broken(how) => d.verdict = Some(Verdict::Refused(how.clone())),
        Trust::Unknown { why, before: false } => d.verdict = Some(Verdict::Failed(why.clone())),
        // The proof is under way.
        Trust::Untried => {}
        _ => return true,
    }
    false
}

/// Makes the document, with this node as the leader of the first term, on the timeline that its data directory has.
pub(super) fn create(view: &View, d: &mut Decision, stopped: &Stopped) {
    let Some(system_identifier) = view.local.system_identifier else { return };
    // Until a read says what became of it, an earlier try may have made the document.
    if view.witness.unsettled() || !swap::ready(view, d) {
        if view.witness.unsettled() && swap::ready(view, d) {
            d.want(Action::ReadWitness);
        }
        return;
    }
    let next = Record {
        format: view.policy.durability.format(),
        cluster: view.policy.cluster.clone(),
        system_identifier,
        term: Term(1),
        leader: Some(view.me.clone()),
        heartbeat: 1,
        nonce: String::new(),
        ttl: view.policy.ttl,
        durability: view.policy.durability,
        sync_set: BTreeSet::new(),
        acks: 0,
        handoff_to: None,
        timeline: stopped.timeline,
        leader_lsn: stopped.checkpoint,
        members: view.policy.members.iter().map(|(name, m)| (name.clone(), m.address.clone())).collect(),
        barred: view.barred(),
        paused: false,
        bundle: BTreeMap::new(),
        history: History::new(stopped.timeline),
        backup: None,
    };
    d.want(Action::SwapWitness { expected: None, next });
}
