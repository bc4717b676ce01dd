//! The whole of a small cluster, decided by production's own [`decide`](pgdock_core::decide::decide).
//!
//! ```text
//!            ┌── what an agent remembers ──┐      ┌── its node ──┐
//!   state ──▶│ View, put together (mind)   │──▶ decide ──▶ actions ──▶ effects on PostgreSQL and the witness
//!            └─────────────────────────────┘      facts ▲          (each at any later time) ──▶ next state
//!                                            whatever clocks may say
//! ```
//!
//! Each step is one thing that happens to one node: PostgreSQL flushes, an agent reads, decides, or finishes
//! what it does; a swap lands, is answered, or is not. Nodes are as slow as it takes: a pause, a partition, an
//! outage of the witness are steps that do not happen for a while. So they need no steps of their own.

use pgdock_core::decide::rules::Rules;
use pgdock_core::witness::record::Durability;
use stateright::{Model, Property};

use crate::explore::Move;
use crate::few::Few;

mod agents;
mod canon;
mod heal;
mod mind;
mod postgres;
pub mod properties;
pub mod state;
pub mod told;
mod witness;

use heal::Healed;
use mind::Mind;
use state::{Agent, Budget, Doc, Members, NOBODY, NODES, Names, Node, NodeId, Right, Run, Sender, State};
use told::Step;

/// The bounds.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Two or three.
    pub nodes: usize,
    /// What an acknowledged commit means.
    pub durability: Durability,
    /// How many standbys shall hold each.
    pub acks: u32,
    /// Commits rather wait than be held by the primary alone.
    pub strict: bool,
    /// The sync sets that it begins with, each with its a.
    pub begins: Vec<(Members, u8)>,
    /// Terms at most.
    pub terms: u8,
    /// In the last of them, too, standbys come to guard commits. Whoever holds what was acknowledged then, no
    /// later primary shows.
    pub guards_last: bool,
    /// Agents tell each other what they read, and make swaps for each other.
    pub tells: bool,
    /// Look from every state whether the cluster heals.
    pub heal: bool,
    /// What may happen, and how often.
    pub budget: Budget,
}

/// The model.
#[derive(Debug)]
pub struct Cluster {
    bounds: Bounds,
    mind: Mind,
    /// Look after what only implies that commits survive, too.
    strict: bool,
    healed: Healed,
}

impl Cluster {
    /// The model within some bounds, under some rules. `strict`: with the properties of single steps, which
    /// break long before a commit is lost.
    #[must_use]
    pub fn new(bounds: Bounds, rules: Rules, strict: bool) -> Self {
        let mind = Mind::new(&bounds, rules);
        Self { bounds, mind, strict, healed: Healed::default() }
    }

    fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        0..u8::try_from(self.bounds.nodes).unwrap_or(0)
    }

    /// The first node leads, the others stream from it.
    fn begin(&self, set: Members, acks: u8) -> State {
        let doc = Doc { version: 0, term: 1, leader: 0, heir: NOBODY, set, acks, timeline: 1, history: 1 };
        let names = Names { members: set, count: acks };
        let mut nodes = [Node::default(); NODES];
        for n in self.nodes() {
            let node = &mut nodes[usize::from(n)];
            node.agent = Agent { seen: Some(doc), ..Agent::default() };
            if n > 0 {
                node.run = Run::Standby;
                node.upstream = Some(0);
            }
        }
        let end = nodes[0].wal.end();
        let leader = &mut nodes[0];
        leader.run = Run::Primary;
        leader.reign = 1;
        leader.names = names;
        leader.waits = acks > 0;
        leader.began = end;
        leader.agent.right = Some(Right { term: 1, after_end: false, inherited: false });
        for n in 1..self.bounds.nodes {
            leader.senders[n] = Some(Sender { life: 0, flushed: end, attached: true, old_names: false });
        }
        let mut reigns = [NOBODY; 8];
        reigns[1] = 0;
        State {
            doc,
            nodes,
            ghosts: Few::default(),
            acked: Few::default(),
            reigns,
            late: None,
            left: self.bounds.budget,
            broken: None,
        }
    }

    /// All that can happen next.
    fn steps(&self, s: &State, out: &mut Vec<Move<Step, State>>) {
        let mut add = |step, mut to: State| {
            canon::canonical(&mut to, self.bounds.nodes);
            if to != *s {
                out.push(Move { step, to });
            }
        };
        for n in self.nodes() {
            postgres::steps(s, n, &mut add);
            self.agent_steps(s, n, &mut add);
            witness::swaps(s, n, &mut add);
        }
        witness::ghosts(s, &mut add);
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Move<Step, State>;

    fn init_states(&self) -> Vec<State> {
        self.bounds.begins.iter().map(|(set, acks)| self.begin(*set, *acks)).collect()
    }

    fn actions(&self, s: &State, out: &mut Vec<Self::Action>) {
        if s.broken.is_none() {
            self.steps(s, out);
        }
    }

    fn next_state(&self, _: &State, action: Self::Action) -> Option<State> {
        Some(action.to)
    }

    fn within_boundary(&self, s: &State) -> bool {
        let last = |n: &Node| n.run == Run::Primary && n.reign == self.bounds.terms && n.names.count > 0;
        if !self.bounds.guards_last && s.nodes.iter().any(last) {
            return false;
        }
        s.doc.term <= self.bounds.terms && s.nodes.iter().all(|n| !n.wal.full() && n.life < state::LIVES_EXPLORED)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self.strict, &self.bounds)
    }
}
