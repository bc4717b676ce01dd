//! The agents' minds: production's [`View`] and [`decide`], put together from a state and taken apart again.
//!
//! Of time nothing is kept but the order of a few moments: whether the document was read after a swap was
//! sent, and whether that was sent after PostgreSQL was seen to end. All else that rests on clocks, such as
//! who is silent for how long and whether it is time to renew, is a *fact* that anybody may find at any
//! moment: [`Mind::decisions`] tries all of them. So the world is checked for all speeds of all clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pgdock_core::clock::Moment;
use pgdock_core::decide::rules::Rules;
use pgdock_core::decide::{Action, decide};
use pgdock_core::node::{Incarnation, Member};
use pgdock_core::postgres::timeline::Fork;
use pgdock_core::report::{self, Report as CoreReport};
use pgdock_core::view::{
    Answer, Attempt as CoreAttempt, Barrier, Local, MemberPolicy, Names as CoreNames, Order as CoreOrder, Policy,
    Postgres, Primary, Progress, Right as CoreRight, Seen, Sender as CoreSender, Standby, Stopped, Task, View,
};
use pgdock_core::witness::record::Durability;
use pgdock_core::witness::{Record, Version as CoreVersion};
use pgdock_core::{History, Lsn, NodeName, Role, Term, TimelineId};

use super::state::{
    Agent, Attempt, Doc, Fate, Job, LIVES, Members, NOBODY, NODES, Names, Node, NodeId, Order, Pledge, Report, Right,
    Run, Version, name,
};
use super::told::Decided;
use crate::known::Known;
use crate::record::blank;

/// The present moment. Nothing is ever compared with it but moments that are made up here.
const NOW: Moment = Moment(Duration::from_secs(1_000_000));
/// Long enough for everything that waits.
const LONG_AGO: Moment = Moment(Duration::from_secs(1));
/// Longer than anything.
const NEVER: Duration = Duration::from_secs(1 << 40);
/// Between two moments whose order counts.
const STEP: Duration = Duration::from_secs(10);

/// What an agent finds where clocks are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Facts {
    /// How each peer appears.
    pub peers: [Appears; NODES],
    /// Whatever is waited for has been waited for long enough.
    pub waited: bool,
    /// It is time to renew.
    pub due: bool,
}

/// How a peer appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Appears {
    /// It was heard just now.
    Fresh,
    /// What was heard last is an old report.
    Late,
    /// It is silent, for long enough to be suspected.
    Gone,
    /// And, as a standby, confirms nothing any more.
    Stuck,
}

/// One thing that an agent may decide.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Decision {
    /// What begins.
    pub decided: Decided,
    /// The order after it, if it changes.
    pub order: Option<Option<Order>>,
}

/// All that an agent may decide where it stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Decisions {
    /// Each that changes something.
    pub all: Vec<Decision>,
    /// It may read the document.
    pub reads: bool,
}

/// What a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Situation {
    node: NodeId,
    here: Node,
    reports: [Option<Report>; NODES],
    late: Option<(NodeId, Report)>,
}

/// What an agent hears, and what it knew before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Hearing {
    node: NodeId,
    agent: Agent,
    stopped: bool,
    heard: Heard,
}

/// How agents think.
#[derive(Debug)]
pub(super) struct Mind {
    nodes: usize,
    policy: Policy,
    members: Vec<Member>,
    names: Vec<NodeName>,
    decisions: Known<Situation, Arc<Decisions>>,
    single: Known<(Situation, Facts), (Decision, bool)>,
    hearings: Known<Hearing, Agent>,
}

impl Mind {
    /// Agents of so many nodes, under some rules.
    #[must_use]
    pub(super) fn new(nodes: usize, durability: Durability, acks: u32, rules: Rules) -> Self {
        let names: Vec<_> = (0..3).map(|n| NodeName::new(name(n)).expect("a letter and a digit")).collect();
        let member = |(i, node): (usize, &NodeName)| {
            let life = move |life| u32::try_from(i).unwrap_or(0) * 16 + u32::from(life);
            let node = node.clone();
            (0..LIVES).map(move |l| Member { node: node.clone(), incarnation: Incarnation(life(l)) })
        };
        let members = names.iter().enumerate().flat_map(member).collect();
        let policy = Policy {
            cluster: "model".into(),
            durability,
            acks,
            strict: false,
            heartbeat: Duration::ZERO,
            ttl: STEP / 2,
            margin: STEP / 10,
            silent_after: STEP,
            suspect_after: STEP * 2,
            lag_bytes_max: 0,
            members: names[..nodes]
                .iter()
                .map(|n| (n.clone(), MemberPolicy { priority: 100, failover: true, address: String::new() }))
                .collect(),
            rejoin_budget: STEP,
            disk_free_min: 0,
            failover_ip: false,
            rules,
        };
        Self { nodes, policy, members, names, decisions: Known::new(), single: Known::new(), hearings: Known::new() }
    }

