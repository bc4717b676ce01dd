//! [`Driver`]: the loop. Observe → view → decide → act.
//!
//! ```text
//!   clock, PostgreSQL, witness, peers, orders ──▶ View ──▶ decide() ──▶ Decision
//!        ▲                                                                │
//!        └───── lanes: witness · postgres · upkeep · address ◀────────────┘
//! ```
//!
//! The loop itself never waits for anything but the next input: whatever takes time runs in a lane and
//! reports back. A lane does one thing at a time; only a fence breaks in.

mod address;
mod failure;
mod lanes;
mod orders;
mod proof;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent::api::{PendingOrder, Published};
use crate::agent::archive::Archiving;
use crate::agent::backup::{Backups, Clerk};
use crate::agent::deadman::Deadman;
use crate::agent::hands::{Hands, Left};
use crate::agent::notices::Notices;
use crate::agent::peers::PeerEvent;
use crate::agent::publish::publish;
use crate::clock::{Clock, Moment};
use crate::decide::{Action, Decision, Verdict, decide};
use crate::event::{EventKind, EventLog};
use crate::failover_ip::{FailoverIp, Holder};
use crate::view::{Answer, Local, Order, Postgres, Task, View};
use crate::witness::{ProbeReport, Witness};
use crate::{NodeName, Result, Term};

use address::AddressLane;
use failure::Failure;
use lanes::WATCHFUL;
pub(crate) use proof::Proof;
use proof::Prover;

/// How often it is looked whether the deadman lives.
const DEADMAN_CHECK: Duration = Duration::from_secs(1);

/// What comes back from a lane.
#[derive(Debug)]
enum Input {
    Observed { epoch: u64, local: Result<Local> },
    Answered(Answer),
    Done { job: u64, task: Task, result: Result<Left> },
    UpkeepDone(Result<()>),
    Address { term: Term, result: Result<()> },
    AddressSeen { term: Term, holder: Option<Holder> },
    AddressReleased(Result<()>),
    Exited,
    Proved(Result<ProbeReport>),
}

/// The parts that a driver works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) witness: Arc<dyn Witness>,
    /// How the store is put to the proof; nothing where that is not for the agent to do.
    pub(crate) proof: Option<Proof>,
    pub(crate) failover_ip: Option<Arc<dyn FailoverIp>>,
    pub(crate) hands: Arc<Hands>,
    /// What archives WAL, where that is done.
    pub(crate) archiving: Option<Arc<Archiving>>,
    /// What takes base backups, and what looks after all of them, where there are any.
    pub(crate) backups: Option<Arc<Backups>>,
    pub(crate) clerk: Option<Arc<Clerk>>,
    pub(crate) deadman: Deadman,
    pub(crate) events: Arc<EventLog>,
    pub(crate) published: watch::Sender<Published>,
    pub(crate) orders: mpsc::Receiver<PendingOrder>,
    pub(crate) peers: mpsc::Receiver<PeerEvent>,
    /// Whoever runs this agent starts it anew where it asks for that.
    pub(crate) can_begin_anew: bool,
}

/// How the life of an agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It stopped, and PostgreSQL too.
    Stopped,
    /// It is to begin anew at once, in a new process. PostgreSQL goes on, and so does the deadman, which kills it if no agent
    /// comes in time.
    BeginsAnew,
}

/// The loop's state.
#[derive(Debug)]
pub(crate) struct Driver {
    view: View,
    parts: Parts,
    notices: Notices,
    inputs: mpsc::UnboundedSender<Input>,
    returned: mpsc::UnboundedReceiver<Input>,
    /// Counts the beginnings and ends of actions on PostgreSQL: an observation that began before the
    /// latest of them may show what is no longer so.
    epoch: u64,
    observing: bool,
    observe_at: Moment,
    /// When to decide again, whatever happens until then.
    wake_at: Option<Moment>,
    watchful: bool,
    postgres_job: Option<JoinHandle<()>>,
    /// The number of the latest action on PostgreSQL.
    job: u64,
    /// The action ended; the lane is free once an observation shows what it left.
    settling: bool,
    upkeep_busy: bool,
    failures: HashMap<Task, Failure>,
    upkeep_failure: Option<Failure>,
    /// What was done last, and when: an observation takes a moment to show what it left.
    upkeep_last: Option<(Action, Moment)>,
    address: AddressLane,
    asked: Option<oneshot::Sender<Verdict>>,
    /// An order that waits for an observation begun after it came.
    waiting: Option<Order>,
    /// Who listens at the address of a peer and is not that peer, or does not take this node for one.
    strangers: BTreeMap<NodeName, String>,
    watching_exit: bool,
    start_failures: u32,
    observe_failing_since: Option<Moment>,
    parting: Option<Moment>,
    deadman_problem: Option<String>,
    deadman_checked: Moment,
    deadman_fired: Option<Moment>,
    inherited_deadline: bool,
    prover: Prover,
    /// An operator ordered so.
    begins_anew: bool,
}

