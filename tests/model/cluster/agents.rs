//! What agents do: decide, and carry out what they decided.

use super::mind::{Decision, Decisions, Facts, Heard};
use super::state::{Agent, Attempt, Doc, Job, NOBODY, NODES, NodeId, Order, Pledge, Relay, Report, Right, Run, State};
use super::told::{Decided, Step};
use super::{Cluster, state};
use crate::attempt::Fate;
use pgdock_core::witness::record::Durability;

impl Cluster {
    /// The steps of a node's agent.
    pub(super) fn agent_steps(&self, s: &State, n: NodeId, add: &mut impl FnMut(Step, State)) {
        let node = s.node(n);
        let (reports, late) = self.heard(s, n);
        let decisions = self.mind.decisions(n, node, &reports, late);
        if decisions.reads {
            let mut t = *s;
            t.node_mut(n).agent = self.mind.hears(n, node, Heard::Document(s.doc));
            add(Step::Read(n, s.doc.version), t);
        } else if let Some(next) = decisions.all.iter().find_map(|d| d.decided.swap)
            && let Some(t) = self.conflict(s, n, next)
        {
            add(Step::Conflict(n, s.doc.version), t);
        }
        if self.bounds.tells {
            self.aid(s, n, &decisions, add);
        }
        for decision in &decisions.all {
            let decided = Decided { relay: None, ..decision.decided };
            let Some(next) = decided.swap else {
                if let Some(t) = self.carry_out(s, n, decision) {
                    add(Step::Decide(n, decided), t);
                }
                continue;
            };
            let renews = Doc { version: s.doc.version, ..next } == s.doc && node.run == Run::Primary;
            let mut before = *s;
            if renews && node.agent.right.is_some_and(|r| !r.inherited) {
                if s.left.renewals == 0 {
                    continue;
                }
                before.left.renewals -= 1;
            }
            if let Some(t) = self.carry_out(&before, n, decision) {
                add(Step::Decide(n, decided), t);
                if s.left.unanswered > 0 {
                    let mut t = before;
                    t.left.unanswered -= 1;
                    add(Step::Unanswered(n, decided), self.hear_nothing(&t, n, decision, next));
                }
            }
        }
        if let Some(Job::Rewind(_)) = node.agent.job {
            let mut t = *s;
            self.rewound(&mut t, n);
            add(Step::Rewound(n), t);
        }
        self.meddle(s, n, add);
    }

    /// What peers do for an agent that does not hear of the witness: they tell it what they have read, newer or not, and
    /// make its swap. Made as it was sent, that lands as any swap that is not answered.
    fn aid(&self, s: &State, n: NodeId, decisions: &Decisions, add: &mut impl FnMut(Step, State)) {
        let node = s.node(n);
        for peer in self.nodes().filter(|p| *p != n) {
            let Some(doc) = s.node(peer).agent.seen else { continue };
            let mut t = *s;
            t.node_mut(n).agent = self.mind.hears(n, node, Heard::Told(doc));
            add(Step::Told(n, peer, doc.version), t);
        }
        let exact = |next: &Doc| next.version == s.doc.version + 1;
        let relayed = decisions.all.iter().find_map(|d| d.decided.relay);
        if let Some(next) = relayed.filter(|next| !exact(next))
            && node.agent.seen.is_some_and(|seen| seen.version == s.doc.version)
        {
            let mut t = *s;
            t.document_becomes(next);
            add(Step::Relays(n, next), t);
        }
    }

    /// What an agent hears of the others: what they would say now, and what is late.
    fn heard(&self, s: &State, n: NodeId) -> ([Option<Report>; NODES], Option<(NodeId, Report)>) {
        let mut reports = [None; NODES];
        for peer in self.nodes().filter(|p| *p != n) {
            let relay = self.bounds.tells.then(|| s.relay(peer)).flatten();
            let serves = self.bounds.durability == Durability::Async && s.serves(peer);
            reports[usize::from(peer)] = Some(Report { relay, serves, ..s.report(peer) });
        }
        let late = s.late.filter(|(from, report)| *from != n && reports[usize::from(*from)] != Some(*report));
        (reports, late)
    }

    /// What an agent decides with given facts, and whether it reads the document.
    pub(super) fn decide_with(&self, s: &State, n: NodeId, facts: &Facts) -> (Decision, bool) {
        let (reports, _) = self.heard(s, n);
        self.mind.decision(n, s.node(n), &reports, facts)
    }

