//! The lanes in which things are done beside the loop, and what comes back from them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::failure::Failure;
use super::{Driver, Input};
use crate::agent::hands::Left;
use crate::decide::{Action, Lane, Verdict};
use crate::event::EventKind;
use crate::view::{Answer, Barrier, Local, Order, Postgres, Task};
use crate::witness::Swap;
use crate::{Error, Result};

/// How often PostgreSQL is observed when something is about to happen.
pub(super) const WATCHFUL: Duration = Duration::from_millis(20);
/// How long one observation may take.
const OBSERVE_BUDGET: Duration = Duration::from_secs(2);
/// The same housekeeping is not done again within this time.
const UPKEEP_PAUSE: Duration = Duration::from_secs(1);

impl Driver {
    /// Observes PostgreSQL beside the loop, if it is time.
    pub(super) fn observe(&mut self) {
        let now = self.parts.clock.now();
        if self.observing || now < self.observe_at {
            return;
        }
        self.observing = true;
        let interval = if self.watchful { WATCHFUL } else { self.view.policy.silent_after / 5 };
        self.observe_at = now + interval;
        let (hands, inputs, epoch) = (Arc::clone(&self.parts.hands), self.inputs.clone(), self.epoch);
        tokio::spawn(async move {
            let local = tokio::time::timeout(OBSERVE_BUDGET, hands.instance.observe())
                .await
                .unwrap_or_else(|_| Err(Error::unavailable("PostgreSQL does not answer")))
                .map(|seen| Local {
                    system_identifier: seen.system_identifier,
                    incarnation: seen.incarnation,
                    disk_free: hands.instance.disk_free(),
                    kept: hands.instance.kept(),
                    // Only a primary is asked for these.
                    oldest_wal: seen.postgres.as_primary().and_then(|_| hands.instance.oldest_wal()),
                    early_commits: seen.postgres.as_primary().and_then(|_| hands.instance.early_commits()),
                    postgres: seen.postgres,
                    slots: seen.slots,
                    stale_slots: seen.stale_slots,
                    redo: seen.redo,
                    ..Local::default()
                });
            let _ = inputs.send(Input::Observed { epoch, local });
        });
    }

    pub(super) fn observed(&mut self, epoch: u64, local: Result<Local>) {
        self.observing = false;
        if epoch != self.epoch {
            self.observe_at = self.view.now;
            return;
        }
        if let Some(order) = self.waiting.take() {
            self.view.order = Some(order);
        }
        match local {
            Ok(mut local) => {
                self.observe_failing_since = None;
                if matches!(local.postgres, Postgres::Primary(_) | Postgres::Standby(_)) {
                    self.start_failures = 0;
                }
                local.start_failures = self.start_failures;
                if let Postgres::Standby(standby) = &local.postgres
                    && (self.view.durable.rewound || self.view.durable.copied && standby.receiving)
                {
                    self.consistent(standby.receiving);
                }
                self.view.observe_local(local);
                if self.settling {
                    self.settling = false;
                    self.view.busy = None;
                }
            }
            Err(error) => {
                let since = *self.observe_failing_since.get_or_insert(self.view.now);
                if self.view.now.since(since) > Duration::from_secs(2) {
                    tracing::warn!(error = %error.chain(), "PostgreSQL could not be observed");
                }
                if self.settling && self.view.now.since(since) > Duration::from_secs(5) {
                    // What the action left behind cannot be seen; what was seen before it is no guide. While
                    // nothing is known nothing is decided, and the deadman stays as it is.
                    self.settling = false;
                    self.view.busy = None;
                    self.view.local.postgres = Postgres::Unknown;
                }
            }
        }
        // While it is being started there may be no postmaster yet to watch.
        let up = matches!(self.view.local.postgres, Postgres::Primary(_) | Postgres::Standby(_))
            || self.view.local.postgres.runs() && self.view.busy.is_none();
        if up && !self.watching_exit {
            self.watching_exit = true;
            let (hands, inputs) = (Arc::clone(&self.parts.hands), self.inputs.clone());
            tokio::spawn(async move {
                let gone = hands.instance.exited();
                // A promotion later finds its session open.
                let warm = tokio::spawn(async move { hands.instance.warm_up().await });
                gone.await;
                warm.abort();
                let _ = inputs.send(Input::Exited);
            });
        }
    }

