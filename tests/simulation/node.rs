//! [`Node`] and the driver: what the agent does around `decide`.
//!
//! # The driver's contract
//! The agent of production and this simulator do the same:
//! - The loop goes round on every event, at `wake_at`, and at least every 200 ms (20 to 50 ms when `watchful`): set
//!   `view.now`; take in what was observed; `d = decide(&view)`; `view.extend_right(d.deadline)`; arm or
//!   disarm the deadman with `d.deadline`; take over `d.order`, end the order on `d.verdict`; then start
//!   each action whose lane is idle. A fence breaks into the PostgreSQL lane.
//! - The deadman is an actor of its own: it survives crash and pause of the agent, and kills PostgreSQL
//!   at the deadline.
//! - Between two rounds PostgreSQL may change: an observation may be as old as it takes to make. But once an
//!   action of the PostgreSQL lane has ended, none that began before its end is taken in, and an action
//!   that sets names drops `view.barrier` when it begins.
//! - `view.busy` stands while an action of the PostgreSQL lane runs.
//! - `durable` outlives the agent. `Detach { pledge: Some(v) }` writes the pledge once the WAL receiver is
//!   gone; `Rewind` sets `rewinding` before and clears it after, and leaves it and sets `reclone` where it fails;
//!   `Clone` clears both; both make a fresh incarnation; `StartPrimary` and `Promote` write `reign` first.
//! - An agent that starts knows nothing but `durable`, and, where a primary runs and the deadman is armed,
//!   a right for `durable.reign` that ends with the deadman's deadline and was sent at zero. A promotion
//!   that its predecessor began may be under way: it leaves the deadman armed until it has seen
//!   PostgreSQL stopped, or out of recovery.
//! - A report carries the pledge only while it is for the version that was seen last.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use pgdock_core::clock::Moment;
use pgdock_core::decide::{self, Action, Lane};
use pgdock_core::node::{Incarnation, Member};
use pgdock_core::postgres::timeline::TimelineId;
use pgdock_core::report::{Aid, Report};
use pgdock_core::view::{Answer, Durable, Local, Names, Order, Postgres, Right, Task, View};
use pgdock_core::{History, Lsn, NodeName, Role, Term};
use rand::Rng;
use rand::rngs::StdRng;

use super::invariants;
use super::job::Job;
use super::postgres::{Data, Pg, PrimaryRun, Rec, Run, StandbyRun};
use super::scenario::{MS, Micros, SECOND, Scenario};
use super::witness::Call;
use super::world::{Event, World};

/// How often agents tell each other how they are.
const BEAT: Micros = 200 * MS;

/// A host with a PostgreSQL, a deadman and, mostly, an agent.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Where its clock began.
    offset: Micros,
    /// How fast its clock is, in parts of a million.
    drift: i64,
    /// The host has power.
    pub host_up: bool,
    /// All of it stands still until then.
    pub paused_until: Micros,
    /// The agent alone stands still until then.
    pub agent_paused_until: Micros,
    /// PostgreSQL.
    pub pg: Pg,
    /// What outlives the agent.
    pub durable: Durable,
    /// The deadman's deadline, on the node's clock.
    pub deadman: Option<Micros>,
    /// The agent, if it runs.
    pub agent: Option<Agent>,
    /// Grows with each start and end of the agent.
    pub life: u64,
}

/// An agent.
#[derive(Debug)]
pub struct Agent {
    /// What it knows.
    pub view: View,
    /// What it does to PostgreSQL.
    pub job: Option<Job>,
    /// The request to the witness under way.
    pub request: Option<u64>,
    /// When its loop goes round next, at the latest.
    pub wake_at: Micros,
    published_at: Micros,
    published: Option<Rc<Report>>,
    /// The server that it watched last, and the WAL position that it saw of it.
    pub watched: Option<(u64, Lsn)>,
    /// Starts that failed one after the other.
    pub start_failures: u32,
    /// The last observation, and when it was made.
    pub observed: Option<(Micros, Local)>,
    /// The deadman was armed by an earlier life, and what for may be yet to come.
    inherited: bool,
}

/// The incarnation that a node begins with.
fn birth(index: usize) -> Incarnation {
    Incarnation(u32::try_from(index).unwrap_or(0) + 1)
}

