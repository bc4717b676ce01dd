//! Puts production's [`View`] together from a state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgdock_core::clock::Moment;
use pgdock_core::report::{self, Report as CoreReport};
use pgdock_core::view::{
    Attempt as CoreAttempt, Barrier, Local, Order as CoreOrder, Postgres, Primary, Progress, Right as CoreRight, Seen,
    Sender as CoreSender, Standby, Stopped, Task, View,
};
use pgdock_core::witness::record::Durability;
use pgdock_core::{Lsn, NodeName, Role, Term, TimelineId};

use super::hearing::nonce;
use super::words::history;
use super::{Appears, Facts, Mind, Situation};
use crate::cluster::state::{Agent, Job, Members, NOBODY, NODES, Node, NodeId, Order, Report, Run};

/// The present moment. Nothing is ever compared with it but moments that are made up here.
const NOW: Moment = Moment(Duration::from_secs(1_000_000));
/// Long enough for everything that waits.
const LONG_AGO: Moment = Moment(Duration::from_secs(1));
/// Longer than anything.
const NEVER: Duration = Duration::from_secs(1 << 40);
/// Between two moments whose order counts.
pub(super) const STEP: Duration = Duration::from_millis(10);

impl Mind {
    /// What an agent knows, but for what it finds where clocks are asked.
    pub(super) fn view(&self, node: NodeId, here: &Node) -> View {
        let agent = &here.agent;
        let mut view = View::new(self.names[usize::from(node)].clone(), self.policy.clone());
        view.now = NOW;
        view.witness.answered_at = Some(NOW);
        view.witness.in_flight = agent.waiting;
        view.witness.seen = agent.seen.map(|doc| Seen {
            record: self.record(&doc),
            version: self.version(doc.version),
            since: NOW,
            read_at: read_at(agent),
        });
        let expected = agent.seen.map(|doc| self.version(doc.version));
        for (i, attempt) in agent.attempts.iter().flatten().enumerate() {
            let mut next = self.record(&attempt.next);
            next.nonce = nonce(attempt.next.version, i);
            view.witness.attempts.push(CoreAttempt { expected: expected.clone(), next, sent_at: sent_at(i) });
        }
        let ended = ended_at(here);
        view.right = agent.right.map(|right| {
            let sent_at = match (right.inherited, right.after_end) {
                (true, _) => Moment::default(),
                (_, true) => ended + Duration::from_nanos(1),
                (_, false) => ended - Duration::from_nanos(1),
            };
            CoreRight { term: Term(right.term.into()), sent_at, until: NOW + STEP }
        });
        view.local = self.local(node, here);
        view.durable.pledge = here.pledge.map(|p| self.pledge(node, &p));
        view.durable.rewinding = here.rewinding;
        view.durable.reclone = here.rewinding;
        view.durable.reign = Term(here.reign.into());
        view.took = agent.took.then(|| crash(self.names[usize::from(node == 0)].clone()));
        view.busy = agent.job.map(|job| (task(job), NOW));
        view.order = agent.order.map(|order| match order {
            Order::Switchover(to) => {
                CoreOrder::Switchover { to: (to != NOBODY).then(|| self.names[usize::from(to)].clone()), deadline: NOW }
            }
            Order::Undo => CoreOrder::UndoSwitchover { why: String::new(), deadline: NOW },
        });
        view.barrier = agent.barrier.map(|b| Barrier { names: self.core_names(here.names), lsn: Lsn(b.into()) });
        view
    }

    /// The reports of all peers, fresh ones and the one that is late.
    pub(super) fn reports(&self, at: &Situation) -> [[Option<CoreReport>; 2]; NODES] {
        let mut all: [[Option<CoreReport>; 2]; NODES] = Default::default();
        for (peer, slots) in (0u8..).zip(&mut all) {
            let late = at.late.filter(|(from, _)| *from == peer).map(|(_, report)| report);
            *slots = [at.reports[usize::from(peer)], late].map(|r| r.map(|r| self.report(peer, &r)));
        }
        all
    }