    /// A rewound data directory takes connections: it has what it needs. So has a copy that streams.
    pub(super) fn consistent(&mut self, streams: bool) {
        self.view.durable.rewound = false;
        self.view.durable.copied &= !streams;
        let hands = Arc::clone(&self.parts.hands);
        tokio::spawn(async move {
            let changed = hands.state.update(move |d| {
                d.rewound = false;
                d.copied &= !streams;
            });
            if let Err(error) = changed.await {
                tracing::warn!(error = %error.chain(), "the state could not be written");
            }
        });
    }

    pub(super) fn done(&mut self, task: Task, result: Result<Left>) {
        self.postgres_job = None;
        self.epoch += 1;
        self.settling = true;
        self.observe_at = self.view.now;
        self.view.durable = self.parts.hands.state.get();
        let term = self.view.witness.record().map(|r| r.term);
        match &result {
            Ok(left) => {
                self.failures.remove(&task);
                // Nothing else changed the names meanwhile: that is this lane's work, too.
                if let (Left::Barrier(lsn), Some(names)) = (left, self.view.local.postgres.names()) {
                    self.view.barrier = Some(Barrier { names: names.clone(), lsn: *lsn });
                }
                if let Left::Fetched { lacks } = left {
                    self.view.archive_lacks = *lacks;
                }
                if let Left::Tail(crash) = left {
                    self.view.took = Some(crash.clone());
                }
                let kind = match task {
                    Task::Fence => Some(EventKind::Fenced),
                    Task::Clone => Some(EventKind::Cloned),
                    Task::Rewind => Some(EventKind::Rewound),
                    Task::Attach => Some(EventKind::Follow),
                    Task::StartStandby | Task::StartPrimary => Some(EventKind::PostgresStarted),
                    Task::Bootstrap => Some(EventKind::Bootstrap),
                    Task::TakeTail => Some(EventKind::WalTaken),
                    Task::FetchWal if matches!(left, Left::Fetched { lacks: None }) => Some(EventKind::WalTaken),
                    _ => None,
                };
                if let Some(kind) = kind {
                    self.parts.events.record(kind, term, format!("{}: done", words(task)), json!({}));
                }
            }
            Err(error) => {
                let failure = Failure::again(self.failures.get(&task), self.view.now, words(task), error);
                self.failures.insert(task, failure);
                if matches!(task, Task::StartPrimary | Task::StartStandby) {
                    self.start_failures += 1;
                }
                tracing::warn!(task = words(task), error = %error.chain(), "an action on PostgreSQL failed");
            }
        }
        if task == Task::Reload && self.view.order == Some(Order::Reload) {
            self.end_order(match result {
                Ok(Left::Bundle(applied)) => Verdict::Done(serde_json::to_string(&applied).unwrap_or_default()),
                Ok(_) => Verdict::Done("the configuration was read again".into()),
                Err(error) => Verdict::Failed(error.chain()),
            });
        }
        if task == Task::Bootstrap
            && self.view.order == Some(Order::Bootstrap)
            && let Some(failure) = self.failures.get(&Task::Bootstrap)
        {
            self.end_order(Verdict::Failed(failure.text.clone()));
        }
    }

    pub(super) fn start(&mut self, action: Action) {
        match action.lane() {
            Lane::Witness => self.ask_witness(action),
            Lane::Postgres => {
                let Some(task) = action.task() else { return };
                if task == Task::Fence {
                    // One that succeeded is asked for again only by what is seen after it. Fencing on the grounds
                    // of what was seen before would throw that observation away, and so go on for ever.
                    let failed = self.settling && self.failures.contains_key(&Task::Fence);
                    if self.view.busy.is_some_and(|(busy, _)| busy == Task::Fence) && !failed {
                        return;
                    }
                    if let Some(job) = self.postgres_job.take() {
                        job.abort();
                    }
                } else if self.view.busy.is_some()
                    || self.failures.get(&task).is_some_and(|f| self.view.now < f.retry_at)
                {
                    return;
                }
                self.begin(action, task);
            }
            Lane::Upkeep => {
                let now = self.view.now;
                let done =
                    self.upkeep_last.as_ref().is_some_and(|(last, at)| *last == action && now < *at + UPKEEP_PAUSE);
                if self.upkeep_busy || done || self.upkeep_failure.as_ref().is_some_and(|f| now < f.retry_at) {
                    return;
                }
                self.upkeep_last = Some((action.clone(), now));
                self.upkeep_busy = true;
                let (hands, inputs) = (Arc::clone(&self.parts.hands), self.inputs.clone());
                tokio::spawn(async move {
                    let result = hands.maintain(action).await;
                    let _ = inputs.send(Input::UpkeepDone(result));
                });
            }
            Lane::Address => self.move_address(action),
        }
    }

