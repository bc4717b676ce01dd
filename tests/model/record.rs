//! The one place where a whole [`Record`] is written down: both worlds change of it what they know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgdock_core::witness::Record;
use pgdock_core::witness::record::{Durability, FORMAT};
use pgdock_core::{History, Lsn, Term, TimelineId};

/// A document of a first term that nobody leads.
pub(crate) fn blank() -> Record {
    Record {
        format: FORMAT,
        cluster: "model".into(),
        system_identifier: 1,
        term: Term(1),
        leader: None,
        heartbeat: 1,
        nonce: String::new(),
        ttl: Duration::from_secs(1),
        durability: Durability::Sync,
        sync_set: BTreeSet::new(),
        acks: 0,
        handoff_to: None,
        timeline: TimelineId(1),
        leader_lsn: Lsn(0),
        members: BTreeMap::new(),
        barred: BTreeSet::new(),
        paused: false,
        bundle: BTreeMap::new(),
        history: History::new(TimelineId(1)),
        backup: None,
    }
}
