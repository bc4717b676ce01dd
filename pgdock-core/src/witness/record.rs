//! [`Record`]: the document that the witness keeps, one per cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backup::Label;
use crate::node::Member;
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::{History, TimelineId};
use crate::term::Term;
use crate::{Error, NodeName};

/// The newest format that this version knows. A document of a newer one is refused. Each document is written
/// in the oldest format that can say what it says ([`Durability::format`]), so that agents of an earlier version read
/// what concerns them, and refuse what they would not keep.
///
/// 1: the beginning. 2: durability `quorum`.
pub const FORMAT: u32 = 2;

/// What an acknowledged commit means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is on the primary's disk.
    Async,
    /// It is on the primary's disk and on that of the sync set's standby, as long as there is one.
    #[default]
    Sync,
    /// It is on the primary's disk and on those of so many standbys as the settings ask for, whichever of the sync
    /// set they are; where fewer serve, of those that do.
    Quorum,
}

impl Durability {
    /// Whether commits wait for standbys, as long as there are any: a takeover then rests on pledges (R4), the
    /// sync set on the order of its changes (R5), and neither on the end of a right.
    #[must_use]
    pub fn is_guarded(self) -> bool {
        self != Self::Async
    }

    /// The oldest format that can say it.
    #[must_use]
    pub fn format(self) -> u32 {
        match self {
            Self::Async | Self::Sync => 1,
            Self::Quorum => 2,
        }
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Async => "async",
            Self::Sync => "sync",
            Self::Quorum => "quorum",
        })
    }
}

/// The document. Every field that a later version adds must have a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The format, [`Durability::format`].
    pub format: u32,
    /// The cluster's name.
    pub cluster: String,
    /// PostgreSQL's system identifier: a node with another one is not of this cluster.
    pub system_identifier: u64,
    /// The reign.
    pub term: Term,
    /// Who leads it. Nobody, after a hand over that its heir has not answered yet.
    pub leader: Option<NodeName>,
    /// Grows by one with every change of the document, so that versions have an order.
    pub heartbeat: u64,
    /// Fresh in every body: it makes each version unique, and lets an author recognise his own.
    pub nonce: String,
    /// How long the right to lead lasts after the change that carried it was sent.
    #[serde(with = "millis")]
    pub ttl: Duration,
    /// What an acknowledged commit means.
    pub durability: Durability,
    /// D: the members of which at least [`acks`](Self::acks) hold every acknowledged commit.
    pub sync_set: BTreeSet<Member>,
    /// a: how many of them.
    pub acks: u32,
    /// The heir named by a leader that gave up the lead on purpose.
    pub handoff_to: Option<NodeName>,
    /// The highest timeline that was given out: the leader's, or the one that it is about to begin. Each
    /// promotion takes one that a change of the document gave to it, so that no two promotions ever begin
    /// the same: PostgreSQL could not tell their histories apart. What the leader is known to have begun
    /// is in [`history`](Self::history).
    pub timeline: TimelineId,
    /// The leader's WAL position when it wrote this.
    pub leader_lsn: Lsn,
    /// Who belongs to the cluster, with the address of its PostgreSQL.
    pub members: BTreeMap<NodeName, String>,
    /// The members that may not take over by themselves: the settings say `failover = false`. Written by the
    /// leader, and binding for all: whoever is not barred here can be asked to promise not to take over (R7).
    #[serde(default)]
    pub barred: BTreeSet<NodeName>,
    /// Automatic decisions are stopped.
    pub paused: bool,
    /// The configuration that the cluster should run, by node.
    #[serde(default)]
    pub bundle: BTreeMap<NodeName, String>,
    /// The leader's timeline, once it has begun it, and the forks that led to it.
    pub history: History,
    /// The backup that is being made: there is one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupClaim>,
}

/// Who makes which backup.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BackupClaim {
    /// The node.
    pub node: NodeName,
    /// The backup.
    pub label: Label,
}

impl Record {
    /// The document that comes after this one: one heartbeat later, without a nonce.
    #[must_use]
    pub fn successor(&self) -> Self {
        Self { heartbeat: self.heartbeat + 1, nonce: String::new(), ..self.clone() }
    }

    /// The same with another meaning of an acknowledged commit.
    #[must_use]
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { format: durability.format(), durability, ..self }
    }

    /// How many members of the sync set a candidate must hear: |D| − a + 1.
    #[must_use]
    pub fn pledges_needed(&self) -> usize {
        (self.sync_set.len() + 1).saturating_sub(self.acks as usize)
    }

    /// Whether a node may take over by patience: it is a member, and not barred.
    #[must_use]
    pub fn may_take_over(&self, node: &NodeName) -> bool {
        self.members.contains_key(node) && !self.barred.contains(node)
    }

    /// The document as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a record is always valid JSON")
    }

    /// Reads a document.
    ///
    /// # Errors
    /// `NeedsOperator` when it is corrupt, truncated, or of a newer format: it must not be overwritten.
    pub fn decode(bytes: &[u8]) -> crate::Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|e| {
            Error::needs_operator("the witness document is not readable")
                .because(e)
                .hint("nothing was overwritten; put back a copy of the document")
        })?;
        if head.format > FORMAT {
            return Err(Error::needs_operator(format!(
                "the witness document is of a newer format. found={}, known={FORMAT}",
                head.format
            ))
            .hint("upgrade pgdock on this node"));
        }
        serde_json::from_slice(bytes).map_err(|e| {
            Error::needs_operator("the witness document is not readable")
                .because(e)
                .hint("nothing was overwritten; put back a copy of the document")
        })
    }
}

pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::probe::scratch_record;

    #[test]
    fn a_document_is_written_in_the_oldest_format_that_can_say_it() {
        let plain = scratch_record(1);
        assert_eq!(plain.format, 1);
        let quorum = plain.with_durability(Durability::Quorum);
        assert_eq!(quorum.format, 2, "an agent that does not know it must refuse it");
        assert_eq!(quorum.successor().with_durability(Durability::Sync).format, 1);
        assert_eq!(Record::decode(&quorum.encode()).unwrap(), quorum);
    }

    #[test]
    fn a_document_of_the_first_format_is_read() {
        let text = r#"{
            "format": 1, "cluster": "shop", "system_identifier": 7, "term": 3, "leader": "n1", "heartbeat": 10,
            "nonce": "x", "ttl": 5000, "durability": "sync", "sync_set": ["n2:0000000a"], "acks": 1,
            "handoff_to": null, "timeline": 2, "leader_lsn": "0/3000148", "members": {"n1": "10.0.0.1:5432"},
            "paused": false, "history": {"timeline": 2, "forks": []}
        }"#;
        let record = Record::decode(text.as_bytes()).unwrap();
        assert_eq!((record.durability, record.acks, record.pledges_needed()), (Durability::Sync, 1, 1));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let newer = Record { format: FORMAT + 1, ..scratch_record(1) };
        let error = Record::decode(&newer.encode()).unwrap_err();
        assert!(error.to_string().contains("newer format") && !error.hints().is_empty(), "{error}");
        let text = String::from_utf8(scratch_record(1).encode()).unwrap().replace("\"async\"", "\"raft\"");
        assert!(Record::decode(text.as_bytes()).is_err());
    }
}
