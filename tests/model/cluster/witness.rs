//! What becomes of swaps, and what agents learn of the document.

use super::properties;
use super::state::{Doc, NOBODY, NodeId, State};
use super::told::Step;
use crate::attempt::Fate;

/// Swaps of which their author hears nothing.
pub(super) fn swaps(s: &State, n: NodeId, add: &mut impl FnMut(Step, State)) {
    for (i, attempt) in s.node(n).agent.attempts.iter().flatten().enumerate() {
        if attempt.fate == Fate::Open {
            let mut t = *s;
            if let Some(attempt) = &mut t.node_mut(n).agent.attempts[i] {
                attempt.fate = Fate::Landed;
            }
            t.document_becomes(attempt.next);
            add(Step::Lands(n, attempt.next), t);
        }
    }
}

/// Swaps that nobody remembers.
pub(super) fn ghosts(s: &State, add: &mut impl FnMut(Step, State)) {
    for ghost in s.ghosts.iter() {
        let mut t = *s;
        t.document_becomes(*ghost);
        add(Step::GhostLands(*ghost), t);
    }
}

impl State {
    /// A swap lands: what else expected the version before can never land.
    pub(super) fn document_becomes(&mut self, next: Doc) {
        let now = self.doc;
        let same_reign = next.term == now.term && (next.leader == now.leader || next.leader == NOBODY);
        let new_reign = next.term == now.term + 1 && next.leader != NOBODY;
        if next.version != now.version + 1 || !(same_reign || new_reign) {
            self.broken = Some(properties::TERMS);
        }
        for node in &mut self.nodes {
            for attempt in node.agent.attempts.iter_mut().flatten() {
                if attempt.fate == Fate::Open {
                    attempt.fate = Fate::Dead;
                }
            }
        }
        self.ghosts.clear();
        self.doc = next;
    }
}
