//! [`Hands`]: carries out what was decided for PostgreSQL, one action at a time.
//!
//! Each function here does one action of [`decide`](crate::decide) from beginning to end, and writes down
//! what must survive a crash before it relies on it. A function may be cancelled at any await.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::agent::api::wal;
use crate::agent::client::AgentClient;
use crate::agent::configuration::{Applied, Configuration};
use crate::agent::state::StateFile;
use crate::backup::Repository;
use crate::backup::wal::{Fetcher, Segment, WalStore};
use crate::decide::Action;
use crate::postgres::instance::{Detached, Instance};
use crate::postgres::wal_tail::WalTail;
use crate::report::{Crash, Pledge, Tail};
use crate::settings::Settings;
use crate::{Error, Lsn, NodeName, Result, Role, Term, TimelineId};

/// How long a copy may take: only so that it ends some time. What is slow here is the size.
const COPY_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How long it may take to receive the end of a crashed primary's WAL. The primary waits a little longer.
const TAIL_LIMIT: Duration = Duration::from_millis(1500);
/// How much more of it than `lag_bytes_max` is taken: what was written since the primary last told where it was.
const TAIL_SLACK_BYTES: usize = 64 << 20;
/// How many segments are taken from the archive at once.
const FETCHED_MAX: usize = 64;

/// What an action on PostgreSQL leaves behind for the view.
#[derive(Debug)]
pub(crate) enum Left {
    /// Nothing that an observation does not show.
    Nothing,
    /// The position of a barrier for the present names.
    Barrier(Lsn),
    /// The end of the WAL that this crash left was taken.
    Tail(Crash),
    /// Another bundle counts.
    Bundle(Applied),
    /// WAL was taken from the archive, up to where it has any: nothing where that was far enough.
    Fetched {
        /// Where the WAL begins that it lacks.
        lacks: Option<Lsn>,
    },
}

/// What works on PostgreSQL.
#[derive(Debug)]
pub(crate) struct Hands {
    pub(crate) instance: Arc<Instance>,
    pub(crate) state: Arc<StateFile>,
    pub(crate) settings: Arc<Settings>,
    /// The bundle that this node runs with.
    pub(crate) configuration: Arc<Configuration>,
    /// The agents of the other nodes.
    pub(crate) peers: BTreeMap<NodeName, AgentClient>,
}

impl Hands {
    /// Does one action of the Postgres lane. `term` is the document's.
    pub(crate) async fn perform(&self, action: Action, term: Term) -> Result<Left> {
        let instance = &self.instance;
        match action {
            Action::Bootstrap => self.bootstrap().await?,
            Action::Clone { from, system_identifier } => self.clone_from(&from, system_identifier).await?,
            Action::Rewind { from, fork } => self.rewind_from(&from, fork).await?,
            Action::StartStandby { upstream } => self.start(Role::Standby, upstream.as_ref()).await?,
            Action::StartPrimary => {
                self.state.update(move |d| d.reign = term).await?;
                self.start(Role::Primary, None).await?;
            }
            Action::Fence { .. } => instance.fence().await?,
            Action::Detach { pledge } => {
                let Detached { timeline, flushed } = instance.detach().await?;
                if let Some(version) = pledge {
                    let member = instance.member().ok_or_else(|| Error::not_ready("this node has no identity yet"))?;
                    let pledge = Pledge { version, member, timeline, flushed };
                    self.state.update(move |d| d.pledge = Some(pledge)).await?;
                }
            }
            Action::Attach { upstream } => {
                instance.attach(&upstream).await?;
                self.state.update(|d| d.rewound = false).await?;
            }
            Action::Promote { names, timeline } => {
                self.state.update(move |d| d.reign = term).await?;
                instance.promote(&names, Some(timeline)).await?;
            }
            Action::SetNames(names) => instance.set_names(&names).await?,
            Action::TakeBarrier { from_none } => {
                return Ok(Left::Barrier(instance.take_barrier(from_none).await?));
            }
            Action::Stop { checkpoint, budget } => {
                if let Err(error) = instance.stop(budget, checkpoint).await {
                    tracing::warn!(error = %error.chain(), "PostgreSQL did not stop in time and is killed");
                    instance.fence().await?;
                }
            }
            Action::Reload => match self.configuration.take(instance).await? {
                Some(applied) => return Ok(Left::Bundle(applied)),
                None => instance.reload().await?,
            },
            Action::AdmitClients => instance.admit_clients().await?,
            Action::TakeTail { tail } => {
                self.take_tail(&tail).await?;
                return Ok(Left::Tail(tail.crash));
            }
            Action::FetchWal { timeline, to } => {
                return Ok(Left::Fetched { lacks: self.fetch_wal(timeline, to).await });
            }
            other => return Err(Error::internal(format!("not an action on PostgreSQL: {other:?}"))),
        }
        Ok(Left::Nothing)
    }

    /// Starts PostgreSQL; with the bundle before, where that keeps it from starting.
    async fn start(&self, role: Role, upstream: Option<&NodeName>) -> Result<()> {
        let started = self.instance.start(role, upstream).await;
        let again = async || self.instance.start(role, upstream).await;
        self.configuration.judge(&self.instance, started, again).await
    }