impl Driver {
    pub(crate) fn new(view: View, parts: Parts) -> Self {
        let (inputs, returned) = mpsc::unbounded_channel();
        Self {
            view,
            parts,
            notices: Notices::default(),
            inputs,
            returned,
            epoch: 0,
            observing: false,
            observe_at: Moment::default(),
            wake_at: None,
            watchful: true,
            postgres_job: None,
            job: 0,
            settling: false,
            upkeep_busy: false,
            failures: HashMap::new(),
            upkeep_failure: None,
            upkeep_last: None,
            address: AddressLane::default(),
            asked: None,
            waiting: None,
            strangers: BTreeMap::new(),
            watching_exit: false,
            start_failures: 0,
            observe_failing_since: None,
            parting: None,
            deadman_problem: None,
            deadman_checked: Moment::default(),
            deadman_fired: None,
            inherited_deadline: false,
            prover: Prover::default(),
            begins_anew: false,
        }
    }

    /// Runs until told to stop. `hand_over` tells whether a leader then looks for an heir first.
    pub(crate) async fn run(mut self, stop: CancellationToken, hand_over: bool) -> Result<Ended> {
        self.parts.events.record(EventKind::Started, None, format!("the agent of {} started", self.view.me), json!({}));
        self.view.now = self.parts.clock.now();
        self.view.durable = self.parts.hands.state.get();
        if let Some(until) = self.parts.deadman.deadline() {
            // A primary that an earlier agent left behind may run until its deadline.
            self.inherited_deadline = true;
            let term = self.view.durable.reign;
            self.view.right = Some(crate::view::Right { term, sent_at: Moment::default(), until });
        }
        let beat = self.view.policy.silent_after / 5;
        loop {
            self.observe();
            let now = self.parts.clock.now();
            let next = self.wake_at.map_or(self.observe_at, |at| at.min(self.observe_at));
            let pause = next.since(now).clamp(Duration::from_millis(1), beat);
            tokio::select! {
                biased;
                Some(input) = self.returned.recv() => self.take(input),
                Some(event) = self.parts.peers.recv() => self.hear(event),
                Some(request) = self.parts.orders.recv(), if self.asked.is_none() => self.accept(request).await,
                () = stop.cancelled(), if self.parting.is_none() => {
                    self.part(hand_over);
                }
                () = tokio::time::sleep(pause) => {}
            }
            // Take in all that is there before deciding anything.
            while let Ok(input) = self.returned.try_recv() {
                self.take(input);
            }
            while let Ok(event) = self.parts.peers.try_recv() {
                self.hear(event);
            }
            if self.begins_anew {
                return self.let_go().await;
            }
            self.look_after_deadman().await;
            self.prove();
            self.step();
            // One that could not be handed over is not started again for a moment.
            let ended = matches!(self.view.order, None | Some(Order::UndoSwitchover { .. }));
            if self.parting.is_some_and(|t| ended || self.view.now >= t) {
                break;
            }
        }
        self.leave().await.map(|()| Ended::Stopped)
    }