impl Node {
    /// A node of a cluster that the first one leads: it was shut down, or runs already.
    pub fn new(index: usize, scenario: &Scenario, rng: &mut StdRng) -> Self {
        let wide = scenario.wide;
        let others = (1..scenario.nodes).map(|i| Member { node: Scenario::name(i), incarnation: birth(i) });
        let names = if wide { Names { members: others.collect(), count: 1 } } else { Names::none() };
        let run = match (wide, index) {
            (false, _) => Run::Stopped,
            (true, 0) => Run::Primary(PrimaryRun { names: names.clone(), waits: true, ..PrimaryRun::default() }),
            (true, _) => Run::Standby(StandbyRun { end_known: true, ..StandbyRun::default() }),
        };
        let first = Rec { id: 1, timeline: TimelineId(1), end: Lsn(1_000) };
        let data = Data {
            incarnation: birth(index),
            wal: vec![first],
            history: History::new(TimelineId(1)),
            upstream: (wide && index > 0).then_some(0),
            names: if index == 0 { names } else { Names::none() },
            was_primary: index == 0,
            clean: !wide,
            checkpoint: Lsn(900),
            slots: (1..scenario.nodes).map(|i| Scenario::name(i).slot()).collect(),
        };
        let offset = rng.random_range(1_000..1_000_000) * SECOND;
        let deadline = offset + rng.random_range(3..12) * SECOND;
        Self {
            name: Scenario::name(index),
            offset,
            drift: rng.random_range(-5_000..5_000),
            host_up: true,
            paused_until: 0,
            agent_paused_until: 0,
            pg: Pg { data: Some(data), run, number: 0, ended_at: 0 },
            durable: Durable { reign: Term(u64::from(wide && index == 0)), ..Durable::default() },
            deadman: (wide && index == 0).then_some(deadline),
            agent: None,
            life: 0,
        }
    }

    /// The node's own clock, in microseconds.
    #[must_use]
    pub fn clock(&self, now: Micros) -> Micros {
        let drift = i128::from(now) * i128::from(self.drift) / 1_000_000;
        self.offset + u64::try_from(i128::from(now) + drift).unwrap_or(0)
    }

    /// The node's own clock.
    #[must_use]
    pub fn moment(&self, now: Micros) -> Moment {
        Moment(Duration::from_micros(self.clock(now)))
    }

    /// Whether a primary runs here, or begins.
    #[must_use]
    pub fn may_write(&self) -> bool {
        matches!(self.pg.run, Run::Primary(_) | Run::Starting { primary: true })
    }
}

impl World {
    /// Starts an agent.
    pub fn start_agent(&mut self, node: usize) {
        let mut view = View::new(self.nodes[node].name.clone(), self.scenario.policy());
        view.session = self.fresh();
        let n = &mut self.nodes[node];
        n.life += 1;
        if let (true, Some(deadline)) = (n.may_write(), n.deadman) {
            view.right = Some(Right {
                term: n.durable.reign,
                sent_at: Moment::default(),
                until: Moment(Duration::from_micros(deadline)),
            });
        }
        n.agent = Some(Agent {
            view,
            job: None,
            request: None,
            wake_at: Micros::MAX,
            published_at: 0,
            published: None,
            watched: None,
            start_failures: 0,
            observed: None,
            inherited: n.deadman.is_some(),
        });
        self.note("agent", node, || "starts".into());
        self.kick(node, MS);
    }

    /// Kills an agent, and what it was doing; what PostgreSQL has begun goes on.
    pub fn kill_agent(&mut self, node: usize) {
        self.note("agent", node, || "is killed".into());
        let n = &mut self.nodes[node];
        n.life += 1;
        n.agent = None;
        n.agent_paused_until = 0;
    }

    /// Has the loop go round soon.
    pub(super) fn kick(&mut self, node: usize, delay: Micros) {
        let (now, life) = (self.now, self.nodes[node].life);
        if let Some(agent) = &mut self.nodes[node].agent
            && (agent.wake_at > now + delay || agent.wake_at < now)
        {
            agent.wake_at = now + delay;
            self.after(delay, Event::Wake { node, life });
        }
    }

    pub(super) fn wake(&mut self, node: usize, life: u64) {
        let n = &mut self.nodes[node];
        if n.life != life {
            return;
        }
        if let Some(agent) = &mut n.agent {
            // Of several alarms the earliest counts; a late one of a paused agent does, too.
            if agent.wake_at > self.now {
                return;
            }
            agent.wake_at = Micros::MAX;
            self.drive(node);
        }
    }