    /// Begins an action on PostgreSQL.
    pub(super) fn begin(&mut self, action: Action, task: Task) {
        self.epoch += 1;
        self.settling = false;
        if task == Task::SetNames {
            self.view.barrier = None;
        }
        self.view.busy = Some((task, self.view.now));
        let term = self.view.witness.record().map(|r| r.term).unwrap_or_default();
        if let Action::Fence { why } = &action {
            tracing::warn!(why, "fencing PostgreSQL");
        } else {
            tracing::info!(task = words(task), "begins");
        }
        self.job += 1;
        let (hands, inputs, job) = (Arc::clone(&self.parts.hands), self.inputs.clone(), self.job);
        self.postgres_job = Some(tokio::spawn(async move {
            let result = hands.perform(action, term).await;
            let _ = inputs.send(Input::Done { job, task, result });
        }));
    }

    pub(super) fn ask_witness(&mut self, action: Action) {
        if self.view.witness.in_flight {
            return;
        }
        let budget = (self.view.policy.ttl / 3).min(Duration::from_secs(2));
        let (witness, inputs) = (Arc::clone(&self.parts.witness), self.inputs.clone());
        match action {
            Action::ReadWitness => {
                self.view.read_sent();
                tokio::spawn(async move {
                    let answer = match tokio::time::timeout(budget, witness.read()).await {
                        Ok(found) => Answer::Read(found.map_err(|e| e.chain())),
                        Err(_) => Answer::Read(Err(format!("no answer within {budget:?}"))),
                    };
                    let _ = inputs.send(Input::Answered(answer));
                });
            }
            Action::SwapWitness { expected, mut next } => {
                next.nonce = crate::dice::unique();
                self.view.swap_sent(expected.clone(), next.clone());
                tokio::spawn(async move {
                    let swap = tokio::time::timeout(budget, witness.compare_and_swap(&next, expected.as_ref())).await;
                    let answer = match swap {
                        Ok(Swap::Committed(version)) => Answer::Committed(version),
                        Ok(Swap::Conflict) => Answer::Conflict,
                        Ok(Swap::Ambiguous(error)) => Answer::Ambiguous(error.chain()),
                        Err(_) => Answer::Ambiguous(format!("no answer within {budget:?}")),
                    };
                    let _ = inputs.send(Input::Answered(answer));
                });
            }
            Action::RelaySwap { expected, next } => {
                self.view.relay_sent(&next.nonce);
                tokio::spawn(async move {
                    let swap = tokio::time::timeout(budget, witness.compare_and_swap(&next, Some(&expected))).await;
                    let answer = match swap {
                        // What was just committed is as good as read.
                        Ok(Swap::Committed(version)) => Answer::Read(Ok(Some((next, version)))),
                        Ok(Swap::Conflict) => Answer::Conflict,
                        Ok(Swap::Ambiguous(error)) => Answer::Read(Err(error.chain())),
                        Err(_) => Answer::Read(Err(format!("no answer within {budget:?}"))),
                    };
                    let _ = inputs.send(Input::Answered(answer));
                });
            }
            _ => {}
        }
    }
}

/// A task in words.
pub(super) fn words(task: Task) -> &'static str {
    match task {
        Task::Bootstrap => "making the first data directory",
        Task::Clone => "copying the leader",
        Task::Rewind => "rewinding to the fork",
        Task::StartStandby => "starting in recovery",
        Task::StartPrimary => "starting as primary",
        Task::AdmitClients => "letting clients in",
        Task::Fence => "fencing",
        Task::Detach => "detaching",
        Task::Attach => "attaching",
        Task::Promote => "promoting",
        Task::SetNames => "setting synchronous_standby_names",
        Task::TakeBarrier => "taking a barrier",
        Task::Stop => "stopping",
        Task::Reload => "reloading",
        Task::TakeTail => "taking the crashed primary's last WAL",
        Task::FetchWal => "taking WAL from the archive",
    }
}
