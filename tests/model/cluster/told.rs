//! What steps and states are called in a counterexample.

use std::fmt::{self, Display};

use super::Cluster;
use super::state::{Doc, Job, Node, NodeId, Record, Run, State, name};
use crate::explore::{Tells, Told};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// A client commits on a primary.
    Commit(NodeId, u8),
    /// A standby receives and flushes all that a primary has.
    Flush(NodeId, NodeId),
    /// A standby connects to its upstream.
    Connect(NodeId, NodeId),
    /// A primary notices that a standby is gone.
    Close(NodeId, NodeId),
    /// The checkpointer does.
    NoticeCheckpointer(NodeId),
    /// A WAL sender does.
    NoticeSender(NodeId, NodeId),
    /// A promotion ends.
    Promoted(NodeId, u8),
    /// A shutdown checkpoint is written.
    ShutDown(NodeId),
    /// A shutdown ends.
    Stopped(NodeId),
    /// PostgreSQL is killed.
    Crash(NodeId),
    /// An agent is restarted.
    Restart(NodeId),
    /// An operator orders a switchover.
    Order(NodeId),
    /// A report is held up.
    HoldUp(NodeId),
    /// An agent reads the document.
    Read(NodeId, u8),
    /// An agent is told the document that another one has read.
    Told(NodeId, NodeId, u8),
    /// An agent makes a swap that the leader asked it to make some time ago.
    Relays(NodeId, Doc),
    /// Its swap finds another version there, and it reads that.
    Conflict(NodeId, u8),
    /// A swap lands.
    Lands(NodeId, Doc),
    /// A swap that nobody remembers lands.
    GhostLands(Doc),
    /// An agent decides, and hears of its swap at once.
    Decide(NodeId, Decided),
    /// An agent decides, and hears nothing of its swap.
    Unanswered(NodeId, Decided),
    /// A rewind ends.
    Rewound(NodeId),
}

/// What an agent decided.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decided {
    /// PostgreSQL is killed.
    pub fence: bool,
    /// Something begins.
    pub job: Option<Job>,
    /// A swap is sent.
    pub swap: Option<Doc>,
    /// A swap of the leader's is made for it.
    pub relay: Option<Doc>,
    /// The order ends.
    pub verdict: bool,
    /// Whom it took for dead.
    pub gone: u8,
}

impl Told for Step {
    fn told(&self) -> String {
        match self {
            Self::Commit(n, at) => format!("a client commits on {}: record {at}", name(*n)),
            Self::Flush(s, p) => format!("{} flushes all that {} has", name(*s), name(*p)),
            Self::Connect(s, p) => format!("{} streams from {}", name(*s), name(*p)),
            Self::Close(p, s) => format!("PostgreSQL of {} notices that {} is gone", name(*p), name(*s)),
            Self::NoticeCheckpointer(n) => format!("the checkpointer of {} notices the names", name(*n)),
            Self::NoticeSender(p, s) => format!("the WAL sender on {} to {} notices the names", name(*p), name(*s)),
            Self::Promoted(n, timeline) => format!("{} is promoted to timeline {timeline}", name(*n)),
            Self::ShutDown(n) => format!("{} writes its shutdown checkpoint", name(*n)),
            Self::Stopped(n) => format!("PostgreSQL of {} has stopped in order", name(*n)),
            Self::Crash(n) => format!("PostgreSQL of {} is killed", name(*n)),
            Self::Restart(n) => format!("the agent of {} is restarted", name(*n)),
            Self::Order(n) => format!("an operator tells {} to hand over", name(*n)),
            Self::HoldUp(n) => format!("a report of {} is held up in the network", name(*n)),
            Self::Told(n, peer, version) => format!("{} tells {} of version {version}", name(*peer), name(*n)),
            Self::Relays(n, doc) => format!("{} makes a swap for the leader: {doc}", name(*n)),
            Self::Read(n, version) => format!("{} reads version {version}", name(*n)),
            Self::Conflict(n, version) => {
                format!("{0} swaps an older version: that fails, and {0} reads version {version}", name(*n))
            }
            Self::Lands(n, doc) => format!("the swap of {} lands: version {}: {doc}", name(*n), doc.version),
            Self::GhostLands(doc) => format!("a forgotten swap lands: version {}: {doc}", doc.version),
            Self::Decide(n, decided) => format!("{} decides: {decided}", name(*n)),
            Self::Unanswered(n, decided) => format!("{} decides: {decided}, and hears nothing of it", name(*n)),
            Self::Rewound(n) => format!("the rewind of {} ends", name(*n)),
        }
    }
}