    /// Puts into a view what an agent finds where clocks are asked.
    pub(super) fn finds(
        &self,
        view: &mut View,
        at: &Situation,
        facts: &Facts,
        reports: &[[Option<CoreReport>; 2]; NODES],
    ) {
        view.policy.heartbeat = if facts.due { Duration::ZERO } else { NEVER };
        if let Some(seen) = &mut view.witness.seen {
            seen.since = if facts.waited { LONG_AGO } else { NOW };
        }
        if let Some(CoreOrder::Switchover { deadline, .. } | CoreOrder::UndoSwitchover { deadline, .. }) =
            &mut view.order
        {
            *deadline = if facts.waited { NOW } else { NOW + STEP };
        }
        for peer in (0..self.nodes).filter(|p| *p != usize::from(at.node)) {
            let appears = facts.peers[peer];
            let known = view.peers.get_mut(&self.names[peer]).expect("peers come from the policy");
            let heard = matches!(appears, Appears::Fresh | Appears::Late);
            known.heard_at = Some(if heard { NOW } else { LONG_AGO });
            known.report.clone_from(&reports[peer][usize::from(appears == Appears::Late)]);
        }
        match &mut view.local.postgres {
            // Which of its crashes a peer means is for it to tell.
            Postgres::Stopped(stopped) => {
                let took = view.peers.values_mut().filter_map(|p| p.report.as_mut()?.aid.took.as_mut());
                took.for_each(|crash| crash.at = stopped.ended_at.unwrap_or_default());
            }
            // A WAL receiver ends with the server that it receives from.
            Postgres::Standby(standby) if view.policy.durability == Durability::Async => {
                let upstream = at.here.upstream.and_then(|u| at.reports[usize::from(u)]);
                standby.receiving = upstream.is_some_and(|r| r.run == Run::Primary);
            }
            _ => {}
        }
        for (member, progress) in &mut view.local.progress {
            let stuck = facts.peers[usize::from(self.node(&member.node))] == Appears::Stuck;
            progress.moved_at = if stuck { LONG_AGO } else { NOW };
        }
    }

    fn local(&self, node: NodeId, here: &Node) -> Local {
        let agent = &here.agent;
        let (timeline, end) = (TimelineId(here.wal.timeline().into()), Lsn(here.wal.end().into()));
        let mut progress = BTreeMap::new();
        let postgres = match here.run {
            Run::Stopped => Postgres::Stopped(Stopped {
                clean: here.clean,
                was_primary: here.was_primary,
                timeline,
                checkpoint: Lsn(here.checkpoint.into()),
                flushed: end,
                ended_at: agent.saw_end.then(|| ended_at(here)),
            }),
            Run::Standby => Postgres::Standby(Standby {
                timeline,
                flushed: end,
                replayed: end,
                end_known: true,
                upstream: here.upstream.map(|u| self.names[usize::from(u)].clone()),
                detached: here.upstream.is_none(),
                receiving: here.upstream.is_some(),
                heard_at: None,
            }),
            Run::Primary => {
                let mut senders = BTreeMap::new();
                let mut settled = true;
                for (peer, sender) in (0u8..).zip(&here.senders) {
                    let Some(sender) = sender else { continue };
                    settled &= !sender.old_names;
                    let flushed = Lsn(sender.flushed.into());
                    let core = CoreSender { streaming: true, flushed, replayed: flushed, replay_lag_ms: None };
                    senders.insert(self.member(peer, sender.life), core);
                }
                // Whoever commits may wait for: whether it gets on is found where clocks are asked.
                let set = agent.seen.map_or(Members::default(), |doc| doc.set);
                let streams = (0u8..).zip(&here.senders).filter_map(|(n, s)| s.map(|s| (n, s.life)));
                for (peer, life) in set.iter().chain(streams) {
                    progress.insert(self.member(peer, life), Progress { flushed: Lsn(0), moved_at: NOW });
                }
                Postgres::Primary(Primary {
                    timeline,
                    flushed: end,
                    history: history(here.wal.timeline(), here.wal.forks()),
                    names: self.core_names(here.names),
                    names_settled: settled,
                    closed: here.closed,
                    senders,
                    slots: BTreeSet::new(),
                })
            }
        };
        Local {
            system_identifier: Some(1),
            incarnation: Some(self.member(node, here.life).incarnation),
            postgres,
            progress,
            closed_at: here.closed.then_some(Lsn(here.began.into())),
            primary_since: (here.run == Run::Primary).then_some(LONG_AGO),
            ..Local::default()
        }
    }