    /// Does one action of the upkeep lane.
    pub(crate) async fn maintain(&self, action: Action) -> Result<()> {
        match action {
            Action::EnsureRoles => {
                self.instance.ensure_roles().await?;
                let (scripts, env) = self.configuration.scripts()?;
                self.instance.run_scripts(&scripts, &env).await?;
                self.state.update(|d| d.bootstrapping = false).await?;
                // The marks are of no more use; where they stay they harm nobody.
                if !scripts.is_empty()
                    && let Err(error) = self.instance.forget_scripts().await
                {
                    tracing::warn!(error = %error.chain(), "the marks of the scripts stay in schema pgdock_initdb");
                }
                Ok(())
            }
            Action::SyncSlots { wanted } => self.instance.sync_slots(&wanted.into_iter().collect()).await,
            Action::FollowSlots { wanted } => self.instance.follow_slots(&wanted.into_iter().collect()).await,
            other => Err(Error::internal(format!("not an action of upkeep: {other:?}"))),
        }
    }

    async fn bootstrap(&self) -> Result<()> {
        // The mark comes first: only a data directory made under it may found a cluster.
        self.state.update(|d| d.bootstrapping = true).await?;
        self.instance.initdb().await.map(|_| ())
    }

    async fn clone_from(&self, from: &NodeName, system_identifier: u64) -> Result<()> {
        self.stop_for_surgery().await?;
        let source = self.settings.node(from)?;
        self.instance
            .copy_from(&source.address, source.postgres_port, Some(system_identifier), COPY_LIMIT, |progress| {
                tracing::info!(%from, done = progress.done, total = progress.total, "copying");
            })
            .await?;
        self.state
            .update(|d| {
                d.rewinding = false;
                d.rewound = false;
                d.copied = true;
                d.reclone = false;
                d.bootstrapping = false;
            })
            .await
    }

    async fn rewind_from(&self, from: &NodeName, fork: Lsn) -> Result<()> {
        let source = self.settings.node(from)?;
        let limit = self.settings.failover.rejoin_budget;
        let rewind = async {
            // Before the mark: whoever is interrupted here has lost nothing, and goes on. Behind it the data directory is
            // copied anew, and nobody would look for what it has.
            self.instance.set_aside(fork).await?;
            // From here on the data directory is worth nothing until the rewind has ended.
            self.state.update(|d| d.rewinding = true).await?;
            self.instance.rewind_from(&source.address, source.postgres_port, fork, limit).await
        };
        match rewind.await {
            Ok(_) => {
                self.state
                    .update(|d| {
                        d.rewinding = false;
                        d.rewound = true;
                    })
                    .await
            }
            Err(error) => {
                self.state
                    .update(|d| {
                        d.rewinding = true;
                        d.reclone = true;
                    })
                    .await?;
                Err(error)
            }
        }
    }

    /// Takes the end of the WAL of a primary that crashed, and puts it where recovery finds it.
    async fn take_tail(&self, tail: &Tail) -> Result<()> {
        let from = &tail.crash.node;
        let peer =
            self.peers.get(from).ok_or_else(|| Error::invalid(format!("there is no such member. node={from}")))?;
        let held = self.instance.held_wal().await?;
        if held.timeline != tail.timeline {
            return Err(Error::not_ready(format!(
                "this standby is on another timeline. timeline={}, served={}",
                held.timeline, tail.timeline
            )));
        }
        let limit = usize::try_from(self.settings.failover.lag_bytes_max).unwrap_or(usize::MAX);
        let limit = limit.saturating_add(TAIL_SLACK_BYTES).min(wal::BYTES_MAX);
        let served = peer.wal_tail(tail.timeline, held.flushed, limit, TAIL_LIMIT).await?;
        tracing::info!(%from, held = %held.flushed, end = %served.end(), "the end of the WAL was received");
        self.instance.add_wal(held, served).await
    }

    /// Takes WAL from the archive and puts it where recovery finds it. Tells from where on that did not go, whatever the reason:
    /// then the leader is copied.
    async fn fetch_wal(&self, timeline: TimelineId, to: Lsn) -> Option<Lsn> {
        let mut at = Lsn(0);
        match self.fetch_segments(timeline, to, &mut at).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(error = %error.chain(), from = %at, "the WAL that is needed is not to be had from the archive");
                Some(at)
            }
        }
    }

    async fn fetch_segments(&self, timeline: TimelineId, to: Lsn, at: &mut Lsn) -> Result<()> {
        let mut held = self.instance.held_wal().await?;
        *at = held.flushed;
        let system = self.instance.observe().await?.system_identifier;
        let system = system.ok_or_else(|| Error::not_ready("this node has no data directory"))?;
        if held.timeline != timeline {
            return Err(Error::not_ready(format!("this standby is on another timeline. timeline={}", held.timeline)));
        }
        let repository = Repository::open(&self.settings).await?;
        let fetcher = Fetcher::new(WalStore::new(repository.sink, repository.codec, system));
        // So much at once; recovery replays it meanwhile, and more is asked for then.
        for _ in 0..FETCHED_MAX {
            if held.flushed >= to {
                break;
            }
            let segment_bytes = self.instance.segment_bytes().await?;
            let segment = Segment::at(timeline, held.flushed, segment_bytes);
            let bytes = fetcher.fetch(&segment.to_string()).await?;
            let bytes = bytes.filter(|bytes| bytes.len() as u64 == segment_bytes);
            let bytes =
                bytes.ok_or_else(|| Error::not_ready(format!("the archive lacks a segment. segment={segment}")))?;
            let (start, end) = (segment.begin(segment_bytes), segment.end(segment_bytes));
            self.instance.add_wal(held, WalTail { start, bytes }).await?;
            held.flushed = end;
        }
        Ok(())
    }

    /// A data directory is only worked on while no process of it is left.
    async fn stop_for_surgery(&self) -> Result<()> {
        if self.instance.stop(Duration::from_secs(30), false).await.is_err() {
            self.instance.fence().await?;
        }
        Ok(())
    }
}
