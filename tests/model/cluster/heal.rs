//! Whether the cluster heals: from a state on, without further faults, by steps that are taken fairly.
//!
//! Faults stop, every node gets its turn, one after the other: its PostgreSQL does all that it can, its agent
//! reads, and decides once. Where that leads back to where it has been, the time that anything waits for is
//! taken to have passed. Whoever then goes round in circles all the same does not heal. What is known to heal is
//! remembered, so that most ways end after a turn.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::{Mutex, PoisonError};

use super::mind::{Appears, Facts, Heard};
use super::properties::can_acknowledge;
use super::state::{Budget, NOBODY, NODES, NodeId, Right, Run, State};
use super::told::Step;
use super::{Cluster, canon, postgres};
use crate::attempt::Fate;
use crate::fast_hash::{FastHasher, fingerprint};

/// Turns after which nobody waits any longer.
const TURNS: usize = 100;
/// Steps of PostgreSQL in one turn.
const STEPS: usize = 50;

/// What is known to heal.
#[derive(Debug, Default)]
pub(super) struct Healed(Mutex<HashSet<u64, BuildHasherDefault<FastHasher>>>);

impl Healed {
    fn knows(&self, id: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn note(&self, way: HashSet<u64>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(way);
    }
}

impl Cluster {
    /// Whether all is well again once all nodes run and reach each other.
    pub(super) fn heals(&self, s: &State) -> bool {
        self.comes_to(s, None).is_ok()
    }

    /// Where it comes to and no further, if it does not heal.
    pub(super) fn stuck(&self, s: &State) -> Option<Box<State>> {
        let gone = || self.nodes().filter(|gone| self.may_go_on(s, *gone));
        self.comes_to(s, None).err().or_else(|| gone().find_map(|gone| self.comes_to(s, Some(gone)).err()))
    }

    /// Whether clients can write again though a node is gone for good, wherever what remains may lead.
    pub(super) fn goes_on(&self, s: &State) -> bool {
        self.nodes().filter(|gone| self.may_go_on(s, *gone)).all(|gone| self.comes_to(s, Some(gone)).is_ok())
    }

    /// Whether the rules let somebody lead when a node is gone: the leader itself, its heir, or enough of the
    /// sync set.
    fn may_go_on(&self, s: &State, gone: NodeId) -> bool {
        let lives = |n: NodeId| n != NOBODY && n != gone && !s.node(n).rewinding;
        if lives(s.doc.leader) || s.doc.leader == NOBODY && lives(s.doc.heir) {
            return true;
        }
        let members = s.doc.set.iter().filter(|(n, life)| lives(*n) && s.node(*n).life == *life).count();
        members > 0 && members >= self.mind.pledges_needed(&s.doc)
    }

    fn comes_to(&self, s: &State, gone: Option<NodeId>) -> Result<(), Box<State>> {
        let mut now = *s;
        // What clients did and what may yet go wrong plays no part.
        now.left = Budget::default();
        now.acked.clear();
        now.ghosts.clear();
        now.late = None;
        if let Some(gone) = gone {
            now.end_server(gone);
            now.nodes[usize::from(gone)].agent = Default::default();
        }
        canon::canonical(&mut now, self.bounds.nodes);
        let mut way = HashSet::new();
        let mut waited = false;
        for _ in 0..TURNS {
            let id = fingerprint(&(&now, gone, waited));
            let well = match gone {
                None => self.well(&now),
                Some(gone) => self.writes(&now, gone),
            };
            if well || self.healed.knows(id) {
                self.healed.note(way);
                return Ok(());
            }
            if !way.insert(id) {
                if waited {
                    return Err(Box::new(now));
                }
                waited = true;
                continue;
            }
            for n in self.nodes().filter(|n| Some(*n) != gone) {
                self.turn(&mut now, n, gone, waited);
            }
        }
        Err(Box::new(now))
    }

