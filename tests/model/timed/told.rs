//! What steps and states are called in a counterexample.

use super::Timed;
use super::mind::{Decided, Job};
use super::state::{Becoming, Doc, Node, Said, State};
use crate::cluster::state::{NOBODY, NodeId, Run, name};
use crate::explore::{Tells, Told};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A clock ticks.
    Tick(NodeId),
    /// It is fast.
    TickTwice(NodeId),
    /// It is slow.
    Skip(NodeId),
    /// A node becomes primary.
    Primary(NodeId),
    /// PostgreSQL is killed.
    Crash(NodeId),
    /// An agent reads the document.
    Read(NodeId),
    /// An agent hears of its swap.
    Answer(NodeId, bool),
    /// An agent gives up waiting for an answer.
    NoAnswer(NodeId),
    /// A swap lands.
    Lands(NodeId, Doc),
    /// An agent hears what the other one said.
    Hear(NodeId, Said),
    /// An agent decides.
    Decide(NodeId, Decided),
}

impl Told for Step {
    fn told(&self) -> String {
        match self {
            Self::Tick(n) => format!("the clock of {} ticks", name(*n)),
            Self::TickTwice(n) => format!("the clock of {} is fast, and ticks twice", name(*n)),
            Self::Skip(n) => format!("the clock of {} is slow, and leaves a tick out", name(*n)),
            Self::Primary(n) => format!("{} is primary", name(*n)),
            Self::Crash(n) => format!("PostgreSQL of {} is killed", name(*n)),
            Self::Read(n) => format!("{} reads the document", name(*n)),
            Self::Answer(n, true) => format!("{} hears that its swap has landed", name(*n)),
            Self::Answer(n, false) => format!("{} hears that its swap found another version, and reads that", name(*n)),
            Self::NoAnswer(n) => format!("{} waits for no answer to its swap any more", name(*n)),
            Self::Lands(n, doc) => format!("the swap of {} lands: {}", name(*n), document(doc)),
            Self::Hear(n, said) => format!("{} hears of {} {}", name(*n), name(1 - *n), words(said)),
            Self::Decide(n, d) => format!("{} decides {}", name(*n), decided(d)),
        }
    }
}

fn document(doc: &Doc) -> String {
    match (doc.leader, doc.heir) {
        (NOBODY, NOBODY) => format!("term {}, nobody leads", doc.term),
        (NOBODY, heir) => format!("term {}, nobody leads, heir {}", doc.term, name(heir)),
        (leader, _) => format!("term {}, {} leads", doc.term, name(leader)),
    }
}

fn decided(d: &Decided) -> String {
    let mut said = Vec::new();
    if d.fence {
        said.push("to kill PostgreSQL".to_owned());
    }
    if let Some(job) = d.job {
        said.push(match job {
            Job::StartStandby => "to start as a standby".into(),
            Job::StartPrimary => "to start as a primary, on the old timeline".into(),
            Job::Detach => "to detach".into(),
            Job::Promote(timeline) => format!("to be promoted to timeline {timeline}"),
        });
    }
    if let Some(doc) = &d.swap {
        said.push(format!("to send a swap: {}", document(doc)));
    }
    if let Some(left) = d.deadman {
        said.push(format!("to arm its deadman with {left} ticks"));
    }
    if let Some(says) = &d.says {
        said.push(format!("to say {}", words(says)));
    }
    if said.is_empty() { "nothing".into() } else { said.join(", and ") }
}

fn words(said: &Said) -> String {
    let ago = |age| if age == 0 { String::new() } else { format!(", {age} ticks old") };
    let asks = said.plea.map(|plea| format!("a plea to wait{}", ago(plea.age)));
    let promises = said.promise.map(|plea| format!("a promise for a plea{}", ago(plea.age)));
    asks.into_iter().chain(promises).collect::<Vec<_>>().join(" and ")
}

impl Tells for Timed {
    fn tells(&self, s: &State) -> String {
        let mut lines = vec![format!("document: {}", document(&s.doc))];
        lines.extend(Self::nodes().map(|n| node(n, s.node(n))));
        lines.join("\n        ")
    }
}

fn node(n: NodeId, node: &Node) -> String {
    let run = match (node.becoming, node.run) {
        (Some(Becoming::Promoted(timeline)), _) => format!("on its way to timeline {timeline}"),
        (Some(Becoming::Started), _) => "starting as a primary".into(),
        (None, Run::Stopped) => "stopped".into(),
        (None, Run::Standby) => "standby".into(),
        (None, Run::Primary) => "primary".into(),
    };
    let deadman = node.deadman.map_or(String::new(), |left| format!("; its deadman kills in {left} ticks"));
    let (seen, since) = (document(&node.agent.seen), node.agent.since);
    format!("{}: {run}, timeline {}{deadman}; has known \"{seen}\" for {since} ticks", name(n), node.timeline)
}
