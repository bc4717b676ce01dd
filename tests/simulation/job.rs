//! The PostgreSQL lane: what actions do to a model PostgreSQL, step by step, so that faults find them
//! half done.

use pgdock_core::TimelineId;
use pgdock_core::decide::Action;
use pgdock_core::report::Pledge;
use pgdock_core::view::{Barrier, Names, Task};

use super::invariants;
use super::postgres::{PrimaryRun, Run, StandbyRun};
use super::replication::RETRY;
use super::scenario::{MS, Micros, SECOND};
use super::world::{Event, Process, World};

/// An action under way.
#[derive(Debug)]
pub struct Job {
    /// Which one.
    pub number: u64,
    /// What it is.
    pub action: Action,
    /// What the view calls it.
    pub task: Task,
    /// How many steps it has made.
    pub step: u32,
    /// When it began.
    pub since: Micros,
}

/// What a step leads to.
pub(super) enum Next {
    /// Another step, after a while.
    Step(Micros),
    /// The end.
    Done,
}

impl World {
    /// Starts an action; whatever runs is given up.
    pub(super) fn start_job(&mut self, node: usize, action: Action) {
        let Some(task) = action.task() else { return };
        let (number, now, life) = (self.fresh(), self.nodes[node].moment(self.now), self.nodes[node].life);
        let text = format!("{action:?}");
        self.note("do", node, || text);
        let since = self.now;
        let Some(agent) = &mut self.nodes[node].agent else { return };
        agent.view.busy = Some((task, now));
        if task == Task::SetNames {
            agent.view.barrier = None;
        }
        agent.job = Some(Job { number, action, task, step: 0, since });
        let delay = self.between(500, 4 * MS);
        self.after(delay, Event::Job { node, life, job: number });
    }

    pub(super) fn job_step(&mut self, node: usize, life: u64, number: u64) {
        let n = &mut self.nodes[node];
        if n.life != life {
            return;
        }
        let Some(agent) = &mut n.agent else { return };
        let Some(mut job) = agent.job.take_if(|j| j.number == number) else { return };
        let next = self.step(node, &job);
        job.step += 1;
        let (life, task) = (self.nodes[node].life, job.task);
        let Some(agent) = &mut self.nodes[node].agent else { return };
        match next {
            Next::Step(delay) => {
                agent.job = Some(job);
                self.after(delay, Event::Job { node, life, job: number });
            }
            Next::Done => {
                agent.view.busy = None;
                agent.observed = None;
                self.note("done", node, || format!("{task:?}"));
                self.drive(node);
            }
        }
    }

    fn step(&mut self, node: usize, job: &Job) -> Next {
        match (&job.action, job.step) {
            // The model's rewind leaves a data directory that needs no more WAL.
            (Action::StartStandby { .. }, 0) => self.start_server(node, false),
            (Action::StartPrimary, 0) => {
                self.write_reign(node);
                self.start_server(node, true)
            }
            (Action::StartStandby { .. } | Action::StartPrimary, _) => self.await_server(node, job),
            (Action::Fence { .. }, 0) => {
                invariants::outage::killed(self, node);
                self.kill_postgres(node, true);
                Next::Step(self.between(MS, 15 * MS))
            }
            (Action::Detach { .. }, 0) => {
                if self.nodes[node].pg.standby().is_none() {
                    return Next::Done;
                }
                if let Some(data) = &mut self.nodes[node].pg.data {
                    data.upstream = None;
                }
                // The receiver goes a moment later; what it flushes until then is kept.
                Next::Step(self.between(MS, 20 * MS))
            }
            (Action::Detach { .. }, 1) => {
                if let Some(stream) = self.nodes[node].pg.standby().and_then(|s| s.receiver) {
                    self.close(stream, false);
                }
                Next::Step(self.between(MS, 5 * MS))
            }
            (Action::Detach { pledge }, _) => {
                let now = &self.nodes[node];
                if let (Some(version), Some(data), Some(member), Some(s)) =
                    (pledge, &now.pg.data, now.pg.member(node), now.pg.standby())
                    && s.receiver.is_none()
                    && data.upstream.is_none()
                {
                    let pledge = Pledge {
                        version: version.clone(),
                        member,
                        timeline: data.history.timeline,
                        flushed: data.end(),
                    };
                    self.nodes[node].durable.pledge = Some(pledge);
                }
                Next::Done
            }
            (Action::Attach { upstream }, 0) => {
                let upstream = self.index(upstream);
                let number = self.nodes[node].pg.number;
                if self.nodes[node].pg.standby().is_none() {
                    return Next::Done;
                }
                if let Some(stream) = self.nodes[node].pg.standby().and_then(|s| s.receiver) {
                    self.close(stream, false);
                }
                if let Some(data) = &mut self.nodes[node].pg.data {
                    data.upstream = Some(upstream);
                }
                self.after(RETRY / 2, Event::Connect { node, number });
                Next::Step(self.between(MS, 10 * MS))
            }
            (Action::Promote { names, timeline }, 0) => {
                if self.nodes[node].pg.standby().is_none_or(|s| s.receiver.is_some()) {
                    return Next::Done;
                }
                self.write_reign(node);
                let pg = &mut self.nodes[node].pg;
                let number = pg.number;
                if let Some(data) = &mut pg.data {
                    data.names = names.clone();
                }
                // From here on it goes its way, whatever becomes of the agent.
                let delay = self.between(20 * MS, 120 * MS);
                self.after(delay, Event::Promoted { node, number, timeline: *timeline });
                Next::Step(delay)
            }
            (Action::Promote { .. }, _) => {
                let under_way = self.nodes[node].pg.standby().is_some();
                if under_way { Next::Step(5 * MS) } else { Next::Done }
            }
            (Action::SetNames(names), 0) => {
                self.set_names(node, names);
                Next::Step(5 * MS)
            }
            (Action::SetNames(_), _) => {
                if self.settled(node) {
                    Next::Done
                } else {
                    Next::Step(10 * MS)
                }
            }
            (Action::AdmitClients, 0) => Next::Step(self.between(MS, 20 * MS)),
            (Action::AdmitClients, _) => self.admit_clients(node),
            (Action::TakeBarrier { from_none }, _) => self.take_barrier(node, *from_none),
            (Action::Stop { budget, .. }, step) => {
                let budget = u64::try_from(budget.as_micros()).unwrap_or(u64::MAX);
                self.stop_in_order(node, step, self.now - job.since >= budget)
            }
            (Action::TakeTail { tail }, step) => self.take_tail(node, tail, step),
            (Action::Rewind { from, .. }, step) => {
                let from = self.index(from);
                self.rewind(node, from, step)
            }
            (Action::Clone { from, .. }, step) => {
                let from = self.index(from);
                self.copy(node, from, step)
            }
            _ => Next::Done,
        }
    }

