//! What a state of the timed world is made of. Moments are whole ticks of the clock that they were taken from: how
//! long ago, or how long until. Beyond what anybody waits for, longer is the same.

use crate::attempt::Fate;
use crate::cluster::state::{NOBODY, NodeId, Run};

/// Nodes.
pub const NODES: usize = 2;
/// How long a right lasts, as the document says it.
pub const TTL: u8 = 3;
/// How much earlier its holder takes it to end.
pub const MARGIN: u8 = 1;
/// Whole ticks after which whoever waits has waited long enough: ttl × 1.01 + margin, rounded up.
pub const PATIENCE: u8 = TTL + MARGIN + 1;
/// Open swaps of one agent at most.
pub const ATTEMPTS: usize = 2;

/// A document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Doc {
    /// Which version it is: numbered anew in each state.
    pub version: u8,
    /// The term.
    pub term: u8,
    /// Who leads it.
    pub leader: NodeId,
    /// To whom the lead was handed.
    pub heir: NodeId,
    /// The newest timeline that was given away.
    pub timeline: u8,
    /// The leader's timeline.
    pub history: u8,
}

/// A swap of an agent.
pub type Attempt = crate::attempt::Attempt<Doc>;

/// A right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Right {
    /// Of which term.
    pub term: u8,
    /// How long ago the swap that carried it was sent.
    pub sent: u8,
    /// That was after PostgreSQL was seen to end.
    pub after_end: bool,
    /// How long until it ends.
    pub left: u8,
}

/// What a leader asks of the other node: to wait for as long as a right lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plea {
    /// The term that it leads.
    pub term: u8,
    /// How long ago it was made, by the leader's clock. Once that is as long as a right lasts, longer is the same.
    pub age: u8,
}

/// A promise that an agent gave to the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Given {
    /// What it answers.
    pub plea: Plea,
    /// How long it binds.
    pub left: u8,
}

/// A promise that an agent had from the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Had {
    /// For which term.
    pub term: u8,
    /// How long it is good for.
    pub left: u8,
}

/// A report, as far as anybody reads it. One without plea and promise is as good as none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Said {
    /// What runs there.
    pub run: Run,
    /// The timeline of its WAL.
    pub timeline: u8,
    /// What it asks for.
    pub plea: Option<Plea>,
    /// What it promises.
    pub promise: Option<Plea>,
}

/// What an agent remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Agent {
    /// The newest document that it knows.
    pub seen: Doc,
    /// How long ago that was received first.
    pub since: u8,
    /// Its swaps of that document, in the order of their sending.
    pub attempts: [Option<Attempt>; ATTEMPTS],
    /// The last of them is not answered yet.
    pub waiting: bool,
    /// Its right.
    pub right: Option<Right>,
    /// What it promised.
    pub given: Option<Given>,
    /// What it was promised.
    pub had: Option<Had>,
    /// What it heard of the other one within this tick. What is older counts for nothing.
    pub heard: Option<Said>,
}

/// On the way to be a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Becoming {
    /// Out of recovery, on this timeline.
    Promoted(u8),
    /// Started in place, on its own.
    Started,
}

/// A node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Node {
    /// What runs.
    pub run: Run,
    /// The timeline of its WAL.
    pub timeline: u8,
    /// It follows nobody.
    pub detached: bool,
    /// It was out of recovery when it ran last.
    pub was_primary: bool,
    /// How long ago the agent saw it end.
    pub ended: u8,
    /// It is about to be a primary.
    pub becoming: Option<Becoming>,
    /// The term for which it was made primary last.
    pub reign: u8,
    /// What its deadman is armed with: how long until it kills.
    pub deadman: Option<u8>,
    /// The agent.
    pub agent: Agent,
}

impl Node {
    /// Whether it is a primary, or about to be one.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.run == Run::Primary || self.becoming.is_some()
    }

    /// A server ends.
    pub fn end_server(&mut self) {
        self.was_primary = self.run == Run::Primary || self.becoming == Some(Becoming::Started);
        self.run = Run::Stopped;
        self.becoming = None;
        self.ended = 0;
        if let Some(right) = &mut self.agent.right {
            right.after_end = false;
        }
        for attempt in self.agent.attempts.iter_mut().flatten() {
            attempt.after_end = false;
        }
    }
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// PostgreSQL is killed.
    pub crashes: u8,
    /// Swaps that their author gives up waiting for.
    pub unanswered: u8,
    /// A clock ticks twice in a round, or not at all.
    pub slips: u8,
    /// A leader renews its right, in vain or not; `None`: as often as it likes.
    pub renewals: Option<u8>,
}

