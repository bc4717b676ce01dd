//! Rights that end, and patience: a cluster in `async`, with clocks that tick.
//!
//! A leader and a standby that hear nothing of each other, which is the worst that can be for both; all they share is
//! the witness. What each does is production's [`decide`](pgdock_core::decide::decide), at any moment or never: an agent
//! is as slow as it takes, the witness too. Only clocks are kept to something, each other's pace, and the deadman
//! to its own.

use pgdock_core::decide::rules::{Rule, Rules};
use stateright::{Model, Property};

use crate::attempt::Fate;
use crate::cluster::state::{NOBODY, NodeId, Run};
use crate::explore::Move;
use crate::known::Known;

mod clocks;
mod mind;
pub mod properties;
pub mod state;
pub mod told;

use mind::{Decided, Heard, Job, Mind};
use state::{Attempt, Becoming, Budget, Doc, MARGIN, NODES, Node, Said, State, TTL};
use told::Step;

/// Turns after which a failover is over.
const TURNS: usize = 40;

/// What a world may do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// A rule of `decide`.
    Rule(Rule),
    /// R2: a right counts from the sending of its swap, not from the answer.
    CountFromSending,
    /// R2: the deadman kills when the agent does not.
    Deadman,
    /// R3 allows for clocks that drift apart by so much, and no more.
    BoundedDrift,
}

impl Dropped {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Rule(rule) => format!("{rule:?}"),
            other => format!("{other:?}"),
        }
    }
}

/// All whose loss is found.
pub const MUTATIONS: [Dropped; 5] = [
    Dropped::Rule(Rule::Expire),
    Dropped::Rule(Rule::Patience),
    Dropped::CountFromSending,
    Dropped::Deadman,
    Dropped::BoundedDrift,
];

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Terms at most.
    pub terms: u8,
    /// Timelines at most.
    pub timelines: u8,
    /// The nodes hear of each other what they ask and promise, at any time or never.
    pub talks: bool,
    /// What may go wrong.
    pub budget: Budget,
}

/// The model.
#[derive(Debug)]
pub struct Timed {
    bounds: Bounds,
    dropped: Option<Dropped>,
    mind: Mind,
    completes: Known<(NodeId, Node, Doc), bool>,
}

impl Timed {
    /// The model within some bounds, without one of its rules.
    #[must_use]
    pub fn new(mut bounds: Bounds, dropped: Option<Dropped>) -> Self {
        let rules = match dropped {
            Some(Dropped::Rule(rule)) => Rules::without(rule),
            _ => Rules::default(),
        };
        if dropped == Some(Dropped::BoundedDrift) {
            bounds.budget.slips += 2;
        }
        Self { bounds, dropped, mind: Mind::new(rules), completes: Known::new() }
    }

    fn nodes() -> impl Iterator<Item = NodeId> {
        0..u8::try_from(NODES).unwrap_or(0)
    }

    fn node_steps(&self, s: &State, n: NodeId, add: &mut impl FnMut(Step, State)) {
        let node = s.node(n);
        if node.becoming.is_some() {
            add(Step::Primary(n), s.becomes_primary(n));
        }
        if node.run != Run::Stopped && s.left.crashes > 0 {
            let mut t = *s;
            t.left.crashes -= 1;
            t.node_mut(n).end_server();
            add(Step::Crash(n), t);
        }
        for (i, attempt) in node.agent.attempts.iter().flatten().enumerate() {
            if attempt.fate == Fate::Open {
                add(Step::Lands(n, attempt.next), s.lands(n, i, attempt.next));
            }
        }
        if !node.agent.waiting {
            add(Step::Read(n), self.reads(s, n));
        } else if let Some(t) = self.answered(s, n) {
            let landed = node.agent.attempts.iter().flatten().next_back().is_some_and(|a| a.fate == Fate::Landed);
            add(Step::Answer(n, landed), t);
        }
        if node.agent.waiting && s.left.unanswered > 0 {
            let mut t = *s;
            t.left.unanswered -= 1;
            t.node_mut(n).agent = self.hears(s, n, Heard::Nothing);
            add(Step::NoAnswer(n), t);
        }
        if let Some(said) = s.net[usize::from(1 - n)] {
            add(Step::Hear(n, said), self.heard(s, n, &said));
        }
        let mut decided = self.mind.decides(n, node);
        let mut before = *s;
        if let (Some(next), Some(left)) = (decided.swap, &mut before.left.renewals)
            && (Doc { version: s.doc.version, ..next }) == s.doc
        {
            decided.swap = decided.swap.filter(|_| *left > 0);
            *left = left.saturating_sub(1);
        }
        let t = self.carried_out(&before, n, &decided);
        let waits = s.net[usize::from(n)].is_some();
        let says = decided.says.filter(|_| self.bounds.talks);
        // What it says overtakes what was under way, or is lost. With nothing under way, to be lost is to be late.
        if let Some(said) = says {
            add(Step::Decide(n, decided), t.says(n, said));
        }
        if says.is_none() || waits {
            add(Step::Decide(n, Decided { says: None, ..decided }), t);
        }
    }

