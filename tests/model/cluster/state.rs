//! What a state of the world is made of: small, comparable, and nothing in it that no decision reads.

use std::fmt::{self, Display};

use crate::few::Few;

/// A node, by index.
pub type NodeId = u8;
/// No node.
pub const NOBODY: NodeId = 7;
/// Nodes at most.
pub const NODES: usize = 3;
/// Lives of a data directory at most.
pub const LIVES: u8 = 5;
/// Lives that a world goes through; the others are for healing.
pub const LIVES_EXPLORED: u8 = 3;
/// Records in a WAL at most.
pub const RECORDS: usize = 12;
/// Open swaps of one agent at most.
pub const ATTEMPTS: usize = 3;

/// A version of the document: a number that orders those that somebody still refers to.
pub type Version = u8;

/// Members: bit `node * LIVES + life`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Members(pub u16);

impl Members {
    /// The one in a life.
    #[must_use]
    pub fn one(node: NodeId, life: u8) -> Self {
        Self(1 << (node * LIVES + life))
    }

    /// Whether it is there.
    #[must_use]
    pub fn has(self, node: NodeId, life: u8) -> bool {
        self.0 & Self::one(node, life).0 != 0
    }

    /// With another one.
    #[must_use]
    pub fn with(self, node: NodeId, life: u8) -> Self {
        Self(self.0 | Self::one(node, life).0)
    }

    /// How many.
    #[must_use]
    pub fn len(self) -> u8 {
        u8::try_from(self.0.count_ones()).unwrap_or(u8::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = (NodeId, u8)> {
        let nodes = u8::try_from(NODES).unwrap_or(0);
        (0..nodes * LIVES).filter(move |b| self.0 & (1 << b) != 0).map(|b| (b / LIVES, b % LIVES))
    }
}

/// The name of a node.
#[must_use]
pub fn name(node: NodeId) -> String {
    format!("n{}", node + 1)
}

impl Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let life = |life: u8| "'".repeat(usize::from(life));
        let all: Vec<_> = self.iter().map(|(n, l)| format!("{}{}", name(n), life(l))).collect();
        write!(f, "{{{}}}", all.join(", "))
    }
}

/// k of G.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    /// G.
    pub members: Members,
    /// k.
    pub count: u8,
}

impl Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 { f.write_str("nobody") } else { write!(f, "{} of {}", self.count, self.members) }
    }
}

/// A document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Doc {
    /// Which version it is.
    pub version: Version,
    /// The term.
    pub term: u8,
    /// Who leads it.
    pub leader: NodeId,
    /// To whom the lead was handed.
    pub heir: NodeId,
    /// D.
    pub set: Members,
    /// a.
    pub acks: u8,
    /// The highest timeline that was given out.
    pub timeline: u8,
    /// The leader's timeline.
    pub history: u8,
}

impl Display for Doc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {}, ", self.term)?;
        match (self.leader, self.heir) {
            (NOBODY, NOBODY) => f.write_str("nobody leads")?,
            (NOBODY, heir) => write!(f, "nobody leads, heir {}", name(heir))?,
            (leader, _) => write!(f, "{} leads", name(leader))?,
        }
        write!(f, ", set {} of {}", self.acks, self.set)
    }
}

/// What a record in the WAL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client's commit.
    Commit = 0,
    /// The first record after a promotion.
    Promotion = 1,
    /// A shutdown checkpoint.
    Shutdown = 2,
}

/// A record: who wrote it, on which timeline, and what it is. With its position that makes it unique.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record(u8);

impl Record {
    /// A record.
    #[must_use]
    pub fn new(node: NodeId, timeline: u8, kind: Kind) -> Self {
        Self(timeline << 4 | node << 2 | kind as u8)
    }

    /// The timeline.
    #[must_use]
    pub fn timeline(self) -> u8 {
        self.0 >> 4
    }

    /// Whether it is a commit.
    #[must_use]
    pub fn is_commit(self) -> bool {
        self.0 & 3 == Kind::Commit as u8
    }
}

/// The WAL on a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wal {
    records: [Record; RECORDS],
    len: u8,
}