    /// What is decided is done. A swap lands at once, and its author hears of it: whatever happens in between
    /// could as well have happened before.
    pub(super) fn carry_out(&self, s: &State, n: NodeId, decision: &Decision) -> Option<State> {
        let mut t = self.begun(s, n, decision);
        let Some(next) = decision.decided.swap else { return Some(t) };
        // One that expects an older version never lands.
        if s.node(n).agent.seen.map(|d| d.version) != Some(s.doc.version) {
            return None;
        }
        let slot = s.node(n).agent.attempts.iter().position(Option::is_none)?;
        t.document_becomes(next);
        let agent = &mut t.node_mut(n).agent;
        agent.attempts[slot] = Some(Attempt::new(next, Fate::Landed));
        agent.waiting = true;
        t.node_mut(n).agent = self.mind.hears(n, t.node(n), Heard::Landed);
        Some(t)
    }

    /// A swap of an older version finds another one there, and its author reads.
    pub(super) fn conflict(&self, s: &State, n: NodeId, next: Doc) -> Option<State> {
        if s.node(n).agent.seen.map(|d| d.version) == Some(s.doc.version) {
            return None;
        }
        let slot = s.node(n).agent.attempts.iter().position(Option::is_none)?;
        let mut t = *s;
        let agent = &mut t.node_mut(n).agent;
        agent.attempts[slot] = Some(Attempt::new(next, Fate::Dead));
        agent.waiting = true;
        for heard in [Heard::Conflict, Heard::Document(s.doc)] {
            t.node_mut(n).agent = self.mind.hears(n, t.node(n), heard);
        }
        Some(t)
    }

    /// What is decided is done, and nothing is heard of the swap: it lands at any time, or never.
    fn hear_nothing(&self, s: &State, n: NodeId, decision: &Decision, next: Doc) -> State {
        let mut t = self.begun(s, n, decision);
        let Some(slot) = t.node(n).agent.attempts.iter().position(Option::is_none) else { return *s };
        t.node_mut(n).agent.attempts[slot] = Some(Attempt::new(next, Fate::Open));
        t.node_mut(n).agent.waiting = true;
        t.node_mut(n).agent = self.mind.hears(n, t.node(n), Heard::Nothing);
        // Where it is taken for lost, it may land all the same.
        if t.node(n).agent.attempts[slot].is_none() {
            t.ghosts.push(next);
        }
        t
    }

    /// What is decided is done, but for the swap.
    fn begun(&self, s: &State, n: NodeId, decision: &Decision) -> State {
        let mut t = *s;
        if decision.decided.fence {
            t.node_mut(n).agent.job = None;
            t.end_server(n);
        }
        if let Some(order) = decision.order {
            t.node_mut(n).agent.order = order;
        }
        if let Some(job) = decision.decided.job {
            t.begin(n, job);
        }
        t
    }

    /// A rewind that was under way ends.
    pub(super) fn rewound(&self, t: &mut State, n: NodeId) -> bool {
        let Some(Job::Rewind(from)) = t.node(n).agent.job else { return false };
        t.node_mut(n).agent.job = None;
        t.take_from(n, from);
        true
    }

    /// What happens to an agent from outside.
    fn meddle(&self, s: &State, n: NodeId, add: &mut impl FnMut(Step, State)) {
        let node = s.node(n);
        if s.left.restarts > 0 {
            let mut t = *s;
            t.left.restarts -= 1;
            t.restart_agent(n);
            add(Step::Restart(n), t);
            if node.run == Run::Standby && node.upstream.is_some() {
                // It was about to pledge, and came as far as to detach.
                t.detach(n, None);
                add(Step::Restart(n), t);
            }
        }
        if s.left.switchovers > 0 && node.agent.order.is_none() && node.agent.seen.is_some_and(|d| d.leader == n) {
            let mut t = *s;
            t.left.switchovers -= 1;
            t.node_mut(n).agent.order = Some(Order::Switchover(NOBODY));
            add(Step::Order(n), t);
        }
        if s.left.late_reports > 0 {
            let mut t = *s;
            t.left.late_reports -= 1;
            t.late = Some((n, s.report(n)));
            add(Step::HoldUp(n), t);
        }
    }
}

impl State {
    /// What an agent would say now.
    pub(super) fn report(&self, n: NodeId) -> Report {
        let node = self.node(n);
        let seen = node.agent.seen.map(|d| (d.version, d.term));
        let pledge = node.pledge.filter(|p| seen.is_some_and(|(version, _)| version == p.version));
        let mut forks = [(0, 0); 6];
        if node.run == Run::Primary {
            for (slot, fork) in forks.iter_mut().zip(node.wal.forks()) {
                *slot = fork;
            }
        }
        Report {
            life: node.life,
            run: node.run,
            timeline: node.wal.timeline(),
            flushed: node.wal.end(),
            forks,
            seen,
            relay: None,
            serves: false,
            took: node.agent.took,
            pledge: pledge.filter(|p| p.life == node.life && node.run == Run::Standby && node.upstream.is_none()),
        }
    }