impl Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        if self.fence {
            said.push("kill PostgreSQL".to_owned());
        }
        if let Some(job) = &self.job {
            said.push(wanted(job));
        }
        if let Some(doc) = &self.swap {
            said.push(format!("swap to version {}: {doc}", doc.version));
        }
        if self.verdict {
            said.push("the order is at its end".to_owned());
        }
        f.write_str(&said.join(", and "))?;
        let gone: Vec<_> = (0..3).filter(|n| self.gone & (1 << n) != 0).map(name).collect();
        if gone.is_empty() { Ok(()) } else { write!(f, " (nothing is heard of {})", gone.join(", ")) }
    }
}

fn wanted(job: &Job) -> String {
    match job {
        Job::StartStandby => "start as a standby".into(),
        Job::StartPrimary => "start as a primary, on the old timeline".into(),
        Job::Detach(None) => "detach".into(),
        Job::Detach(Some(version)) => format!("detach and pledge for version {version}"),
        Job::Attach(upstream) => format!("attach to {}", name(*upstream)),
        Job::Promote(names, timeline) => format!("promote to timeline {timeline}, names {names}"),
        Job::SetNames(names) => format!("set names: {names}"),
        Job::TakeBarrier(_) => "take a barrier".into(),
        Job::Stop => "stop in order".into(),
        Job::Rewind(from) => format!("rewind to {}", name(*from)),
        Job::Clone(from) => format!("copy {}", name(*from)),
        Job::Admit => "let clients in".into(),
        Job::TakeTail(from) => format!("take the end of the WAL of {}", name(*from)),
    }
}

impl Tells for Cluster {
    fn tells(&self, s: &State) -> String {
        let mut lines = vec![format!("document: {}", s.doc)];
        for n in self.nodes() {
            lines.push(node(n, s.node(n)));
        }
        let acked: Vec<_> = s.acked.iter().map(|a| a.position.to_string()).collect();
        if !acked.is_empty() {
            lines.push(format!("acknowledged, and not yet held by all: records {}", acked.join(", ")));
        }
        if let Some(stuck) = self.stuck(s) {
            lines.push("without faults it comes to this, and no further:".into());
            lines.push(format!("document: {}", stuck.doc));
            lines.extend(self.nodes().map(|n| node(n, stuck.node(n))));
        }
        lines.join("\n        ")
    }
}

/// What a node is like.
fn node(n: NodeId, node: &Node) -> String {
    let mut said = vec![match node.run {
        Run::Stopped => "stopped".to_owned(),
        Run::Standby => node.upstream.map_or("detached".into(), |u| format!("standby of {}", name(u))),
        Run::Primary if node.closed => format!("primary without clients, names {}", node.names),
        Run::Primary => format!("primary, names {}", node.names),
    }];
    let kind = |r: &Record| format!("{}{}", if r.is_commit() { "c" } else { "-" }, r.timeline());
    said.push(format!("WAL {}", node.wal.records().iter().map(kind).collect::<Vec<_>>().join(" ")));
    if let Some(pledge) = node.pledge {
        said.push(format!("pledged for version {}", pledge.version));
    }
    match node.agent.seen {
        Some(seen) => said.push(format!("has read version {}", seen.version)),
        None => said.push("has read nothing".into()),
    }
    if node.agent.attempts[0].is_some() {
        said.push("a swap is open".into());
    }
    if let Some(job) = &node.agent.job {
        said.push(format!("is about to {}", wanted(job)));
    }
    format!("{}: {}", name(n), said.join("; "))
}