    fn take(&mut self, input: Input) {
        self.view.now = self.parts.clock.now();
        match input {
            Input::Observed { epoch, local } => self.observed(epoch, local),
            Input::Answered(answer) => self.view.witness_answered(answer),
            // One that a fence broke into may have ended just before: what it says is of no interest.
            Input::Done { job, .. } if job != self.job => {}
            Input::Done { task, result, .. } => self.done(task, result),
            Input::Proved(result) => self.proved(result),
            Input::UpkeepDone(result) => {
                self.upkeep_busy = false;
                self.view.durable = self.parts.hands.state.get();
                self.upkeep_failure = result.err().map(|error| {
                    tracing::warn!(error = %error.chain(), "upkeep failed");
                    Failure::again(self.upkeep_failure.as_ref(), self.view.now, "upkeep", &error)
                });
            }
            Input::Address { term, result } => self.address_moved(term, &result),
            Input::AddressSeen { term, holder } => self.address_seen(term, holder),
            Input::AddressReleased(result) => self.address_released(&result),
            Input::Exited => {
                self.watching_exit = false;
                self.observe_at = self.view.now;
                let term = self.view.witness.record().map(|r| r.term);
                self.parts.events.record(EventKind::PostgresExited, term, "PostgreSQL ended", json!({}));
                // Backends may outlive their postmaster, and acknowledge commits. None may be left before
                // anybody else is told to lead.
                let surgery = matches!(
                    self.view.busy,
                    Some((
                        Task::Fence
                            | Task::Stop
                            | Task::StartPrimary
                            | Task::StartStandby
                            | Task::Clone
                            | Task::Rewind
                            | Task::Bootstrap,
                        _
                    ))
                );
                if !surgery {
                    if let Some(job) = self.postgres_job.take() {
                        job.abort();
                    }
                    self.begin(Action::Fence { why: "the postmaster ended" }, Task::Fence);
                }
            }
        }
    }

    fn hear(&mut self, event: PeerEvent) {
        self.view.now = self.parts.clock.now();
        let now = self.view.now;
        match event {
            PeerEvent::Heard(report) => {
                self.strangers.remove(&report.node);
                let before = self.view.peers.get(&report.node).and_then(|p| p.report.as_ref());
                if before.is_none_or(|b| (b.state, b.incarnation) != (report.state, report.incarnation)) {
                    // What it does to its PostgreSQL changes who streams from this one.
                    self.observe_at = now;
                }
                self.view.heard(*report);
            }
            PeerEvent::Refused(node) => {
                if let Some(peer) = self.view.peers.get_mut(&node) {
                    peer.refused_at = Some(now);
                }
                self.observe_at = now;
            }
            PeerEvent::Lost(_) => self.observe_at = now,
            PeerEvent::BadIdentity { node, problem } => {
                tracing::warn!(%node, problem, "a peer is not who it should be");
                self.strangers.insert(node, problem);
            }
        }
    }

    /// Sees to it that the deadman lives, and tells of what it did.
    async fn look_after_deadman(&mut self) {
        let now = self.parts.clock.now();
        if now.since(self.deadman_checked) < DEADMAN_CHECK {
            return;
        }
        self.deadman_checked = now;
        if let Some(fired) = self.parts.deadman.fired()
            && self.deadman_fired != Some(fired.at)
        {
            if self.deadman_fired.is_some() || self.view.right.is_some() {
                let term = self.view.witness.record().map(|r| r.term);
                let text = "the deadman killed PostgreSQL: the right to be primary had ended";
                self.parts.events.record(EventKind::DeadmanFired, term, text, json!({}));
            }
            self.deadman_fired = Some(fired.at);
        }
        if !self.parts.deadman.is_alive() {
            match tokio::time::timeout(Duration::from_secs(1), self.parts.deadman.ensure()).await {
                Ok(Ok(_)) => self.deadman_problem = None,
                Ok(Err(error)) => tracing::error!(error = %error.chain(), "there is no deadman"),
                Err(_) => tracing::error!("a new deadman does not start in time"),
            }
        }
    }

    /// Decides, publishes, and sets lanes to work.
    fn step(&mut self) {
        self.view.now = self.parts.clock.now();
        self.take_bundle_at_rest();
        self.view.backup = self.parts.backups.as_ref().and_then(|backups| backups.wanted());
        let mut d = decide(&self.view);
        self.view.extend_right(d.deadline);
        self.view.note_aid(&d);
        self.arm(&mut d);
        if let Some(order) = d.order.take() {
            self.view.order = Some(order);
        }
        if let Some(verdict) = d.verdict.take() {
            self.end_order(verdict);
        }
        self.wake_at = d.wake_at;
        self.watchful = d.watchful || self.view.busy.is_some();
        if self.watchful {
            self.observe_at = self.observe_at.min(self.view.now + WATCHFUL);
        }
        self.look_after_address();
        if self.parts.archiving.as_ref().is_some_and(|archiving| archiving.was_contradicted()) {
            d.want(Action::ReadWitness);
        }
        self.tell_failures(&mut d);
        self.notices.tell(&self.view, &d, &self.parts.events);
        let mut published = publish(&self.view, &d);
        published.report.bundle = self.parts.hands.configuration.label();
        let beat = self.view.policy.silent_after / 5;
        self.parts.published.send_if_modified(|old| {
            let news = old.report != published.report
                || old.record != published.record
                || old.right_until != published.right_until
                || published.at.since(old.at) >= beat;
            if news {
                *old = published;
            }
            news
        });
        for action in std::mem::take(&mut d.actions) {
            self.start(action);
        }
    }

