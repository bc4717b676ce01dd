//! How a node's data directory is made anew: `pg_rewind`, or a copy of the primary's.

use pgdock_core::Lsn;
use pgdock_core::report::Tail;
use pgdock_core::view::Names;

use super::job::Next;
use super::scenario::MS;
use super::world::World;

impl World {
    pub(super) fn rewind(&mut self, node: usize, from: usize, step: u32) -> Next {
        match step {
            0 => {
                self.nodes[node].durable.rewinding = true;
                self.stop_in_order(node, 0, false);
                Next::Step(self.between(100 * MS, 900 * MS))
            }
            _ => {
                let fails = !self.healing && self.chance(0.15);
                if fails || !self.take_from(node, from) {
                    self.nodes[node].durable.reclone = true;
                } else {
                    self.nodes[node].durable.rewinding = false;
                }
                Next::Done
            }
        }
    }

    pub(super) fn copy(&mut self, node: usize, from: usize, step: u32) -> Next {
        if step == 0 {
            return Next::Step(self.between(200 * MS, 1_500 * MS));
        }
        let source_there = self.reaches(node, from);
        if source_there && (self.healing || !self.chance(0.1)) {
            if self.nodes[node].pg.runs() {
                self.end_server(node, true);
            }
            self.take_from(node, from);
            self.nodes[node].durable.rewinding = false;
            self.nodes[node].durable.reclone = false;
        }
        Next::Done
    }

    /// The agent of a primary that crashed sends the WAL that its files hold, and a standby adds it to its own.
    pub(super) fn take_tail(&mut self, node: usize, tail: &Tail, step: u32) -> Next {
        let from = self.index(&tail.crash.node);
        let fsync = self.scenario.fsync;
        match step {
            // There and back, and to disk.
            0 => Next::Step(
                self.network.delay(&mut self.rng) + self.network.delay(&mut self.rng) + self.between(200, fsync),
            ),
            _ => {
                let (source, open) = (&self.nodes[from], self.network.agents(from, node));
                let serves = source.host_up
                    && source.paused_until.max(source.agent_paused_until) <= self.now
                    && source.agent.as_ref().is_some_and(|a| a.view.session == tail.crash.session)
                    && !source.pg.runs();
                let (Some(theirs), Some(mine)) = (&source.pg.data, &self.nodes[node].pg.data) else {
                    return Next::Done;
                };
                let receives = self.nodes[node].pg.standby().is_none_or(|s| s.receiver.is_some());
                let fits = theirs.history == mine.history && theirs.wal.starts_with(&mine.wal);
                if !serves || !open || !self.network.agents(node, from) || receives || !fits {
                    return Next::Done;
                }
                let rest = theirs.wal[mine.wal.len()..].to_vec();
                self.note("tail", node, || format!("{} records of n{}", rest.len(), from + 1));
                if let Some(data) = &mut self.nodes[node].pg.data {
                    data.wal.extend(rest);
                }
                if let Some(agent) = &mut self.nodes[node].agent {
                    agent.view.took = Some(tail.crash.clone());
                }
                Next::Done
            }
        }
    }

    fn reaches(&self, node: usize, from: usize) -> bool {
        let source = &self.nodes[from];
        source.host_up
            && source.paused_until <= self.now
            && source.pg.primary().is_some_and(|p| !p.stopping)
            && self.network.postgres(node, from)
            && self.network.postgres(from, node)
    }

    /// Makes a stopped data directory that of a primary, as after `pg_rewind` or `pg_basebackup`.
    fn take_from(&mut self, node: usize, from: usize) -> bool {
        if !self.reaches(node, from) || self.nodes[node].pg.runs() {
            return false;
        }
        let incarnation = self.fresh_incarnation();
        let Some(mut data) = self.nodes[from].pg.data.clone() else { return false };
        data.incarnation = incarnation;
        data.upstream = None;
        data.was_primary = false;
        data.clean = false;
        data.names = Names::none();
        data.slots.clear();
        data.checkpoint = data.end().min(Lsn(data.end().0.saturating_sub(1)));
        self.nodes[node].pg.data = Some(data);
        true
    }
}