    /// One round of the loop.
    pub(super) fn drive(&mut self, node: usize) {
        let recent = self.nodes[node].agent.as_ref().and_then(|a| a.observed.as_ref());
        let recent = recent.filter(|(at, _)| self.now < at + self.scenario.observed_for).map(|(_, l)| l.clone());
        let local = recent.unwrap_or_else(|| {
            let fresh = self.observe(node);
            if let Some(agent) = &mut self.nodes[node].agent {
                agent.observed = Some((self.now, fresh.clone()));
            }
            fresh
        });
        let now = self.nodes[node].moment(self.now);
        let durable = self.nodes[node].durable.clone();
        let Some(agent) = &mut self.nodes[node].agent else { return };
        let view = &mut agent.view;
        view.now = now;
        view.observe_local(local);
        view.durable = durable;
        let d = decide::decide(view);
        view.extend_right(d.deadline);
        view.note_aid(&d);
        let aid = view.aid(&d);
        if let Some(order) = d.order {
            view.order = Some(order);
        }
        if d.verdict.is_some() {
            view.order = None;
        }
        let busy = agent.job.as_ref().map(|j| j.task);
        agent.inherited &= matches!(view.local.postgres, Postgres::Standby(_) | Postgres::Starting { .. });
        let inherited = agent.inherited;
        if let Some(verdict) = &d.verdict {
            self.note("verdict", node, || format!("{verdict:?}"));
        }
        if d.deadline.is_some() || !inherited {
            self.arm(node, d.deadline);
        }
        for action in d.actions {
            match action.lane() {
                Lane::Witness => self.witness_lane(node, action),
                Lane::Postgres => {
                    let breaks_in = matches!(action, Action::Fence { .. }) && busy != Some(Task::Fence);
                    if busy.is_none() || breaks_in {
                        self.start_job(node, action);
                    }
                }
                Lane::Upkeep => {
                    let wanted: Option<BTreeSet<String>> = match action {
                        Action::SyncSlots { wanted } => Some(wanted.into_iter().collect()),
                        Action::FollowSlots { wanted } => Some(wanted.into_iter().map(|(slot, _)| slot).collect()),
                        _ => None,
                    };
                    if let (Some(wanted), Some(data)) = (wanted, &mut self.nodes[node].pg.data) {
                        data.slots = wanted;
                    }
                }
                Lane::Address => {}
            }
        }
        self.publish(node, d.campaign, aid);
        let pause = if d.watchful { self.between(20 * MS, 50 * MS) } else { BEAT };
        let wake = d.wake_at.map_or(Duration::MAX, |at| at.since(now));
        let pause = pause.min(u64::try_from(wake.as_micros()).unwrap_or(Micros::MAX).max(MS));
        self.kick(node, pause);
    }

    fn witness_lane(&mut self, node: usize, action: Action) {
        let nonce = self.fresh().to_string();
        let Some(agent) = &mut self.nodes[node].agent else { return };
        let call = match action {
            Action::SwapWitness { expected, mut next } => {
                next.nonce = nonce;
                agent.view.swap_sent(expected.clone(), next.clone());
                Call::Swap(expected, Box::new(next))
            }
            Action::RelaySwap { expected, next } => {
                agent.view.relay_sent(&next.nonce);
                Call::Relay(expected, Box::new(next))
            }
            _ => {
                agent.view.read_sent();
                Call::Read
            }
        };
        let swap = match &call {
            Call::Read => None,
            Call::Swap(expected, next) => Some(("swap", expected.clone(), next.clone())),
            Call::Relay(expected, next) => Some(("relay", Some(expected.clone()), next.clone())),
        };
        if let Some((kind, expected, next)) = swap {
            self.note(kind, node, || {
                format!(
                    "{:?} -> term {} leader {:?} handoff {:?} {} of {:?}",
                    expected.map(|v| v.0),
                    next.term,
                    next.leader,
                    next.handoff_to,
                    next.acks,
                    next.sync_set
                )
            });
        }
        self.ask_witness(node, call);
    }

    pub(super) fn witness_answer(&mut self, node: usize, life: u64, request: u64, answer: Answer) {
        let now = self.nodes[node].moment(self.now);
        let n = &mut self.nodes[node];
        if n.life != life {
            return;
        }
        let Some(agent) = &mut n.agent else { return };
        if agent.request != Some(request) {
            return;
        }
        agent.request = None;
        agent.view.now = now;
        agent.view.witness_answered(answer);
        self.drive(node);
    }

