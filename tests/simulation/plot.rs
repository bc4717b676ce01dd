//! [`Plot`]: what an adversary does who sees everything, where chance would hardly ever come upon it.

use pgdock_core::Term;

use super::actor::Fault;
use super::scenario::{MS, Micros, SECOND};
use super::world::{Event, World};

/// What the adversary is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plot {
    /// A leader is cut off from all. Once another has taken over, that one's agent begins anew, does not reach the
    /// witness, and hears only the deposed one, which tells what it read last.
    OldTale,
    /// A leader stands still until its standbys have pledged, and is back for one of them before another takes over.
    EarlyReturn,
}

/// How far the plot has come.
#[derive(Clone, Copy, Debug, Default)]
pub enum Stage {
    /// All is well.
    #[default]
    Quiet,
    /// The leader of a term is silenced.
    Silenced {
        /// Its node.
        leader: usize,
        /// Its term.
        term: Term,
    },
    /// It is back, for one node alone.
    Back {
        /// Its node.
        leader: usize,
        /// For whom.
        other: usize,
        /// When everything is mended.
        until: Micros,
    },
    /// What was plotted goes on until then.
    Waits {
        /// When everything is mended.
        until: Micros,
    },
}

impl World {
    /// The next move of the plot: says how long until the one after it.
    pub(super) fn plot(&mut self, plot: Plot) -> Micros {
        match self.stage {
            Stage::Quiet => {
                if let Some(leader) = self.guarded_leader() {
                    self.note("plot", leader, || "the leader is silenced".into());
                    self.cut_off(leader, plot == Plot::OldTale);
                    self.witness.slow = plot == Plot::EarlyReturn;
                    self.stage = Stage::Silenced { leader, term: self.witness.record.term };
                }
                return self.between(5 * MS, 200 * MS);
            }
            Stage::Silenced { leader, term } if plot == Plot::OldTale => {
                let heir = self.witness.record.leader.clone().map(|l| self.index(&l)).filter(|h| *h != leader);
                if let Some(heir) = heir.filter(|h| self.nodes[*h].pg.primary().is_some() && self.reign(*h) > term) {
                    self.tell_old(leader, heir);
                }
            }
            Stage::Silenced { leader, term } => {
                let version = &self.witness.version;
                let pledged = |n: &super::node::Node| n.durable.pledge.as_ref().is_some_and(|p| p.version == *version);
                if self.witness.record.term > term || self.nodes.iter().filter(|n| pledged(n)).count() > 1 {
                    // One of them is enough to have commits acknowledged.
                    let others: Vec<_> = (0..self.nodes.len()).filter(|n| *n != leader).collect();
                    let other = others[self.between(0, others.len() as u64) as usize];
                    self.note("plot", leader, || format!("is back for n{}", other + 1));
                    self.network.set(leader, other, true, true, false);
                    self.network.set(other, leader, true, true, false);
                    self.stage = Stage::Back { leader, other, until: self.now + self.between(SECOND, 3 * SECOND) };
                    return MS;
                }
                // Its connections last: what comes in meanwhile waits.
                self.nodes[leader].paused_until = self.now + 20 * MS;
                return 5 * MS;
            }
            Stage::Back { leader, other, until } => {
                if self.nodes[other].pg.data.as_ref().is_some_and(|d| d.upstream == Some(leader)) {
                    // It must not think better of it.
                    self.note("pause", other, || "the agent, which attached".into());
                    self.nodes[other].agent_paused_until = until;
                    self.stage = Stage::Waits { until };
                } else if until <= self.now {
                    self.stage = Stage::Waits { until };
                }
                return MS;
            }
            Stage::Waits { until } if until <= self.now => {
                self.note("plot", 0, || "all is mended".into());
                self.network.heal();
                self.witness.slow = false;
                self.stage = Stage::Quiet;
                return self.between(2 * SECOND, 5 * SECOND);
            }
            Stage::Waits { .. } => {}
        }
        self.between(10 * MS, 100 * MS)
    }

    /// A leader that is at work, and all others stream from it.
    fn guarded_leader(&self) -> Option<usize> {
        let record = &self.witness.record;
        let leader = record.leader.clone().map(|l| self.index(&l))?;
        let streams = |node: usize| {
            let stream = self.nodes[node].pg.standby().and_then(|s| s.receiver).map(|i| &self.streams[i]);
            stream.is_some_and(|s| s.primary == leader && s.sends && s.streaming)
        };
        let whole = (0..self.nodes.len()).all(|node| node == leader || streams(node));
        let guarded =
            !record.durability.is_guarded() || record.acks > 0 && record.sync_set.len() + 1 >= self.nodes.len();
        (whole && guarded && self.nodes[leader].pg.primary().is_some()).then_some(leader)
    }

    /// Cuts a node off from all, its PostgreSQL too or not.
    fn cut_off(&mut self, node: usize, postgres: bool) {
        for other in (0..self.nodes.len()).filter(|n| *n != node) {
            self.network.set(node, other, false, true, postgres);
            self.network.set(other, node, false, true, postgres);
        }
        self.network.set_witness(node, false);
    }

    /// The heir's agent begins anew, and hears only whom it deposed.
    fn tell_old(&mut self, leader: usize, heir: usize) {
        self.note("plot", heir, || format!("begins anew, and hears n{} alone", leader + 1));
        self.kill_agent(heir);
        self.cut_off(heir, true);
        self.network.set(leader, heir, true, true, true);
        self.network.set(heir, leader, true, true, true);
        let back = self.between(20 * MS, 500 * MS);
        let life = self.nodes[heir].life;
        self.after(back, Event::Mend(Fault::Agent(heir, life)));
        self.stage = Stage::Waits { until: self.now + self.between(SECOND, 8 * SECOND) };
    }
}