    fn write_reign(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if let Some(record) = n.agent.as_ref().and_then(|a| a.view.witness.record()) {
            n.durable.reign = record.term;
        }
    }

    fn start_server(&mut self, node: usize, primary: bool) -> Next {
        let pg = &mut self.nodes[node].pg;
        if pg.runs() || pg.data.is_none() {
            return Next::Done;
        }
        if let Some(data) = &mut pg.data {
            data.clean = false;
            if !primary {
                // Started attached to nobody.
                data.upstream = None;
            }
        }
        pg.number += 1;
        pg.run = Run::Starting { primary };
        let number = pg.number;
        if !self.healing && self.chance(0.03) {
            // It does not come up.
            self.kill_postgres(node, true);
            if let Some(agent) = &mut self.nodes[node].agent {
                agent.start_failures += 1;
            }
            return Next::Done;
        }
        let delay = self.between(20 * MS, 400 * MS);
        self.after(delay, Event::Up { node, number });
        Next::Step(delay + MS)
    }

    fn await_server(&mut self, node: usize, job: &Job) -> Next {
        match self.nodes[node].pg.run {
            Run::Starting { .. } if self.now - job.since < 10 * SECOND => Next::Step(20 * MS),
            Run::Starting { .. } | Run::Stopped => Next::Done,
            _ => {
                if let Some(agent) = &mut self.nodes[node].agent {
                    agent.start_failures = 0;
                }
                Next::Done
            }
        }
    }

    /// A server has come up.
    pub(super) fn server_up(&mut self, node: usize, number: u64) {
        let pg = &mut self.nodes[node].pg;
        let (Run::Starting { primary }, Some(data)) = (&pg.run, &mut pg.data) else { return };
        if pg.number != number {
            return;
        }
        let primary = *primary;
        data.was_primary = primary;
        data.checkpoint = data.end();
        if primary {
            let names = data.names.clone();
            let run = PrimaryRun { waits: names.count > 0, names, closed: true, ..PrimaryRun::default() };
            pg.run = Run::Primary(run);
            self.note("primary", node, || "in place".into());
            invariants::becomes_primary(self, node);
        } else {
            pg.run = Run::Standby(StandbyRun::default());
            self.note("standby", node, String::new);
            let delay = self.between(0, 150 * MS);
            self.after(delay, Event::Replayed { node, number });
        }
        self.kick(node, MS);
    }

    /// A standby has replayed all that lay there.
    pub(super) fn server_replayed(&mut self, node: usize, number: u64) {
        if self.nodes[node].pg.number == number
            && let Some(s) = self.nodes[node].pg.standby_mut()
        {
            s.end_known = true;
        }
    }

    /// Kills a server. `told`: its host lives on.
    pub fn kill_postgres(&mut self, node: usize, told: bool) {
        if !self.nodes[node].pg.runs() {
            return;
        }
        self.note("killed", node, || "PostgreSQL".into());
        self.end_server(node, told);
    }