    /// Arms or disarms the deadman.
    fn arm(&mut self, node: usize, deadline: Option<Moment>) {
        let now = self.now;
        let n = &mut self.nodes[node];
        let deadline = deadline.map(|m| u64::try_from(m.0.as_micros()).unwrap_or(u64::MAX));
        if n.deadman != deadline {
            n.deadman = deadline;
            if let Some(deadline) = deadline {
                // By the node's clock; its drift is below one in a hundred.
                let left = deadline.saturating_sub(n.clock(now));
                self.after(left - left / 100, Event::Deadman { node });
                invariants::one_right::check(self);
            }
        }
    }

    /// The deadman looks at his clock.
    pub(super) fn deadman(&mut self, node: usize) {
        let n = &self.nodes[node];
        let Some(deadline) = n.deadman else { return };
        let clock = n.clock(self.now);
        if clock < deadline {
            self.after(((deadline - clock) / 2).max(200), Event::Deadman { node });
        } else if n.pg.runs() {
            self.note("deadman", node, || "kills PostgreSQL".into());
            invariants::outage::killed(self, node);
            self.kill_postgres(node, true);
        }
    }

    /// Tells the others how this node is: every beat, and on every change that matters.
    fn publish(&mut self, node: usize, campaign: Option<pgdock_core::witness::Version>, aid: Aid) {
        let mut report = self.report(node, campaign);
        report.aid = aid;
        let now = self.now;
        let Some(agent) = &mut self.nodes[node].agent else { return };
        let news = agent.published.as_ref().is_none_or(|before| {
            (&before.role, &before.state, &before.campaign, &before.pledge, &before.witness, before.timeline)
                != (&report.role, &report.state, &report.campaign, &report.pledge, &report.witness, report.timeline)
                || before.aid != report.aid
        });
        if !news && now < agent.published_at + BEAT {
            return;
        }
        agent.published_at = now;
        let report = Rc::new(report);
        agent.published = Some(report.clone());
        for to in 0..self.nodes.len() {
            if to == node || !self.network.agents(node, to) || !self.healing && self.chance(self.scenario.loss) {
                continue;
            }
            let delay = self.network.delay(&mut self.rng);
            self.after(delay, Event::Report { from: node, to, report: report.clone() });
        }
    }

    pub(super) fn report_arrives(&mut self, from: usize, to: usize, report: &Rc<Report>) {
        let now = self.nodes[to].moment(self.now);
        let name = self.nodes[from].name.clone();
        let n = &mut self.nodes[to];
        let Some(agent) = &mut n.agent else {
            if n.host_up && self.network.agents(to, from) {
                let delay = self.network.delay(&mut self.rng);
                self.after(delay, Event::Refused { node: from, by: to });
            }
            return;
        };
        agent.view.now = now;
        let news = agent.view.peers[&name].report.as_ref().is_none_or(|before| {
            (&before.role, &before.campaign, &before.pledge, &before.witness, &before.aid)
                != (&report.role, &report.campaign, &report.pledge, &report.witness, &report.aid)
        });
        agent.view.heard((**report).clone());
        if news {
            self.kick(to, 100);
        }
    }

    pub(super) fn refused(&mut self, node: usize, by: usize) {
        let now = self.nodes[node].moment(self.now);
        let name = self.nodes[by].name.clone();
        if let Some(agent) = &mut self.nodes[node].agent {
            agent.view.peers.get_mut(&name).expect("peers come from the scenario").refused_at = Some(now);
            self.kick(node, 100);
        }
    }

    /// Gives an order to an agent that has none.
    pub fn give_order(&mut self, node: usize, order: Order) -> bool {
        let Some(agent) = &mut self.nodes[node].agent else { return false };
        if agent.view.order.is_some() {
            return false;
        }
        let text = format!("{order:?}");
        if order == Order::Reclone {
            self.nodes[node].durable.reclone = true;
        }
        if let Some(agent) = &mut self.nodes[node].agent {
            agent.view.order = Some(order);
        }
        self.note("order", node, || text);
        self.kick(node, 100);
        true
    }

    /// The term for which a node was last made primary.
    #[must_use]
    pub fn reign(&self, node: usize) -> Term {
        self.nodes[node].durable.reign
    }

    /// What PostgreSQL is to the outside.
    #[must_use]
    pub fn role(&self, node: usize) -> Role {
        match self.nodes[node].pg.run {
            Run::Primary(_) => Role::Primary,
            Run::Standby(_) => Role::Standby,
            _ => Role::Unknown,
        }
    }
}