    /// A node's turn.
    fn turn(&self, now: &mut State, n: NodeId, gone: Option<NodeId>, waited: bool) {
        for _ in 0..STEPS {
            let mut next = None;
            postgres::steps(now, n, &mut |step, mut to| {
                let of_gone = matches!(step, Step::Connect(_, p) if Some(p) == gone);
                if next.is_none() && !of_gone && !matches!(step, Step::Commit(..)) {
                    canon::canonical(&mut to, self.bounds.nodes);
                    next = (to != *now).then_some(to);
                }
            });
            match next {
                Some(to) => *now = to,
                None => break,
            }
        }
        self.agent_turn(now, n, gone, waited);
        canon::canonical(now, self.bounds.nodes);
    }

    fn agent_turn(&self, now: &mut State, n: NodeId, gone: Option<NodeId>, waited: bool) {
        if self.rewound(now, n) {
            return;
        }
        let mut facts = Facts { peers: [Appears::Fresh; NODES], waited, due: false };
        if let Some(gone) = gone {
            let stuck = now.node(n).run == Run::Primary;
            facts.peers[usize::from(gone)] = if stuck { Appears::Stuck } else { Appears::Gone };
        }
        // A leader that has not renewed in this life does; others, when time has passed.
        facts.due = waited || now.node(n).agent.right.is_none_or(|r: Right| r.inherited);
        let (decision, reads) = self.decide_with(now, n, &facts);
        if let Some(t) = decision.decided.swap.and_then(|next| self.conflict(now, n, next)) {
            *now = t;
            canon::canonical(now, self.bounds.nodes);
            return;
        }
        if reads {
            now.node_mut(n).agent = self.mind.hears(n, now.node(n), Heard::Document(now.doc));
            canon::canonical(now, self.bounds.nodes);
        }
        let (decision, _) = if reads { self.decide_with(now, n, &facts) } else { (decision, reads) };
        if let Some(mut to) = self.carry_out(now, n, &decision) {
            canon::canonical(&mut to, self.bounds.nodes);
            *now = to;
        }
        // What was sent and not answered lands.
        let open = now.node(n).agent.attempts.iter().flatten().position(|a| a.fate == Fate::Open);
        if let Some(open) = open {
            let next = now.node(n).agent.attempts[open].map(|a| a.next).unwrap_or_default();
            if let Some(attempt) = &mut now.node_mut(n).agent.attempts[open] {
                attempt.fate = Fate::Landed;
            }
            now.document_becomes(next);
        }
    }

    /// One primary, which leads; all others stream from it and hold what it holds; and one of them guards commits.
    fn well(&self, s: &State) -> bool {
        let leader = s.doc.leader;
        if leader == NOBODY || s.node(leader).agent.seen != Some(s.doc) {
            return false;
        }
        let primary = s.node(leader);
        let follows = |n: NodeId| {
            let node = s.node(n);
            let sender = primary.senders[usize::from(n)];
            node.run == Run::Standby
                && node.upstream == Some(leader)
                && sender.is_some_and(|s| s.attached && s.life == node.life && !s.old_names)
                && node.wal == primary.wal
        };
        primary.run == Run::Primary
            && !primary.stopping
            && primary.agent.right.is_some_and(|r| r.term == s.doc.term)
            && self.nodes().filter(|n| *n != leader).all(follows)
            && self.nodes().all(|n| s.node(n).agent.job.is_none() && s.node(n).agent.attempts[0].is_none())
            && s.doc.acks > 0
            && (primary.names.members, primary.names.count) == (s.doc.set, s.doc.acks)
            && can_acknowledge(s, leader)
    }

    /// Somebody who is not gone leads, and can acknowledge.
    fn writes(&self, s: &State, gone: NodeId) -> bool {
        let leader = s.doc.leader;
        leader != NOBODY && leader != gone && s.node(leader).agent.seen == Some(s.doc) && can_acknowledge(s, leader)
    }
}
