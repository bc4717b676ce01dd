//! [`Store`]: the witness document in a linearizable store, with requests and answers that get lost or late.

use std::collections::BTreeMap;
use std::time::Duration;

use pgdock_core::Term;
use pgdock_core::view::Answer;
use pgdock_core::witness::record::FORMAT;
use pgdock_core::witness::{Record, Version};

use super::invariants;
use super::node::Node;
use super::scenario::{MS, Micros, SECOND, Scenario};
use super::world::{Event, World};

/// After this an agent takes a request for lost.
const TIMEOUT: Micros = SECOND;

/// The document.
#[derive(Debug)]
pub struct Store {
    /// What it says.
    pub record: Record,
    /// Its version.
    pub version: Version,
    /// It answers nobody.
    pub out: bool,
    /// It is slow.
    pub slow: bool,
}

/// A request.
#[derive(Clone, Debug)]
pub enum Call {
    /// Read it.
    Read,
    /// Swap it.
    Swap(Option<Version>, Box<Record>),
    /// Swap it on the leader's behalf.
    Relay(Version, Box<Record>),
}

impl Store {
    /// The document of a fresh cluster that the first node leads.
    #[must_use]
    pub fn new(scenario: &Scenario, nodes: &[Node]) -> Self {
        let data = nodes[0].pg.data.as_ref().expect("nodes begin with data");
        let policy = scenario.policy();
        let record = Record {
            format: FORMAT,
            cluster: policy.cluster.clone(),
            system_identifier: 1,
            term: Term(1),
            leader: Some(nodes[0].name.clone()),
            heartbeat: 1,
            nonce: "0".into(),
            ttl: Duration::from_secs(5),
            durability: scenario.durability,
            sync_set: data.names.members.clone(),
            acks: data.names.count,
            handoff_to: None,
            timeline: data.history.timeline,
            leader_lsn: data.end(),
            members: policy.members.iter().map(|(n, m)| (n.clone(), m.address.clone())).collect(),
            barred: Default::default(),
            paused: false,
            bundle: BTreeMap::new(),
            history: data.history.clone(),
            backup: None,
        };
        Self { record, version: Version("v1".into()), out: false, slow: false }
    }

    fn shown(&self) -> Answer {
        Answer::Read(Ok(Some((self.record.clone(), self.version.clone()))))
    }
}

impl World {
    /// An agent sends a request.
    pub fn ask_witness(&mut self, node: usize, call: Call) {
        let request = self.fresh();
        let life = self.nodes[node].life;
        if let Some(agent) = &mut self.nodes[node].agent {
            agent.request = Some(request);
        }
        let failed = match &call {
            Call::Read | Call::Relay(..) => Answer::Read(Err("no answer in time".into())),
            Call::Swap(..) => Answer::Ambiguous("no answer in time".into()),
        };
        self.after(TIMEOUT, Event::WitnessAnswer { node, life, request, answer: Box::new(failed) });
        let reachable = self.network.witness(node) && !self.witness.out;
        let trouble = self.scenario.witness_trouble;
        let trouble = !self.healing && self.chance(trouble);
        let mut there = self.between(MS, 15 * MS);
        let mut back = Some(self.between(MS, 15 * MS));
        if self.witness.slow {
            there += self.between(50 * MS, 1_500 * MS);
        }
        if trouble {
            match self.between(0, 4) {
                // The request is lost.
                0 => return,
                // It lands late, maybe long after its author gave it up.
                1 | 2 => {
                    let late = self.scenario.late_landing;
                    there += self.between(500 * MS, late.max(501 * MS));
                }
                // The answer is lost.
                _ => back = None,
            }
        }
        if !reachable {
            // Some of what is sent into an outage lands when it is over, or in spite of it.
            if !self.chance(0.3) {
                return;
            }
            back = None;
            let late = self.scenario.late_landing;
            there += self.between(0, late);
        }
        self.after(there, Event::WitnessRequest { node, life, request, call: Box::new(call), answer: back });
    }

    /// A request reaches the store.
    pub(super) fn witness_request(&mut self, node: usize, life: u64, request: u64, call: Call, back: Option<Micros>) {
        let answer = match call {
            Call::Read => self.witness.shown(),
            Call::Swap(Some(expected), next) if expected == self.witness.version => {
                Answer::Committed(self.change(node, next))
            }
            Call::Relay(expected, next) if expected == self.witness.version => {
                self.change(node, next);
                self.witness.shown()
            }
            Call::Swap(..) | Call::Relay(..) => Answer::Conflict,
        };
        if let Some(back) = back
            && self.network.witness(node)
        {
            self.after(back, Event::WitnessAnswer { node, life, request, answer: Box::new(answer) });
        }
    }

    /// The document changes.
    fn change(&mut self, node: usize, next: Box<Record>) -> Version {
        let version = Version(format!("v{}", self.fresh()));
        invariants::terms::document_changes(self, &next);
        self.note("document", node, || {
            format!(
                "{version} term {} leader {:?} handoff {:?} {} of {:?} beat {} timeline {}{}",
                next.term,
                next.leader,
                next.handoff_to,
                next.acks,
                next.sync_set,
                next.heartbeat,
                next.timeline,
                if next.paused { " paused" } else { "" }
            )
        });
        let set_changed = next.sync_set != self.witness.record.sync_set || next.acks != self.witness.record.acks;
        self.witness.record = *next;
        self.witness.version = version.clone();
        if set_changed {
            invariants::sync_set::document_changed(self);
        }
        version
    }
}
