//! [`World`]: all nodes, the witness and the network, in one virtual time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;

use pgdock_core::NodeName;
use pgdock_core::node::Incarnation;
use pgdock_core::report::Report;
use pgdock_core::view::Answer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::actor::Fault;
use super::invariants::{Ledger, Violation};
use super::network::Network;
use super::node::Node;
use super::plot::Stage;
use super::replication::Stream;
use super::scenario::{MS, Micros, SECOND, Scenario};
use super::trace::Trace;
use super::witness::{Call, Store};

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    /// An agent's loop goes round.
    Wake { node: usize, life: u64 },
    /// A report arrives.
    Report { from: usize, to: usize, report: Rc<Report> },
    /// A host tells that no agent listens there.
    Refused { node: usize, by: usize },
    /// A request reaches the witness.
    WitnessRequest { node: usize, life: u64, request: u64, call: Box<Call>, answer: Option<Micros> },
    /// Its answer reaches the agent, or its patience ends.
    WitnessAnswer { node: usize, life: u64, request: u64, answer: Box<Answer> },
    /// A job of the PostgreSQL lane goes on.
    Job { node: usize, life: u64, job: u64 },
    /// The deadman looks at his clock.
    Deadman { node: usize },
    /// A server has come up.
    Up { node: usize, number: u64 },
    /// A standby that was told to leave recovery has done so.
    Promoted { node: usize, number: u64, timeline: pgdock_core::TimelineId },
    /// A standby has replayed what lay there.
    Replayed { node: usize, number: u64 },
    /// A standby tries to stream.
    Connect { node: usize, number: u64 },
    /// WAL or a keepalive arrives at a standby.
    Wal { stream: usize },
    /// A standby flushes what it received.
    Flush { stream: usize },
    /// A standby's reply arrives at the primary.
    Reply { stream: usize, flushed: pgdock_core::Lsn },
    /// Both ends look after a stream.
    Keepalive { stream: usize },
    /// One end of a stream learns that the other closed it.
    Closed { stream: usize, at_primary: bool },
    /// A process notices a reload.
    Adopt { node: usize, number: u64, process: Process },
    /// A client's commit is flushed on the primary.
    Commit { node: usize, number: u64 },
    /// A shutdown in order is looked after.
    Stopping { node: usize, number: u64 },
    /// Clients write.
    Clients,
    /// Chance strikes.
    Strike,
    /// A connection of the first node is cut or mended.
    Flap,
    /// A fault ends.
    Mend(Fault),
    /// The cluster is looked at while it heals.
    Look,
}

/// A process that reads the configuration for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Process {
    /// New WAL senders have what it has.
    Postmaster,
    /// Tells backends whether commits wait.
    Checkpointer,
    /// Lets waiting commits go.
    Sender(usize),
}

#[derive(Debug)]
struct Entry(Micros, u64, Event);
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

/// All nodes, the witness and the network.
#[derive(Debug)]
pub struct World {
    /// What the seed decided.
    pub scenario: Scenario,
    /// Where chance comes from.
    pub rng: StdRng,
    /// The true time.
    pub now: Micros,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The witness.
    pub witness: Store,
    /// The network.
    pub network: Network,
    /// All streams that ever were.
    pub streams: Vec<Stream>,
    /// What was promised to clients, and to whom what right.
    pub ledger: Ledger,
    /// What happened.
    pub trace: Trace,
    /// How far a plot has come.
    pub stage: Stage,
    /// The first violation.
    pub violation: Option<Violation>,
    /// All faults have stopped.
    pub healing: bool,
    /// When they stopped.
    pub healing_since: Micros,
    /// When the cluster was found healed.
    pub healed_at: Option<Micros>,
    /// Numbers for records, requests, nonces, lives.
    pub serial: u64,
    queue: BinaryHeap<Entry>,
    order: u64,
    /// How many events were handled.
    pub events: u64,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The first violation, if there was one.
    pub violation: Option<Violation>,
    /// The same for two runs only if the same happened.
    pub digest: u64,
    /// The text of what happened, if it was asked for.
    pub lines: Vec<String>,
    /// Commits acknowledged.
    pub acked: usize,
    /// Acknowledged commits that a later leader lacked, in `async`.
    pub lost: usize,
    /// Reigns.
    pub terms: u64,
    /// Events.
    pub events: u64,
    /// How long the cluster took to heal.
    pub healed_after: Option<Micros>,
}