impl Default for Wal {
    /// One record of a first timeline, which no client wrote.
    fn default() -> Self {
        let mut records = [Record(0); RECORDS];
        records[0] = Record::new(0, 1, Kind::Promotion);
        Self { records, len: 1 }
    }
}

impl Wal {
    /// Where it ends.
    #[must_use]
    pub fn end(&self) -> u8 {
        self.len
    }

    /// Its records.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records[..usize::from(self.len)]
    }

    /// The record that ends at a position.
    #[must_use]
    pub fn at(&self, position: u8) -> Option<Record> {
        self.records().get(usize::from(position).wrapping_sub(1)).copied()
    }

    /// Whether there is room.
    #[must_use]
    pub fn full(&self) -> bool {
        usize::from(self.len) == RECORDS
    }

    /// Writes a record.
    pub fn append(&mut self, record: Record) {
        self.records[usize::from(self.len)] = record;
        self.len += 1;
    }

    /// The timeline that it is on.
    #[must_use]
    pub fn timeline(&self) -> u8 {
        self.records().last().map_or(1, |r| r.timeline())
    }

    /// Whether another one goes on from where this one ends.
    #[must_use]
    pub fn leads_to(&self, other: &Self) -> bool {
        self.len <= other.len && self.records() == &other.records()[..usize::from(self.len)]
    }

    /// Where it changes from one timeline to another: the timeline that ends, and where.
    pub fn forks(&self) -> impl Iterator<Item = (u8, u8)> {
        self.records().windows(2).enumerate().filter_map(|(i, pair)| {
            let end = u8::try_from(i + 1).unwrap_or(u8::MAX);
            (pair[0].timeline() != pair[1].timeline()).then(|| (pair[0].timeline(), end))
        })
    }
}

/// A pledge on a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pledge {
    /// For which version.
    pub version: Version,
    /// The giver's life.
    pub life: u8,
    /// The timeline of its WAL.
    pub timeline: u8,
    /// Where its WAL ends.
    pub flushed: u8,
}

/// What runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Run {
    /// Nothing.
    #[default]
    Stopped,
    /// A server in recovery.
    Standby,
    /// A server out of recovery.
    Primary,
}

/// A WAL sender of a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sender {
    /// The life of the standby that it sends to.
    pub life: u8,
    /// What it knows to be flushed there.
    pub flushed: u8,
    /// The WAL receiver at the other end lives.
    pub attached: bool,
    /// It still uses the names of before.
    pub old_names: bool,
}

/// Something being done to PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Job {
    /// Start as a standby.
    StartStandby,
    /// Start as a primary, on the old timeline.
    StartPrimary,
    /// Leave the upstream, and pledge.
    Detach(Option<Version>),
    /// Stream from a node.
    Attach(NodeId),
    /// Leave recovery with these names, on this timeline.
    Promote(Names, u8),
    /// Change names.
    SetNames(Names),
    /// Take a barrier; whether commits waited for nobody before.
    TakeBarrier(bool),
    /// Shut down in order.
    Stop,
    /// Take the WAL back to the fork with a primary's.
    Rewind(NodeId),
    /// Copy a primary.
    Clone(NodeId),
    /// Let clients in.
    Admit,
    /// Take the end of the WAL that a primary left when it crashed.
    TakeTail(NodeId),
}

/// What an operator told an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// To hand over, to the heir that it has chosen, or to nobody yet.
    Switchover(NodeId),
    /// That was given up, and is undone.
    Undo,
}

/// A swap of an agent.
pub type Attempt = crate::attempt::Attempt<Doc>;

/// A right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Right {
    /// Of which term.
    pub term: u8,
    /// Carried by a swap that was sent after PostgreSQL was seen to end.
    pub after_end: bool,
    /// Found armed by an agent that has swapped nothing itself.
    pub inherited: bool,
}