    pub(super) fn report(&self, node: NodeId, r: &Report) -> CoreReport {
        let (role, state) = match r.run {
            Run::Stopped => (Role::Unknown, report::State::Stopped),
            Run::Standby => (Role::Standby, report::State::Streaming),
            Run::Primary => (Role::Primary, report::State::Running),
        };
        let relay = r.relay.map(|swap| {
            let mut next = self.record(&swap.next);
            next.nonce = nonce(swap.next.version, 0);
            Box::new(report::Relay { expected: self.version(swap.expected), next })
        });
        // In a world of two.
        let (me, other) = (self.names[usize::from(node)].clone(), self.names[usize::from(node == 0)].clone());
        let timeline = TimelineId(r.timeline.into());
        let tail = r.serves.then(|| Box::new(report::Tail { heir: other.clone(), crash: crash(me), timeline }));
        let took = r.took.then(|| Box::new(crash(other)));
        let forks = r.forks.iter().copied().filter(|(_, end)| *end > 0);
        CoreReport {
            node: self.names[usize::from(node)].clone(),
            cluster: self.policy.cluster.clone(),
            system_identifier: Some(1),
            incarnation: Some(self.member(node, r.life).incarnation),
            role,
            state,
            timeline: TimelineId(r.timeline.into()),
            flushed: Lsn(r.flushed.into()),
            replayed: Lsn(r.flushed.into()),
            upstream: None,
            history: (r.run == Run::Primary).then(|| history(r.timeline, forks)),
            standbys: Vec::new(),
            witness: r.seen.map(|(version, term)| (version.into(), Term(term.into()))),
            witness_reachable: true,
            // Whoever could campaign may be doing so: that asks others for a pledge, and no more.
            campaign: r.seen.filter(|_| r.run == Run::Standby).map(|(version, _)| self.version(version)),
            pledge: r.pledge.map(|p| self.pledge(node, &p)),
            aid: report::Aid { relay, tail, took, ..report::Aid::default() },
            disk_low: false,
            bundle: None,
            problems: Vec::new(),
        }
    }
}

fn task(job: Job) -> Task {
    match job {
        Job::StartStandby => Task::StartStandby,
        Job::StartPrimary => Task::StartPrimary,
        Job::Detach(_) => Task::Detach,
        Job::Attach(_) => Task::Attach,
        Job::Promote(..) => Task::Promote,
        Job::SetNames(..) => Task::SetNames,
        Job::TakeBarrier(_) => Task::TakeBarrier,
        Job::Stop => Task::Stop,
        Job::Rewind(..) => Task::Rewind,
        Job::Clone(_) => Task::Clone,
        Job::Admit => Task::AdmitClients,
        Job::TakeTail(_) => Task::TakeTail,
    }
}

/// The crash of a node's PostgreSQL: there is one at a time.
fn crash(node: NodeName) -> report::Crash {
    report::Crash { node, session: 0, at: LONG_AGO }
}

/// When the i-th open swap was sent: one after the other.
pub(super) fn sent_at(i: usize) -> Moment {
    NOW - STEP * (20 - 2 * u32::try_from(i).unwrap_or(0))
}

/// When the document was read last: after the swaps for which that is noted, and before the others.
fn read_at(agent: &Agent) -> Moment {
    let read = agent.attempts.iter().flatten().take_while(|a| a.read_since).count();
    sent_at(read) - STEP
}

/// When PostgreSQL was seen to end: after the swaps that were sent before, and before the others.
pub(super) fn ended_at(here: &Node) -> Moment {
    if here.run == Run::Stopped && !here.agent.saw_end {
        // It was so when the agent began.
        return Moment::default();
    }
    let before = here.agent.attempts.iter().flatten().take_while(|a| !a.after_end).count();
    (sent_at(before) - STEP) + STEP / 10
}