impl World {
    /// A cluster that was bootstrapped and then shut down: the nodes start with the run.
    #[must_use]
    pub fn new(scenario: Scenario, verbose: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let nodes: Vec<_> = (0..scenario.nodes).map(|i| Node::new(i, &scenario, &mut rng)).collect();
        let mut world = Self {
            network: Network::new(scenario.nodes),
            witness: Store::new(&scenario, &nodes),
            nodes,
            rng,
            now: 0,
            streams: Vec::new(),
            ledger: Ledger::default(),
            trace: Trace::new(verbose),
            stage: Stage::default(),
            violation: None,
            healing: false,
            healing_since: 0,
            healed_at: None,
            serial: 100,
            queue: BinaryHeap::new(),
            order: 0,
            events: 0,
            scenario,
        };
        for node in 0..world.nodes.len() {
            if node > 0 || !world.scenario.wide || world.scenario.flaps {
                world.start_agent(node);
            } else {
                let late = world.between(500 * MS, 15 * SECOND);
                world.after(late, Event::Mend(Fault::Agent(0, 0)));
            }
            if node == 0 && world.nodes[0].deadman.is_some() {
                world.after(SECOND, Event::Deadman { node: 0 });
            }
            let number = world.nodes[node].pg.number;
            world.after(MS, Event::Connect { node, number });
        }
        world.after(SECOND, Event::Clients);
        if world.scenario.flaps {
            world.after(100 * MS, Event::Flap);
            world.after(60 * MS, Event::Strike);
        } else {
            // An outage alone is one that finds everybody at work: who has just started has nothing to rest on.
            let quiet = if world.scenario.outages_only { 6 } else { 3 };
            world.after(quiet * SECOND, Event::Strike);
        }
        world
    }