    fn heard(&self, s: &State, n: NodeId, said: &Said) -> State {
        let mut t = *s;
        t.net[usize::from(1 - n)] = None;
        t.node_mut(n).agent = self.mind.hears_said(n, s.node(n), said);
        t
    }

    fn hears(&self, s: &State, n: NodeId, heard: Heard) -> state::Agent {
        self.mind.hears(n, s.node(n), heard, self.dropped == Some(Dropped::CountFromSending))
    }

    fn reads(&self, s: &State, n: NodeId) -> State {
        let mut t = *s;
        t.node_mut(n).agent = self.hears(s, n, Heard::Document(s.doc));
        t
    }

    /// The answer to a swap whose fate is sealed. Where that found another version, its author reads.
    fn answered(&self, s: &State, n: NodeId) -> Option<State> {
        let last = s.node(n).agent.attempts.iter().flatten().next_back()?;
        let mut t = *s;
        match last.fate {
            Fate::Open => return None,
            Fate::Landed => t.node_mut(n).agent = self.hears(s, n, Heard::Landed),
            Fate::Dead => {
                t.node_mut(n).agent = self.hears(s, n, Heard::Conflict);
                t = self.reads(&t, n);
            }
        }
        Some(t)
    }

    /// What is decided is done, or begins.
    fn carried_out(&self, s: &State, n: NodeId, decided: &Decided) -> State {
        let mut t = *s;
        let current = s.node(n).agent.seen.version == s.doc.version;
        let node = t.node_mut(n);
        node.deadman = decided.deadman.filter(|_| self.dropped != Some(Dropped::Deadman));
        if decided.fence {
            node.end_server();
        }
        if let (Some(right), Some(left)) = (&mut node.agent.right, decided.deadman) {
            right.left = right.left.max(left);
        }
        node.agent.given = decided.given;
        let term = node.agent.seen.term;
        let mut makes = |becoming| {
            node.reign = term;
            node.becoming = Some(becoming);
        };
        match decided.job {
            Some(Job::StartPrimary) => makes(Becoming::Started),
            Some(Job::Promote(timeline)) => makes(Becoming::Promoted(timeline)),
            Some(Job::StartStandby) => {
                node.run = Run::Standby;
                node.detached = true;
            }
            Some(Job::Detach) => node.detached = true,
            None => {}
        }
        let slot = node.agent.attempts.iter().position(Option::is_none);
        if let (Some(next), Some(slot)) = (decided.swap, slot) {
            let fate = if current { Fate::Open } else { Fate::Dead };
            node.agent.attempts[slot] = Some(Attempt::new(next, fate));
            node.agent.waiting = true;
        }
        t
    }

    /// Whether the last reign has begun and the one before has ended for good. What two nodes say to each other then is
    /// what they said before.
    fn over(&self, s: &State) -> bool {
        let last = s.reigns.get(usize::from(self.bounds.terms)).is_some_and(|n| *n != NOBODY);
        let ended = |n: &Node| !n.may_write() && n.agent.right.is_none_or(|r| r.left == 0);
        self.bounds.talks && last && Self::nodes().any(|n| s.doc.leader != n && ended(s.node(n)))
    }

    /// Whether a node leads before long when the other one is gone, if it may. What that takes is the document
    /// and what this node knows: nobody hears of the other.
    fn completes(&self, s: &State) -> bool {
        Self::nodes().all(|n| {
            let node = s.node(n);
            // A timeline that is not the leader's is not promoted: what it lacks nobody knows.
            let may = node.timeline == s.doc.history || s.doc.leader == n;
            !may || self.completes.get((n, *node, s.doc), |_| self.comes_to_lead(s, n))
        })
    }

    /// R7: while both live and hear each other, the witness may be away for as long as it likes: who leads by right
    /// goes on, if the other one, which could take over, has not begun to.
    fn outlives(&self, s: &State) -> bool {
        Self::nodes().filter(|n| s.leads_undisputed(*n)).all(|n| self.runs_on(s, n))
    }

    fn runs_on(&self, s: &State, n: NodeId) -> bool {
        let mut now = *s;
        now.left = Budget::default();
        for _ in 0..2 * TTL {
            for speaker in [n, 1 - n, n] {
                let decided = self.mind.decides(speaker, now.node(speaker));
                now = self.carried_out(&now, speaker, &decided);
                if let Some(said) = decided.says {
                    now = self.heard(&now, 1 - speaker, &said);
                }
            }
            now.tick(n);
            now.tick(1 - n);
            now.canonical();
        }
        now.node(n).run == Run::Primary
    }

