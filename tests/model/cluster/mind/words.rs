//! The same things in the words of the model and of production.

use std::collections::BTreeSet;

use pgdock_core::node::Member;
use pgdock_core::postgres::timeline::Fork;
use pgdock_core::report;
use pgdock_core::view::Names as CoreNames;
use pgdock_core::witness::{Record, Version as CoreVersion};
use pgdock_core::{History, Lsn, NodeName, Term, TimelineId};

use super::Mind;
use crate::cluster::state::{Doc, LIVES, Members, NOBODY, Names, NodeId, Pledge, Version};
use crate::record::blank;

impl Mind {
    pub(super) fn pledge(&self, node: NodeId, p: &Pledge) -> report::Pledge {
        report::Pledge {
            version: self.version(p.version),
            member: self.member(node, p.life),
            timeline: TimelineId(p.timeline.into()),
            flushed: Lsn(p.flushed.into()),
        }
    }

    pub(super) fn member(&self, node: NodeId, life: u8) -> Member {
        self.members[usize::from(node * LIVES + life)].clone()
    }

    pub(super) fn node(&self, name: &NodeName) -> NodeId {
        self.names.iter().position(|n| n == name).map_or(NOBODY, |i| u8::try_from(i).unwrap_or(NOBODY))
    }

    pub(super) fn version(&self, version: Version) -> CoreVersion {
        CoreVersion(version.to_string())
    }

    pub(super) fn core_members(&self, set: Members) -> BTreeSet<Member> {
        set.iter().map(|(node, life)| self.member(node, life)).collect()
    }

    pub(super) fn set(&self, set: &BTreeSet<Member>) -> Members {
        set.iter().fold(Members::default(), |all, m| {
            all.with(self.node(&m.node), u8::try_from(m.incarnation.0 % 16).unwrap_or(0))
        })
    }

    pub(super) fn core_names(&self, names: Names) -> CoreNames {
        CoreNames { members: self.core_members(names.members), count: names.count.into() }
    }

    pub(super) fn names(&self, names: &CoreNames) -> Names {
        Names { members: self.set(&names.members), count: u8::try_from(names.count).unwrap_or(u8::MAX) }
    }

    /// The document for production.
    pub(super) fn record(&self, doc: &Doc) -> Record {
        let name = |node: NodeId| (node != NOBODY).then(|| self.names[usize::from(node)].clone());
        Record {
            cluster: self.policy.cluster.clone(),
            term: Term(doc.term.into()),
            leader: name(doc.leader),
            heartbeat: doc.version.into(),
            nonce: "another's".into(),
            ttl: self.policy.ttl,
            durability: self.policy.durability,
            sync_set: self.core_members(doc.set),
            acks: doc.acks.into(),
            handoff_to: name(doc.heir),
            timeline: TimelineId(doc.timeline.into()),
            leader_lsn: Lsn(0),
            members: self.policy.members.iter().map(|(n, m)| (n.clone(), m.address.clone())).collect(),
            history: History::new(TimelineId(doc.history.into())),
            ..blank()
        }
    }

    /// The document of production.
    pub(super) fn doc(&self, record: &Record) -> Doc {
        let node = |name: Option<&NodeName>| name.map_or(NOBODY, |n| self.node(n));
        Doc {
            version: position(record.heartbeat),
            term: position(record.term.0),
            leader: node(record.leader.as_ref()),
            heir: node(record.handoff_to.as_ref()),
            set: self.set(&record.sync_set),
            acks: u8::try_from(record.acks).unwrap_or(u8::MAX),
            timeline: position(record.timeline.0.into()),
            history: position(record.history.timeline.0.into()),
        }
    }
}

pub(super) fn history(timeline: u8, forks: impl Iterator<Item = (u8, u8)>) -> History {
    let fork = |(timeline, end): (u8, u8)| Fork { timeline: TimelineId(timeline.into()), end: Lsn(end.into()) };
    History { timeline: TimelineId(timeline.into()), forks: forks.map(fork).collect() }
}

pub(super) fn version(version: &CoreVersion) -> Version {
    version.0.parse().expect("versions are numbers")
}

pub(super) fn position(number: u64) -> u8 {
    u8::try_from(number).expect("bounded")
}