    /// Runs to the end.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        let heal_at = self.scenario.faults_for;
        let end = heal_at + self.scenario.heal_within;
        while self.violation.is_none() && self.healed_at.is_none() {
            let Some(Entry(at, _, event)) = self.queue.pop() else { break };
            if at >= heal_at && !self.healing {
                self.now = heal_at;
                self.stop_faults();
            }
            if at >= end {
                self.now = end;
                super::invariants::heals::at_the_end(&mut self);
                break;
            }
            self.now = self.now.max(at);
            self.events += 1;
            self.handle(event);
        }
        let healed_after = self.healed_at.map(|at| at - self.healing_since);
        Outcome {
            violation: self.violation,
            digest: self.trace.digest(),
            lines: std::mem::take(&mut self.trace.lines),
            acked: self.ledger.acked.len(),
            lost: self.ledger.lost,
            terms: self.witness.record.term.0,
            events: self.events,
            healed_after,
        }
    }

    /// Lets something happen later.
    pub(crate) fn after(&mut self, delay: Micros, event: Event) {
        self.order += 1;
        self.queue.push(Entry(self.now + delay, self.order, event));
    }

    /// Chance.
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.rng.random_bool(p.min(1.0))
    }

    /// A number from a range.
    pub fn between(&mut self, low: Micros, high: Micros) -> Micros {
        if high <= low { low } else { self.rng.random_range(low..high) }
    }

    /// A fresh number.
    pub fn fresh(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// A fresh identity for a data directory.
    pub fn fresh_incarnation(&mut self) -> Incarnation {
        Incarnation(u32::try_from(self.fresh()).unwrap_or(u32::MAX))
    }

    /// Notes something about a node.
    pub fn note(&mut self, kind: &str, node: usize, text: impl FnOnce() -> String) {
        self.trace.note(self.now, kind, node, text);
    }

    /// Says that an invariant does not hold.
    pub fn violated(&mut self, invariant: &'static str, detail: impl Into<String>) {
        if self.violation.is_none() {
            let violation = Violation { invariant, detail: detail.into(), at: self.now };
            self.note("VIOLATION", 0, || format!("{invariant}: {}", violation.detail));
            self.violation = Some(violation);
        }
    }

    /// The index of a node.
    #[must_use]
    pub fn index(&self, name: &NodeName) -> usize {
        self.nodes.iter().position(|n| n.name == *name).expect("names of nodes come from the scenario")
    }

    /// Whose event it is: it waits while its owner is paused.
    fn owner(&self, event: &Event) -> Option<(usize, bool)> {
        Some(match event {
            Event::Wake { node, .. }
            | Event::Refused { node, .. }
            | Event::WitnessAnswer { node, .. }
            | Event::Job { node, .. } => (*node, true),
            Event::Report { to, .. } => (*to, true),
            Event::Deadman { node }
            | Event::Up { node, .. }
            | Event::Promoted { node, .. }
            | Event::Replayed { node, .. }
            | Event::Connect { node, .. }
            | Event::Adopt { node, .. }
            | Event::Stopping { node, .. }
            | Event::Commit { node, .. } => (*node, false),
            Event::Wal { stream } | Event::Flush { stream } => (self.streams[*stream].standby, false),
            Event::Reply { stream, .. } => (self.streams[*stream].primary, false),
            Event::Closed { stream, at_primary } => {
                let s = &self.streams[*stream];
                (if *at_primary { s.primary } else { s.standby }, false)
            }
            _ => return None,
        })
    }

    fn handle(&mut self, event: Event) {
        if let Some((node, agent)) = self.owner(&event) {
            let n = &self.nodes[node];
            let until = if agent { n.paused_until.max(n.agent_paused_until) } else { n.paused_until };
            if until > self.now {
                self.after(until - self.now, event);
                return;
            }
        }
        match event {
            Event::Wake { node, life } => self.wake(node, life),
            Event::Report { from, to, report } => self.report_arrives(from, to, &report),
            Event::Refused { node, by } => self.refused(node, by),
            Event::WitnessRequest { node, life, request, call, answer } => {
                self.witness_request(node, life, request, *call, answer);
            }
            Event::WitnessAnswer { node, life, request, answer } => self.witness_answer(node, life, request, *answer),
            Event::Job { node, life, job } => self.job_step(node, life, job),
            Event::Deadman { node } => self.deadman(node),
            Event::Up { node, number } => self.server_up(node, number),
            Event::Promoted { node, number, timeline } => self.promoted(node, number, timeline),
            Event::Replayed { node, number } => self.server_replayed(node, number),
            Event::Connect { node, number } => self.connect(node, number),
            Event::Wal { stream } => self.wal_arrives(stream),
            Event::Flush { stream } => self.standby_flush(stream),
            Event::Reply { stream, flushed } => self.reply_arrives(stream, flushed),
            Event::Keepalive { stream } => self.keepalive(stream),
            Event::Closed { stream, at_primary } => self.closed(stream, at_primary),
            Event::Adopt { node, number, process } => self.adopt(node, number, process),
            Event::Commit { node, number } => self.commit(node, number),
            Event::Stopping { node, number } => self.stopping(node, number),
            Event::Clients => self.clients(),
            Event::Strike => self.strike(),
            Event::Flap => self.flap(),
            Event::Mend(fault) => self.mend(fault),
            Event::Look => {
                super::invariants::heals::look(self);
                self.after(100 * MS, Event::Look);
            }
        }
    }
}
