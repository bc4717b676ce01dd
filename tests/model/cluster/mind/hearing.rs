//! What agents hear of the witness.

use pgdock_core::clock::Moment;
use pgdock_core::report::Told;
use pgdock_core::view::Answer;

use super::Mind;
use super::view::ended_at;
use super::words::position;
use crate::attempt::Fate;
use crate::cluster::state::{Agent, Attempt, Doc, Node, NodeId, Report, Right, Run, Version};

/// How a request to the witness ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cluster) enum Heard {
    /// A read shows the document.
    Document(Doc),
    /// The last swap landed.
    Landed,
    /// It did not.
    Conflict,
    /// Nobody knows.
    Nothing,
    /// A peer tells a document that it has read.
    Told(Doc),
}

/// What an agent hears, and what it knew before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Hearing {
    node: NodeId,
    agent: Agent,
    stopped: bool,
    heard: Heard,
}

impl Mind {
    /// What an agent knows after an answer of the witness, or what a peer tells of one.
    #[must_use]
    pub(in crate::cluster) fn hears(&self, node: NodeId, here: &Node, heard: Heard) -> Agent {
        let stopped = here.run == Run::Stopped;
        self.hearings.get(Hearing { node, agent: here.agent, stopped, heard }, |h| self.hear(h))
    }

    fn hear(&self, hearing: &Hearing) -> Agent {
        let Hearing { node, agent, stopped, heard } = hearing;
        let run = if *stopped { Run::Stopped } else { Run::Standby };
        let here = &Node { agent: *agent, run, ..Node::default() };
        let mut view = self.view(*node, here);
        let ended = ended_at(here);
        let committed = |doc: &Doc| {
            // The attempt that made it, if one of this agent's own did.
            let own = (0..)
                .zip(agent.attempts.iter().flatten())
                .find(|(_, a)| a.fate == Fate::Landed && a.next.version == doc.version);
            let mut record = self.record(doc);
            if let Some((i, a)) = own {
                record.nonce = nonce(a.next.version, i);
            }
            (record, self.version(doc.version))
        };
        let answer = match heard {
            Heard::Document(doc) => Some(Answer::Read(Ok(Some(committed(doc))))),
            Heard::Landed => {
                let last = agent.attempts.iter().flatten().next_back().expect("an answer is to a swap");
                Some(Answer::Committed(self.version(last.next.version)))
            }
            Heard::Conflict => Some(Answer::Conflict),
            Heard::Nothing => Some(Answer::Ambiguous("no answer".into())),
            Heard::Told(doc) => {
                let (record, version) = committed(doc);
                let mut report = self.report(u8::from(*node == 0), &Report::default());
                report.aid.document = Some(Box::new(Told { record, version }));
                view.heard(report);
                None
            }
        };
        if let Some(answer) = answer {
            view.witness.in_flight = agent.waiting;
            view.witness_answered(answer);
        }
        let mut after = *agent;
        after.waiting = false;
        after.seen = view.witness.record().map(|r| self.doc(r));
        let read_at = view.witness.seen.as_ref().map(|s| s.read_at);
        after.attempts = [None; 3];
        for (slot, a) in view.witness.attempts.iter().enumerate() {
            let old = agent.attempts[number(&a.next.nonce)].expect("attempts are not made up");
            let read_since = read_at.is_some_and(|at| at > a.sent_at);
            after.attempts[slot] = Some(Attempt { read_since, ..old });
        }
        after.right = view.right.map(|right| Right {
            term: position(right.term.0),
            after_end: right.sent_at > ended,
            inherited: right.sent_at == Moment::default(),
        });
        after
    }
}

pub(super) fn nonce(version: Version, attempt: usize) -> String {
    format!("{version} {attempt}")
}

/// Which of the agent's attempts a nonce belongs to.
fn number(nonce: &str) -> usize {
    nonce.split_once(' ').and_then(|(_, n)| n.parse().ok()).unwrap_or(usize::MAX)
}