    pub(super) fn end_server(&mut self, node: usize, told: bool) {
        self.close_all(node, told);
        let clock = self.nodes[node].clock(self.now);
        let pg = &mut self.nodes[node].pg;
        pg.run = Run::Stopped;
        pg.number += 1;
        pg.ended_at = clock;
        self.kick(node, MS);
    }

    /// A standby that was told to leave recovery has replayed all that it has, and does so.
    pub(super) fn promoted(&mut self, node: usize, number: u64, timeline: TimelineId) {
        let id = self.fresh();
        let pg = &mut self.nodes[node].pg;
        let (Run::Standby(s), Some(data)) = (&pg.run, &mut pg.data) else { return };
        if pg.number != number {
            return;
        }
        if !s.end_known {
            self.after(5 * MS, Event::Promoted { node, number, timeline });
            return;
        }
        data.fork(timeline);
        data.append(id, 100);
        data.was_primary = true;
        let names = data.names.clone();
        let end = data.end();
        let closed = !names.members.is_empty();
        pg.run = Run::Primary(PrimaryRun { waits: names.count > 0, names, closed, ..PrimaryRun::default() });
        self.note("primary", node, || format!("promoted to timeline {timeline} at {end}"));
        invariants::becomes_primary(self, node);
        if !closed {
            invariants::seen_survives::admitted(self, node);
        }
    }

    fn set_names(&mut self, node: usize, names: &Names) {
        let pg = &mut self.nodes[node].pg;
        let number = pg.number;
        let (Run::Primary(_), Some(data)) = (&pg.run, &mut pg.data) else { return };
        data.names = names.clone();
        let delay = self.between(200, 3 * MS);
        self.after(delay, Event::Adopt { node, number, process: Process::Postmaster });
    }

    fn settled(&self, node: usize) -> bool {
        let pg = &self.nodes[node].pg;
        let (Run::Primary(run), Some(data)) = (&pg.run, &pg.data) else { return true };
        run.names == data.names && run.senders.iter().all(|s| self.streams[*s].names == data.names)
    }

    /// Lets clients in, once it is certain that commits wait where they should.
    fn admit_clients(&mut self, node: usize) -> Next {
        let pg = &mut self.nodes[node].pg;
        let (Run::Primary(run), Some(data)) = (&mut pg.run, &pg.data) else { return Next::Done };
        if run.waits != (data.names.count > 0) {
            return Next::Step(10 * MS);
        }
        if std::mem::take(&mut run.closed) {
            self.note("clients", node, || "are let in".into());
            invariants::seen_survives::admitted(self, node);
        }
        Next::Done
    }

    fn take_barrier(&mut self, node: usize, from_none: bool) -> Next {
        let pg = &self.nodes[node].pg;
        let (Run::Primary(run), Some(data)) = (&pg.run, &pg.data) else { return Next::Done };
        let noticed = !from_none || run.waits == (data.names.count > 0);
        if !self.settled(node) || !noticed {
            return Next::Step(10 * MS);
        }
        let barrier = Barrier { names: data.names.clone(), lsn: data.end() };
        if let Some(agent) = &mut self.nodes[node].agent {
            agent.view.barrier = Some(barrier);
        }
        Next::Done
    }

    pub(super) fn stop_in_order(&mut self, node: usize, step: u32, over_budget: bool) -> Next {
        let pg = &mut self.nodes[node].pg;
        let number = pg.number;
        if step == 0 {
            match &mut pg.run {
                Run::Primary(run) => {
                    // Clients that wait are cut off: what became of their commits they are not told.
                    run.stopping = true;
                    run.waiting.clear();
                    let delay = if self.chance(0.1) { 20 * SECOND } else { self.between(20 * MS, 300 * MS) };
                    self.after(delay, Event::Stopping { node, number });
                }
                Run::Standby(_) => {
                    if let Some(data) = &mut pg.data {
                        data.clean = true;
                    }
                    self.end_server(node, true);
                    return Next::Done;
                }
                _ => {
                    self.kill_postgres(node, true);
                    return Next::Done;
                }
            }
        }
        if !self.nodes[node].pg.runs() {
            return Next::Done;
        }
        if over_budget {
            self.kill_postgres(node, true);
            return Next::Done;
        }
        Next::Step(10 * MS)
    }

    /// A shutdown in order: the checkpoint is written, and the WAL senders wait until it has arrived.
    pub(super) fn stopping(&mut self, node: usize, number: u64) {
        let id = self.fresh();
        let pg = &mut self.nodes[node].pg;
        if pg.number != number {
            return;
        }
        let (Run::Primary(run), Some(data)) = (&mut pg.run, &mut pg.data) else { return };
        let senders = run.senders.clone();
        if !data.clean {
            data.clean = true;
            data.checkpoint = data.end();
            data.append(id, 120);
        }
        let end = data.end();
        for stream in &senders {
            self.pump(*stream, false);
        }
        if senders.iter().all(|s| self.streams[*s].flushed >= end) {
            self.note("stopped", node, || "in order".into());
            self.end_server(node, true);
        } else {
            self.after(10 * MS, Event::Stopping { node, number });
        }
    }
}