    /// All that an agent may decide, whatever it finds where clocks are asked.
    pub(super) fn decisions(
        &self,
        node: NodeId,
        here: &Node,
        reports: &[Option<Report>; NODES],
        late: Option<(NodeId, Report)>,
    ) -> Arc<Decisions> {
        let situation = Situation { node, here: *here, reports: *reports, late };
        self.decisions.get(situation, |at| Arc::new(self.think(at)))
    }

    /// What an agent decides with given facts, and whether it reads the document.
    pub(super) fn decision(
        &self,
        node: NodeId,
        here: &Node,
        reports: &[Option<Report>; NODES],
        facts: &Facts,
    ) -> (Decision, bool) {
        let situation = Situation { node, here: *here, reports: *reports, late: None };
        self.single.get((situation, *facts), |(at, facts)| {
            let mut view = self.view(at.node, &at.here);
            self.finds(&mut view, at, facts, &self.reports(at));
            self.decide(at, &view, facts)
        })
    }

    /// How many pledges a takeover needs.
    pub(super) fn pledges_needed(&self, doc: &Doc) -> usize {
        self.record(doc).pledges_needed()
    }

    fn think(&self, at: &Situation) -> Decisions {
        let mut found = Decisions::default();
        let mut appear = vec![[Appears::Fresh; NODES]];
        for peer in (0..self.nodes).filter(|p| *p != usize::from(at.node)) {
            let mut ways = vec![Appears::Fresh, Appears::Gone];
            if at.here.run == Run::Primary {
                ways.push(Appears::Stuck);
            }
            if at.late.is_some_and(|(from, _)| usize::from(from) == peer) {
                ways.push(Appears::Late);
            }
            let with = |base: &[Appears; NODES]| {
                let mut all = *base;
                ways.iter()
                    .map(move |way| {
                        all[peer] = *way;
                        all
                    })
                    .collect::<Vec<_>>()
            };
            appear = appear.iter().flat_map(with).collect();
        }
        let leads = at.here.agent.seen.is_some_and(|d| d.leader == at.node);
        let mut view = self.view(at.node, &at.here);
        let reports = self.reports(at);
        for waited in [false, true] {
            for due in [false, true] {
                if due && !leads {
                    continue;
                }
                for peers in &appear {
                    let facts = Facts { peers: *peers, waited, due };
                    self.finds(&mut view, at, &facts, &reports);
                    let (decision, reads) = self.decide(at, &view, &facts);
                    found.reads |= reads;
                    let same = |d: &Decision| {
                        let decided = Decided { gone: d.decided.gone, ..decision.decided };
                        d.decided == decided && d.order == decision.order
                    };
                    let idle = decision.order.is_none()
                        && decision.decided == Decided { gone: decision.decided.gone, ..Decided::default() };
                    if !idle && !found.all.iter().any(same) {
                        found.all.push(decision);
                    }
                }
            }
        }
        found
    }

    /// What an agent decides with given facts, and whether it reads the document.
    fn decide(&self, at: &Situation, view: &View, facts: &Facts) -> (Decision, bool) {
        let d = decide(view);
        let mut decided = Decided::default();
        let mut reads = false;
        for action in d.actions {
            match action {
                Action::ReadWitness => reads = true,
                Action::SwapWitness { next, .. } => decided.swap = Some(self.doc(&next)),
                Action::Fence { .. } => decided.fence = true,
                action => decided.job = self.job(action).or(decided.job),
            }
        }
        let order = match (&d.verdict, &d.order) {
            (Some(_), _) => Some(None),
            (None, Some(order)) => {
                let order = match order {
                    CoreOrder::Switchover { to: Some(to), .. } => Order::Switchover(self.node(to)),
                    CoreOrder::UndoSwitchover { .. } => Order::Undo,
                    _ => Order::Switchover(NOBODY),
                };
                (at.here.agent.order != Some(order)).then_some(Some(order))
            }
            (None, None) => None,
        };
        decided.verdict = d.verdict.is_some();
        for (peer, appears) in facts.peers.iter().enumerate() {
            if matches!(appears, Appears::Gone | Appears::Stuck) {
                decided.gone |= 1 << peer;
            }
        }
        (Decision { decided, order }, reads)
    }