/// All that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The document.
    pub doc: Doc,
    /// The nodes.
    pub nodes: [Node; NODES],
    /// Who was primary in each term, or nobody.
    pub reigns: [NodeId; 5],
    /// The last report of each node that is under way.
    pub net: [Option<Said>; NODES],
    /// Whose clock has ticked in this round.
    pub ticked: u8,
    /// What may still go wrong.
    pub left: Budget,
    /// What went wrong in the step that led here.
    pub broken: Option<&'static str>,
}

impl State {
    /// n1 leads since just now, n2 follows.
    #[must_use]
    pub fn begin(left: Budget) -> Self {
        let doc = Doc { version: 0, term: 1, leader: 0, heir: NOBODY, timeline: 1, history: 1 };
        let node = Node { timeline: 1, agent: Agent { seen: doc, ..Agent::default() }, ..Node::default() };
        let mut nodes = [node; NODES];
        nodes[0].run = Run::Primary;
        nodes[0].reign = 1;
        nodes[0].agent.right = Some(Right { term: 1, sent: 0, after_end: false, left: TTL - MARGIN });
        nodes[0].deadman = Some(TTL - MARGIN);
        nodes[1].run = Run::Standby;
        let mut reigns = [NOBODY; 5];
        reigns[1] = 0;
        Self { doc, nodes, reigns, net: [None; NODES], ticked: 0, left, broken: None }
    }

    /// A node.
    #[must_use]
    pub fn node(&self, n: NodeId) -> &Node {
        &self.nodes[usize::from(n)]
    }

    /// A node, to change it.
    pub fn node_mut(&mut self, n: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(n)]
    }

    /// Makes one of states that nothing can tell apart: versions are numbered anew, in their order.
    pub fn canonical(&mut self) {
        for node in &mut self.nodes {
            if node.run != Run::Stopped {
                node.was_primary = false;
                node.ended = 0;
                if let Some(right) = &mut node.agent.right {
                    right.after_end = false;
                }
                for attempt in node.agent.attempts.iter_mut().flatten() {
                    attempt.after_end = false;
                }
            }
            if !node.may_write() {
                node.deadman = None;
                node.reign = 0;
                // One of an earlier term is worth nothing to whoever is no primary.
                node.agent.right = node.agent.right.filter(|r| r.term >= node.agent.seen.term);
            }
            // Terms only grow: what is for an earlier one binds nobody any more.
            let agent = &mut node.agent;
            agent.given = agent.given.filter(|g| g.left > 0 && g.plea.term >= agent.seen.term);
            agent.had = agent.had.filter(|had| had.left > 0 && agent.right.is_some_and(|r| r.term <= had.term));
        }
        let mut used = Vec::with_capacity(8);
        self.each_version(|v| used.push(*v));
        used.sort_unstable();
        used.dedup();
        self.each_version(|v| *v = used.iter().position(|u| u == v).and_then(|i| u8::try_from(i).ok()).unwrap_or(0));
        // Swaps are of the version that their author saw, unless they have landed, and made theirs.
        for node in &mut self.nodes {
            let seen = node.agent.seen.version;
            for attempt in node.agent.attempts.iter_mut().flatten().filter(|a| a.fate != Fate::Landed) {
                attempt.next.version = seen + 1;
            }
        }
    }

    /// All pleas of a node, wherever somebody keeps them.
    pub fn each_plea(&mut self, author: NodeId, mut f: impl FnMut(&mut Plea)) {
        let (mine, theirs) = (usize::from(author), 1 - usize::from(author));
        let other = &mut self.nodes[theirs].agent;
        let asked = [&mut self.net[mine], &mut other.heard].into_iter().flatten().filter_map(|s| s.plea.as_mut());
        asked.for_each(&mut f);
        other.given.iter_mut().for_each(|g| f(&mut g.plea));
        self.net[theirs].iter_mut().filter_map(|s| s.promise.as_mut()).for_each(f);
    }

    fn each_version(&mut self, mut f: impl FnMut(&mut u8)) {
        f(&mut self.doc.version);
        for node in &mut self.nodes {
            f(&mut node.agent.seen.version);
            for attempt in node.agent.attempts.iter_mut().flatten().filter(|a| a.fate == Fate::Landed) {
                f(&mut attempt.next.version);
            }
        }
    }
}