    /// Whether an agent may serve the end of the WAL, to whoever takes it.
    fn serves(&self, n: NodeId) -> bool {
        let node = self.node(n);
        let crashed = node.run == Run::Stopped && node.was_primary && !node.clean && node.agent.saw_end;
        crashed && node.agent.seen.is_some_and(|seen| seen.leader == n)
    }

    /// The swap that an agent would ask others to make.
    fn relay(&self, n: NodeId) -> Option<Relay> {
        let agent = &self.node(n).agent;
        let seen = agent.seen.filter(|seen| seen.leader == n)?;
        let last = agent.attempts.iter().flatten().next_back()?;
        Some(Relay { expected: seen.version, next: last.next })
    }

    /// Something is done to PostgreSQL. It takes effect at once: whatever happens before it does could as well
    /// have happened before it was decided. What takes PostgreSQL a while is under way from then on.
    fn begin(&mut self, n: NodeId, job: Job) {
        let node = self.node_mut(n);
        let term = node.agent.seen.map_or(0, |d| d.term);
        let settled = node.senders.iter().flatten().all(|s| !s.old_names);
        match (job, node.run) {
            (Job::StartStandby, Run::Stopped) => {
                node.run = Run::Standby;
                node.upstream = None;
                node.clean = false;
            }
            (Job::StartPrimary, Run::Stopped) => {
                node.reign = term;
                node.closed = true;
                self.becomes_primary(n);
            }
            (Job::Detach(pledge), Run::Standby) => self.detach(n, pledge),
            (Job::Attach(upstream), Run::Standby) => {
                self.leave(n);
                self.node_mut(n).upstream = Some(upstream);
            }
            (Job::Promote(names, timeline), Run::Standby) if node.upstream.is_none() && node.promoting.is_none() => {
                node.reign = term;
                node.names = names;
                node.closed = !names.members.is_empty();
                node.promoting = Some((names, timeline));
                node.agent.job = Some(job);
            }
            (Job::SetNames(names), Run::Primary) => {
                node.agent.barrier = None;
                if names != node.names {
                    node.names_before = node.names;
                    node.names = names;
                    for sender in node.senders.iter_mut().flatten() {
                        sender.old_names = true;
                    }
                }
                node.agent.job = Some(job);
            }
            (Job::Admit, Run::Primary) => node.closed = false,
            (Job::TakeBarrier(from_none), Run::Primary)
                if settled && (!from_none || node.waits == (node.names.count > 0)) =>
            {
                node.agent.barrier = Some(node.wal.end());
            }
            (Job::Stop, Run::Primary) if !node.stopping => {
                node.stopping = true;
                node.agent.job = Some(job);
            }
            (Job::Rewind(_), Run::Standby) => {
                node.rewinding = true;
                node.agent.job = Some(job);
                self.end_server(n);
            }
            (Job::Clone(from), Run::Stopped) => {
                self.take_from(n, from);
            }
            (Job::TakeTail(from), Run::Standby) if self.serves(from) => {
                let source = self.node(from).wal;
                let node = self.node_mut(n);
                // What both have must be the same.
                if node.wal.leads_to(&source) {
                    node.wal = source;
                    node.agent.took = true;
                }
            }
            _ => {}
        }
    }

    fn detach(&mut self, n: NodeId, pledge: Option<state::Version>) {
        self.leave(n);
        let node = self.node_mut(n);
        node.upstream = None;
        if let Some(version) = pledge {
            let (timeline, flushed) = (node.wal.timeline(), node.wal.end());
            node.pledge = Some(Pledge { version, life: node.life, timeline, flushed });
        }
    }

    /// An agent ends, and another begins, which knows nothing but what is on the disk.
    fn restart_agent(&mut self, n: NodeId) {
        let node = *self.node(n);
        for attempt in node.agent.attempts.iter().flatten() {
            if attempt.fate == Fate::Open {
                self.ghosts.push(attempt.next);
            }
        }
        let right = (node.run == Run::Primary).then_some(Right { term: node.reign, after_end: false, inherited: true });
        self.node_mut(n).agent = Agent { right, ..Agent::default() };
    }
}