    fn job(&self, action: Action) -> Option<Job> {
        Some(match action {
            Action::StartStandby { .. } => Job::StartStandby,
            Action::StartPrimary => Job::StartPrimary,
            Action::Detach { pledge } => Job::Detach(pledge.map(|v| version(&v))),
            Action::Attach { upstream } => Job::Attach(self.node(&upstream)),
            Action::Promote { names, timeline } => Job::Promote(self.names(&names), position(timeline.0.into())),
            Action::SetNames(names) => Job::SetNames(self.names(&names)),
            Action::TakeBarrier { from_none } => Job::TakeBarrier(from_none),
            Action::Stop { .. } => Job::Stop,
            Action::Rewind { from, .. } => Job::Rewind(self.node(&from)),
            Action::Clone { from, .. } => Job::Clone(self.node(&from)),
            _ => return None,
        })
    }

    /// What an agent knows after an answer of the witness.
    #[must_use]
    pub(super) fn hears(&self, node: NodeId, here: &Node, heard: Heard) -> Agent {
        let stopped = here.run == Run::Stopped;
        self.hearings.get(Hearing { node, agent: here.agent, stopped, heard }, |h| self.hear(h))
    }

    fn hear(&self, hearing: &Hearing) -> Agent {
        let Hearing { node, agent, stopped, heard } = hearing;
        let run = if *stopped { Run::Stopped } else { Run::Standby };
        let here = &Node { agent: *agent, run, ..Node::default() };
        let mut view = self.view(*node, here);
        let ended = ended_at(here);
        let answer = match heard {
            Heard::Document(doc) => {
                // The attempt that made it, if one of this agent's own did.
                let own = (0..)
                    .zip(agent.attempts.iter().flatten())
                    .find(|(_, a)| a.fate == Fate::Landed && a.next.version == doc.version);
                let mut record = self.record(doc);
                if let Some((i, a)) = own {
                    record.nonce = nonce(a.next.version, i);
                }
                Answer::Read(Ok(Some((record, self.version(doc.version)))))
            }
            Heard::Landed => {
                let last = agent.attempts.iter().flatten().next_back().expect("an answer is to a swap");
                Answer::Committed(self.version(last.next.version))
            }
            Heard::Conflict => Answer::Conflict,
            Heard::Nothing => Answer::Ambiguous("no answer".into()),
        };
        if agent.waiting {
            view.witness.in_flight = true;
        }
        view.witness_answered(answer);
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
            left: 0,
        });
        after
    }

    /// What an agent knows, but for what it finds where clocks are asked.
    fn view(&self, node: NodeId, here: &Node) -> View {
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
    fn reports(&self, at: &Situation) -> [[Option<CoreReport>; 2]; NODES] {
        let mut all: [[Option<CoreReport>; 2]; NODES] = Default::default();
        for (peer, slots) in (0u8..).zip(&mut all) {
            let late = at.late.filter(|(from, _)| *from == peer).map(|(_, report)| report);
            *slots = [at.reports[usize::from(peer)], late].map(|r| r.map(|r| self.report(peer, &r)));
        }
        all
    }

    /// Puts into a view what an agent finds where clocks are asked.
    fn finds(&self, view: &mut View, at: &Situation, facts: &Facts, reports: &[[Option<CoreReport>; 2]; NODES]) {
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
            primary_since: (here.run == Run::Primary).then_some(LONG_AGO),
            ..Local::default()
        }
    }

    fn report(&self, node: NodeId, r: &Report) -> CoreReport {
        let (role, state) = match r.run {
            Run::Stopped => (Role::Unknown, report::State::Stopped),
            Run::Standby => (Role::Standby, report::State::Streaming),
            Run::Primary => (Role::Primary, report::State::Running),
        };
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
            aid: report::Aid::default(),
            disk_low: false,
            bundle: None,
            problems: Vec::new(),
        }
    }

    fn pledge(&self, node: NodeId, p: &Pledge) -> report::Pledge {
        report::Pledge {
            version: self.version(p.version),
            member: self.member(node, p.life),
            timeline: TimelineId(p.timeline.into()),
            flushed: Lsn(p.flushed.into()),
        }
    }

    fn member(&self, node: NodeId, life: u8) -> Member {
        self.members[usize::from(node * LIVES + life)].clone()
    }

    fn node(&self, name: &NodeName) -> NodeId {
        self.names.iter().position(|n| n == name).map_or(NOBODY, |i| u8::try_from(i).unwrap_or(NOBODY))
    }

    fn version(&self, version: Version) -> CoreVersion {
        CoreVersion(version.to_string())
    }

    fn core_members(&self, set: Members) -> BTreeSet<Member> {
        set.iter().map(|(node, life)| self.member(node, life)).collect()
    }

    fn set(&self, set: &BTreeSet<Member>) -> Members {
        set.iter().fold(Members::default(), |all, m| {
            all.with(self.node(&m.node), u8::try_from(m.incarnation.0 % 16).unwrap_or(0))
        })
    }

    fn core_names(&self, names: Names) -> CoreNames {
        CoreNames { members: self.core_members(names.members), count: names.count.into() }
    }

    fn names(&self, names: &CoreNames) -> Names {
        Names { members: self.set(&names.members), count: u8::try_from(names.count).unwrap_or(u8::MAX) }
    }

    /// The document for production.
    fn record(&self, doc: &Doc) -> Record {
        let name = |node: NodeId| (node != NOBODY).then(|| self.names[usize::from(node)].clone());
        Record {
            cluster: self.policy.cluster.clone(),
            term: Term(doc.term.into()),
            leader: name(doc.leader),
            heartbeat: doc.version.into(),
            nonce: "another's".into(),
            ttl: self.policy.ttl,
            durability: self.policy.durability,
            sync_set: self.core_members(doc.set),
            acks: doc.acks.into(),
            handoff_to: name(doc.heir),
            timeline: TimelineId(doc.timeline.into()),
            leader_lsn: Lsn(doc.lsn.into()),
            members: self.policy.members.iter().map(|(n, m)| (n.clone(), m.address.clone())).collect(),
            history: History::new(TimelineId(doc.history.into())),
            ..blank()
        }
    }

    /// The document of production.
    fn doc(&self, record: &Record) -> Doc {
        let node = |name: Option<&NodeName>| name.map_or(NOBODY, |n| self.node(n));
        Doc {
            version: position(record.heartbeat),
            term: position(record.term.0),
            leader: node(record.leader.as_ref()),
            heir: node(record.handoff_to.as_ref()),
            set: self.set(&record.sync_set),
            acks: u8::try_from(record.acks).unwrap_or(u8::MAX),
            timeline: position(record.timeline.0.into()),
            history: position(record.history.timeline.0.into()),
            // Only patience reads it, and in this world there is none.
            lsn: 0,
        }
    }
}