    fn comes_to_lead(&self, s: &State, n: NodeId) -> bool {
        let mut now = *s;
        now.left = Budget::default();
        now.node_mut(1 - n).end_server();
        for _ in 0..TURNS {
            let open = now.node(n).agent.attempts.iter().flatten().position(|a| a.fate == Fate::Open);
            if let Some(open) = open {
                let next = now.node(n).agent.attempts[open].map(|a| a.next).unwrap_or_default();
                now = now.lands(n, open, next);
            }
            now = if now.node(n).agent.waiting { self.answered(&now, n).unwrap_or(now) } else { self.reads(&now, n) };
            now.canonical();
            let decided = self.mind.decides(n, now.node(n));
            now = self.carried_out(&now, n, &decided);
            if now.node(n).becoming.is_some() {
                now = now.becomes_primary(n);
            }
            let node = now.node(n);
            if node.run == Run::Primary && now.doc.leader == n && node.agent.seen.term == now.doc.term {
                return true;
            }
            now.tick(n);
            now.canonical();
        }
        false
    }
}

impl State {
    fn says(&self, n: NodeId, said: Said) -> Self {
        let mut t = *self;
        t.net[usize::from(n)] = Some(said);
        t
    }

    fn lands(&self, n: NodeId, attempt: usize, next: Doc) -> Self {
        let mut t = *self;
        let same_reign = next.term == t.doc.term && (next.leader == t.doc.leader || next.leader == NOBODY);
        let new_reign = next.term == t.doc.term + 1 && next.leader != NOBODY;
        if next.version != t.doc.version + 1 || !(same_reign || new_reign) {
            t.broken = Some(properties::TERMS);
        }
        if let Some(attempt) = &mut t.node_mut(n).agent.attempts[attempt] {
            attempt.fate = Fate::Landed;
        }
        for attempt in t.nodes.iter_mut().flat_map(|n| n.agent.attempts.iter_mut().flatten()) {
            if attempt.fate == Fate::Open {
                attempt.fate = Fate::Dead;
            }
        }
        t.doc = next;
        t
    }

    /// Whether a node leads with a right that it has just renewed, or was just promised, and the other one knows.
    fn leads_undisputed(&self, n: NodeId) -> bool {
        let (node, other) = (self.node(n), self.node(1 - n));
        let renewed = node.agent.right.is_some_and(|r| r.term == self.doc.term && r.left == TTL - MARGIN);
        let goes_on = |a: &Attempt| a.next.leader == n && a.next.term == self.doc.term;
        node.run == Run::Primary
            && self.doc.leader == n
            && renewed
            && node.agent.seen == self.doc
            && node.agent.attempts.iter().flatten().all(goes_on)
            && other.run == Run::Standby
            && other.becoming.is_none()
            && other.agent.seen == self.doc
            && other.agent.attempts.iter().all(Option::is_none)
    }

    fn becomes_primary(&self, n: NodeId) -> Self {
        let mut t = *self;
        let node = t.node_mut(n);
        if let Some(Becoming::Promoted(timeline)) = node.becoming {
            node.timeline = timeline;
        }
        node.becoming = None;
        node.run = Run::Primary;
        let reign = usize::from(node.reign);
        if let Some(before) = t.reigns.get_mut(reign) {
            if *before != NOBODY && *before != n {
                t.broken = Some(properties::ONE_LEADER);
            }
            *before = n;
        }
        t
    }
}

impl Model for Timed {
    type State = State;
    type Action = Move<Step, State>;

    fn init_states(&self) -> Vec<State> {
        let mut s = State::begin(self.bounds.budget);
        if self.dropped == Some(Dropped::Deadman) {
            s.nodes[0].deadman = None;
        }
        vec![s]
    }

    fn actions(&self, s: &State, out: &mut Vec<Self::Action>) {
        let mut add = |step, mut to: State| {
            to.canonical();
            if to != *s {
                out.push(Move { step, to });
            }
        };
        for n in Self::nodes() {
            clocks::steps(s, n, &mut add);
            self.node_steps(s, n, &mut add);
        }
    }

    fn next_state(&self, _: &State, action: Self::Action) -> Option<State> {
        Some(action.to)
    }

    fn within_boundary(&self, s: &State) -> bool {
        s.doc.term <= self.bounds.terms && s.doc.timeline <= self.bounds.timelines && !self.over(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        // What only keeps a leader in office breaks long before two have a right.
        let whole = matches!(self.dropped, None | Some(Dropped::Rule(Rule::OutliveOutage)));
        properties::all(self.bounds.talks && whole)
    }
}