    /// Adds to the problems what was tried and does not work.
    fn tell_failures(&self, d: &mut Decision) {
        let (now, busy) = (self.view.now, self.view.busy.map(|(task, _)| task));
        let standing = self.failures.iter().filter(|(task, f)| f.stands(now) || busy == Some(**task));
        let mut texts: Vec<_> = standing.map(|(_, f)| f.text.as_str()).collect();
        texts.extend(
            self.upkeep_failure.as_ref().filter(|f| f.stands(now) || self.upkeep_busy).map(|f| f.text.as_str()),
        );
        texts.extend(self.address.problem.as_deref());
        let strangers: Vec<_> =
            self.strangers.iter().map(|(node, why)| format!("the agent of {node}: {why}")).collect();
        texts.extend(strangers.iter().map(String::as_str));
        let configuration = self.parts.hands.configuration.problem();
        texts.extend(configuration.as_deref());
        let archiving = self.parts.archiving.as_ref().map(|archiving| archiving.problems()).unwrap_or_default();
        texts.extend(archiving.iter().map(String::as_str));
        let failed = self.parts.backups.as_ref().and_then(|backups| backups.problems());
        let overdue = self.parts.clerk.as_ref().and_then(|clerk| clerk.problem());
        texts.extend(failed.as_deref());
        texts.extend(overdue.as_deref());
        texts.sort_unstable();
        for text in texts {
            d.problem(text);
        }
    }

    /// Arms the deadman before anything is done that makes a primary.
    fn arm(&mut self, d: &mut Decision) {
        if matches!(self.view.local.postgres, Postgres::Unknown) {
            return;
        }
        // A promotion that an earlier agent began may still finish: its deadline stands until that is clear.
        if matches!(self.view.local.postgres, Postgres::Stopped(_) | Postgres::Primary(_) | Postgres::Empty) {
            self.inherited_deadline = false;
        }
        if d.deadline.is_none() && self.inherited_deadline {
            return;
        }
        let armed = match d.deadline {
            Some(deadline) => self.parts.deadman.arm(deadline),
            None => self.parts.deadman.disarm(),
        };
        if let Err(error) = armed {
            let text = format!("the deadman cannot be armed: {}", error.chain());
            // Without a deadman nobody becomes primary.
            d.actions.retain(|a| !matches!(a, Action::StartPrimary | Action::Promote { .. }));
            d.problem(text.clone());
            if self.deadman_problem.as_ref() != Some(&text) {
                tracing::error!("{text}");
                self.deadman_problem = Some(text);
            }
        }
    }

    /// Leaves everything as it is to the next life: what runs goes on, and a deadline that is armed stays so.
    async fn let_go(self) -> Result<Ended> {
        let text = format!("the agent of {} begins anew; PostgreSQL goes on", self.view.me);
        self.parts.events.record(EventKind::Stopped, None, text, json!({}));
        self.parts.events.flush(Duration::from_secs(2)).await;
        Ok(Ended::BeginsAnew)
    }

    /// Stops PostgreSQL and says goodbye.
    async fn leave(mut self) -> Result<()> {
        if let Some(job) = self.postgres_job.take() {
            job.abort();
            let _ = job.await;
        }
        if let Some(asked) = self.asked.take() {
            let _ = asked.send(Verdict::Failed("the agent stops".into()));
        }
        let budget = self.parts.hands.settings.failover.stop_budget;
        // Nobody renews the right any more: the deadman stays armed until the last process is gone.
        if let Err(error) = self.parts.hands.instance.stop(budget, false).await {
            tracing::warn!(error = %error.chain(), "PostgreSQL did not stop in time and is killed");
            self.parts.hands.instance.fence().await?;
        }
        self.leave_address().await;
        let _ = self.parts.deadman.disarm();
        self.parts.deadman.release();
        self.parts.events.record(EventKind::Stopped, None, format!("the agent of {} stopped", self.view.me), json!({}));
        self.parts.events.flush(Duration::from_secs(2)).await;
        Ok(())
    }
}
