//! What agents ask of each other where the witness is away, and what they answer (R7): pleas and promises,
//! and documents that are told rather than read.

use crate::clock::Moment;
use crate::decide::Decision;
use crate::decide::rules::Rule;
use crate::report::{Aid, Plea, Promise, Report, Told};
use crate::view::{Seen, View};
use crate::witness::record::Durability;
use crate::witness::{Record, Version};
use crate::{NodeName, Term};

/// A promise that this node gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// To whom, and in answer to what.
    pub promise: Promise,
    /// How long it binds.
    pub until: Moment,
}

/// What a peer has promised to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Had {
    /// For which term.
    pub term: Term,
    /// When the promise ends at the earliest: counted from the moment at which this node first made the
    /// plea that it answers, which is before the peer began to count.
    pub until: Moment,
}

impl View {
    /// Takes in what a peer says of itself.
    pub fn heard(&mut self, report: Report) {
        let now = self.now;
        if let Some(promise) = report.aid.promise.as_ref().filter(|p| p.to == self.me) {
            self.was_promised(&report.node, &promise.plea);
        }
        if let Some(told) = &report.aid.document {
            self.was_told(told);
        }
        if let Some(peer) = self.peers.get_mut(&report.node) {
            peer.heard_at = Some(now);
            peer.report = Some(report);
        }
    }

    /// Notes what a decision asks of others and promises them, before it is said.
    pub fn note_aid(&mut self, d: &Decision) {
        self.plea = d.plea;
        if let Some(given) = &d.promise {
            self.promise = Some(given.clone());
        }
    }

    /// What this node asks of the others and does for them. The newest document is told to whoever does not reach
    /// the witness, or does not hear of its swap, and knows an older one.
    #[must_use]
    pub fn aid(&self, d: &Decision) -> Aid {
        let cut_off = |r: &Report, heartbeat| {
            (r.aid.relay.is_some() || !r.witness_reachable) && r.witness.is_none_or(|(known, _)| known < heartbeat)
        };
        let told = self.witness.seen.as_ref().filter(|seen| self.reports().any(|r| cut_off(r, seen.record.heartbeat)));
        Aid {
            plea: self.plea,
            promise: self.bound().map(|given| given.promise.clone()),
            relay: d.relay.clone().map(Box::new),
            document: told.map(|s| Box::new(Told { record: s.record.clone(), version: s.version.clone() })),
            tail: d.tail.clone().map(Box::new),
            oldest_wal: self.local.oldest_wal,
            took: self.took.clone().map(Box::new),
            backup: self.backup.clone(),
        }
    }

    /// A peer answers a plea of this life. An older answer, or one that came late, takes nothing back: its giver
    /// has only bound itself for longer since.
    fn was_promised(&mut self, node: &NodeName, plea: &Plea) {
        if plea.session != self.session {
            return;
        }
        let counted = if self.policy.rules.hold(Rule::CountFromPlea) { plea.number } else { self.now };
        let had = Had { term: plea.term, until: (counted + plea.lasts) - self.policy.margin };
        if let Some(peer) = self.peers.get_mut(node)
            && peer.promised.is_none_or(|before| before.term < had.term || before.until < had.until)
        {
            peer.promised = Some(had);
        }
    }

    /// Takes in a document that a peer has read, if it is newer than one that this life has read itself: then it
    /// stood at some time in this life, as one does whose answer came late. An agent that has read none yet cannot
    /// tell how old it is, and must not act on it: by a newer one it may lead itself.
    fn was_told(&mut self, told: &Told) {
        let newer = self.witness.record().is_some_and(|known| told.record.heartbeat > known.heartbeat);
        if newer || !self.policy.rules.hold(Rule::ReadFirst) && self.witness.seen.is_none() {
            self.learned(told.record.clone(), told.version.clone());
        }
    }

    /// Takes in a newer document: settles attempts and takes the right that it may carry.
    pub(super) fn learned(&mut self, record: Record, version: Version) {
        self.settled_by(&record, &version);
        let now = self.now;
        match &mut self.witness.seen {
            Some(seen) if seen.version == version => seen.read_at = now,
            seen => {
                self.witness.moved |= seen.is_some();
                *seen = Some(Seen { record, version, since: now, read_at: now });
            }
        }
    }

    /// The promise that binds this node: it names the leader of the newest known document, in its term, and has
    /// not ended. A promise to somebody who was deposed binds nobody.
    #[must_use]
    pub fn bound(&self) -> Option<&Given> {
        let record = self.witness.record()?;
        self.promise.as_ref().filter(|given| {
            self.now < given.until
                && record.leader.as_ref() == Some(&given.promise.to)
                && record.term == given.promise.plea.term
        })
    }

    /// Those who could take over from this node by patience, by any version that the document may be at.
    pub fn rivals(&self) -> impl Iterator<Item = &NodeName> {
        self.witness
            .possible()
            .flat_map(|r| r.members.keys().filter(|node| r.may_take_over(node)))
            .filter(|node| **node != self.me)
    }

    /// How long nobody can take over, since everybody who could has promised not to: `None` where somebody has
    /// not, or where that is not what keeps others away.
    ///
    /// That rests on knowing every version that the document may be at. An agent that has not seen it move since
    /// it began does not: a swap of its earlier life may land yet.
    #[must_use]
    pub fn promised_until(&self) -> Option<Moment> {
        let right = self.right?;
        let by_patience = |r: &Record| {
            r.leader.as_ref() == Some(&self.me)
                && r.term == right.term
                && (r.durability == Durability::Async || r.acks == 0)
        };
        if !self.witness.moved || !self.witness.possible().all(by_patience) {
            return None;
        }
        let nobody = (self.now + self.witness.record()?.ttl) - self.policy.margin;
        let mut until = nobody;
        for node in self.rivals() {
            let had = self.peers.get(node).and_then(|peer| peer.promised).filter(|had| had.term == right.term);
            match had {
                Some(had) => until = until.min(had.until),
                None if self.policy.rules.hold(Rule::PromiseOfAll) => return None,
                None => {}
            }
        }
        Some(until)
    }
}