/// What an agent remembers. It forgets it when it is restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Agent {
    /// The newest document that it knows.
    pub seen: Option<Doc>,
    /// Its swaps of that document, in the order of their sending.
    pub attempts: [Option<Attempt>; ATTEMPTS],
    /// The last of them is not answered yet.
    pub waiting: bool,
    /// Its right.
    pub right: Option<Right>,
    /// What it does to PostgreSQL.
    pub job: Option<Job>,
    /// The barrier of the present names.
    pub barrier: Option<u8>,
    /// What an operator told it.
    pub order: Option<Order>,
    /// It saw PostgreSQL end.
    pub saw_end: bool,
    /// It has taken the end of the WAL of a primary that crashed, and is down since.
    pub took: bool,
}

/// A node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// What is on its disk.
    pub wal: Wal,
    /// How often the data directory was made anew.
    pub life: u8,
    /// `primary_conninfo`.
    pub upstream: Option<NodeId>,
    /// `synchronous_standby_names` in the configuration.
    pub names: Names,
    /// It was out of recovery when it ran last.
    pub was_primary: bool,
    /// It was shut down in order.
    pub clean: bool,
    /// Where the last checkpoint began, if that was a shutdown.
    pub checkpoint: u8,
    /// The pledge given last.
    pub pledge: Option<Pledge>,
    /// A rewind did not end.
    pub rewinding: bool,
    /// The term for which it was made primary last.
    pub reign: u8,
    /// What runs.
    pub run: Run,
    /// A promotion is under way, whatever becomes of the agent.
    pub promoting: Option<(Names, u8)>,
    /// A shutdown in order is under way.
    pub stopping: bool,
    /// Where its WAL ended when it began to be primary: what lies before it acknowledges no more, but clients see it.
    pub began: u8,
    /// No client is let in yet.
    pub closed: bool,
    /// The names of before, which some process still uses.
    pub names_before: Names,
    /// Commits wait for somebody: what the checkpointer tells backends.
    pub waits: bool,
    /// Who streams from it.
    pub senders: [Option<Sender>; NODES],
    /// The agent.
    pub agent: Agent,
}

/// A commit that a client was told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Acked {
    /// Where it ends.
    pub position: u8,
    /// The record.
    pub record: Record,
    /// In whose reign.
    pub term: u8,
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Budget {
    /// Commits that clients make.
    pub commits: u8,
    /// PostgreSQL is killed.
    pub crashes: u8,
    /// Agents are restarted.
    pub restarts: u8,
    /// A leader renews its right, without another change of the document.
    pub renewals: u8,
    /// Swaps are not answered.
    pub unanswered: u8,
    /// An operator orders a switchover.
    pub switchovers: u8,
    /// Reports are held up.
    pub late_reports: u8,
}

/// A swap that a leader asks others to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relay {
    /// The version that must still stand.
    pub expected: Version,
    /// What to make of it.
    pub next: Doc,
}

/// What a report says, as far as anybody reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Report {
    /// The speaker's life.
    pub life: u8,
    /// What runs there.
    pub run: Run,
    /// The timeline of its WAL.
    pub timeline: u8,
    /// Where that ends.
    pub flushed: u8,
    /// The forks that led to it; only a primary tells.
    pub forks: [(u8, u8); 6],
    /// The newest version that it knows, and its term.
    pub seen: Option<(Version, u8)>,
    /// Its pledge for that.
    pub pledge: Option<Pledge>,
    /// The swap that it does not hear of, if it leads.
    pub relay: Option<Relay>,
    /// It leads, its PostgreSQL crashed, and it serves the end of the WAL.
    pub serves: bool,
    /// It has taken what the other one serves.
    pub took: bool,
}

/// All that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The document.
    pub doc: Doc,
    /// The nodes.
    pub nodes: [Node; NODES],
    /// Swaps of the present version whose authors have forgotten them.
    pub ghosts: Few<Doc, 4>,
    /// What was acknowledged, in order.
    pub acked: Few<Acked, 4>,
    /// Who was primary in each term, or nobody.
    pub reigns: [NodeId; 8],
    /// An old report that the network still holds.
    pub late: Option<(NodeId, Report)>,
    /// What may still go wrong.
    pub left: Budget,
    /// What went wrong in the step that led here.
    pub broken: Option<&'static str>,
}