/// How a request to the witness ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Heard {
    /// A read shows the document.
    Document(Doc),
    /// The last swap landed.
    Landed,
    /// It did not.
    Conflict,
    /// Nobody knows.
    Nothing,
}

fn history(timeline: u8, forks: impl Iterator<Item = (u8, u8)>) -> History {
    let fork = |(timeline, end): (u8, u8)| Fork { timeline: TimelineId(timeline.into()), end: Lsn(end.into()) };
    History { timeline: TimelineId(timeline.into()), forks: forks.map(fork).collect() }
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
    }
}

fn nonce(version: Version, attempt: usize) -> String {
    format!("{version} {attempt}")
}

/// Which of the agent's attempts a nonce belongs to.
fn number(nonce: &str) -> usize {
    nonce.split_once(' ').and_then(|(_, n)| n.parse().ok()).unwrap_or(usize::MAX)
}

fn version(version: &CoreVersion) -> Version {
    version.0.parse().expect("versions are numbers")
}

fn position(number: u64) -> u8 {
    u8::try_from(number).expect("bounded")
}

/// When the i-th open swap was sent: one after the other.
fn sent_at(i: usize) -> Moment {
    NOW - STEP * (20 - 2 * u32::try_from(i).unwrap_or(0))
}

/// When the document was read last: after the swaps for which that is noted, and before the others.
fn read_at(agent: &Agent) -> Moment {
    let read = agent.attempts.iter().flatten().take_while(|a| a.read_since).count();
    sent_at(read) - STEP
}

/// When PostgreSQL was seen to end: after the swaps that were sent before, and before the others.
fn ended_at(here: &Node) -> Moment {
    if here.run == Run::Stopped && !here.agent.saw_end {
        // It was so when the agent began.
        return Moment::default();
    }
    let before = here.agent.attempts.iter().flatten().take_while(|a| !a.after_end).count();
    (sent_at(before) - STEP) + Duration::from_secs(1)
}
