//! [`Backups`]: the base backups that an agent takes of its node.
//!
//! ```text
//!  begin ─▶ wanted ─▶ report ─▶ the leader writes it into the document ─▶ copy ─▶ the leader ends its segment ─▶ manifest
//! ```
//!
//! One at a time anywhere: a node begins once the document says that it is its turn, and gives up when the document says that
//! it is somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use crate::agent::api::Published;
use crate::agent::client::AgentClient;
use crate::backup::base::{self, NeededWal, OnBadPage, Progress, Source, WalReady};
use crate::backup::wal::{Segment, WalStore};
use crate::backup::{Label, Manifest, Repository};
use crate::clock::Clock;
use crate::event::{EventKind, EventLog};
use crate::postgres::instance::Instance;
use crate::settings::BadPages;
use crate::witness::record::BackupClaim;
use crate::{Error, Lsn, NodeName, Result, Settings};

pub(crate) mod clerk;

pub use clerk::BackupsKept;
pub(crate) use clerk::{Clerk, best};

/// How long a backup waits for its turn.
const TURN_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take until the WAL of a backup is archived.
const WAL_LIMIT: Duration = Duration::from_secs(1800);
/// How often it is looked whether it is, and the leader asked to end its segment.
const WAL_EVERY: Duration = Duration::from_secs(1);

/// What a node does about backups, as `status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStatus {
    /// The one that is being made.
    pub running: Option<BackupRunning>,
    /// The one that ended last, in this life of the agent.
    pub ended: Option<BackupEnded>,
}

/// A backup that is being made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRunning {
    /// Its name.
    pub label: Label,
    /// How far it is; nothing while it waits for its turn.
    pub progress: Option<Progress>,
}

/// A backup that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupEnded {
    /// Its name.
    pub label: Label,
    /// When.
    pub at: Timestamp,
    /// Why there is none; nothing where all is well.
    pub error: Option<String>,
}

/// The base backups of a node.
#[derive(Debug)]
pub struct Backups {
    settings: Arc<Settings>,
    node: NodeName,
    instance: Arc<Instance>,
    published: watch::Receiver<Published>,
    peers: BTreeMap<NodeName, AgentClient>,
    clock: Arc<dyn Clock>,
    events: Arc<EventLog>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<(Label, Option<watch::Receiver<Progress>>)>,
    ended: Option<BackupEnded>,
}

impl Backups {
    pub(crate) fn new(
        settings: Arc<Settings>,
        node: NodeName,
        instance: Arc<Instance>,
        published: watch::Receiver<Published>,
        peers: BTreeMap<NodeName, AgentClient>,
        clock: Arc<dyn Clock>,
        events: Arc<EventLog>,
    ) -> Option<Arc<Self>> {
        settings.backup.as_ref()?;
        let state = Mutex::default();
        Some(Arc::new(Self { settings, node, instance, published, peers, clock, events, state }))
    }

    /// What looks after all backups while this node leads.
    pub(crate) fn clerk(self: &Arc<Self>) -> Clerk {
        Clerk {
            settings: Arc::clone(&self.settings),
            published: self.published.clone(),
            peers: self.peers.clone(),
            own: Arc::clone(self),
            clock: Arc::clone(&self.clock),
            known: Mutex::default(),
        }
    }

    /// The backup that this node wants to make, or makes.
    pub(crate) fn wanted(&self) -> Option<Label> {
        self.state().running.as_ref().map(|(label, _)| label.clone())
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> BackupStatus {
        let state = self.state();
        let running = state.running.as_ref().map(|(label, progress)| BackupRunning {
            label: label.clone(),
            progress: progress.as_ref().map(|progress| *progress.borrow()),
        });
        BackupStatus { running, ended: state.ended.clone() }
    }

    /// What a person should know.
    pub(crate) fn problems(&self) -> Option<String> {
        let state = self.state();
        let ended = state.ended.as_ref()?;
        let error = ended.error.as_ref()?;
        Some(format!("the last backup that was tried here failed. label={}, why={error}", ended.label))
    }

    /// Begins a backup in the background.
    ///
    /// # Errors
    /// `Conflict` when one is under way, here or elsewhere; `NotReady` when PostgreSQL does not run here.
    pub fn begin(self: &Arc<Self>) -> Result<Label> {
        let said = self.published.borrow().clone();
        if let Some(claim) = said.record.as_ref().and_then(|record| record.backup.as_ref()) {
            return Err(Error::conflict(format!("a backup is under way. node={}, label={}", claim.node, claim.label))
                .hint("`pgdock status` shows how far it is"));
        }
        if !said.answers() {
            return Err(Error::not_ready(format!("PostgreSQL does not answer here. state={}", said.report.state)));
        }
        let label = Label::draw(self.clock.wall());
        {
            let mut state = self.state();
            if let Some((label, _)) = &state.running {
                return Err(Error::conflict(format!("a backup is under way here. label={label}")));
            }
            state.running = Some((label.clone(), None));
        }
        let this = Arc::clone(self);
        let of = label.clone();
        tokio::spawn(async move { this.run(of).await });
        Ok(label)
    }

    async fn run(&self, label: Label) {
        let term = || self.published.borrow().term();
        self.events.record(EventKind::BackupBegun, term(), format!("backup {label} begins"), json!({ "label": label }));
        // Somebody else's turn ends it.
        let result = tokio::select! {
            result = self.take(&label) => result,
            other = self.lost_turn(&label) => Err(Error::conflict(format!(
                "another backup has the turn. node={}, label={}", other.node, other.label
            ))),
        };
        let error = match &result {
            Ok(manifest) => {
                let text = format!("backup {label} is made");
                let detail = json!({ "label": label, "plain": manifest.plain, "stored": manifest.stored });
                self.events.record(EventKind::BackupMade, term(), text, detail);
                None
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), %label, "a backup failed");
                let text = format!("backup {label} failed: {}", error.chain());
                self.events.record(EventKind::BackupFailed, term(), text, json!({ "label": label }));
                Some(error.chain())
            }
        };
        let mut state = self.state();
        state.running = None;
        state.ended = Some(BackupEnded { label, at: self.clock.wall(), error });
    }

    async fn take(&self, label: &Label) -> Result<Manifest> {
        let repository = Repository::open(&self.settings).await?;
        self.my_turn(label).await?;
        let (progress, seen) = watch::channel(Progress::default());
        if let Some((_, watched)) = &mut self.state().running {
            *watched = Some(seen);
        }
        let settings = self.settings.backup.as_ref();
        let options = base::Options {
            label: label.clone(),
            processes: settings.map_or(1, |backup| backup.processes as usize),
            checksums: match settings.map(|backup| backup.checksums) {
                Some(BadPages::Warn) => OnBadPage::Warn,
                _ => OnBadPage::Fail,
            },
        };
        let wal = Wal { backups: self, repository: &repository };
        let sink = Arc::clone(&repository.sink);
        let source = Source::of(&self.instance);
        base::take(&source, sink, &repository.codec, &options, &wal, &*self.clock, &progress).await
    }

    /// Waits until the document says that this backup is being made.
    async fn my_turn(&self, label: &Label) -> Result<()> {
        let claim = Some(BackupClaim { node: self.node.clone(), label: label.clone() });
        let mut published = self.published.clone();
        let turn = published.wait_for(|said| said.record.as_ref().is_some_and(|record| record.backup == claim));
        match tokio::time::timeout(TURN_LIMIT, turn).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Error::unavailable("the agent stops")),
            Err(_) => Err(Error::not_ready(format!("the backup does not get its turn. waited={TURN_LIMIT:?}"))
                .hint("the leader gives it, by the witness: `pgdock status` shows whether there is one")),
        }
    }

    /// Resolves when another backup has the turn.
    async fn lost_turn(&self, label: &Label) -> BackupClaim {
        let mut published = self.published.clone();
        let other = |said: &Published| {
            let claim = said.record.as_ref()?.backup.clone()?;
            (claim.label != *label).then_some(claim)
        };
        loop {
            if let Some(other) = other(&published.borrow_and_update()) {
                return other;
            }
            if published.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Ends the segment that this node's PostgreSQL writes.
    pub(crate) async fn end_segment_here(&self) -> Result<()> {
        self.instance.switch_wal().await
    }

    /// Has the leader end the segment that it writes.
    async fn switch_wal(&self) -> Result<()> {
        let leader = self.published.borrow().record.as_ref().and_then(|record| record.leader.clone());
        let leader = leader.ok_or_else(|| Error::not_ready("nobody leads at present"))?;
        if leader == self.node {
            return self.instance.switch_wal().await;
        }
        let peer = self.peers.get(&leader);
        peer.ok_or_else(|| Error::invalid(format!("there is no such member. node={leader}")))?.switch_wal().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Knows when the WAL of a backup is archived.
#[derive(Debug)]
struct Wal<'a> {
    backups: &'a Backups,
    repository: &'a Repository,
}

#[async_trait]
impl WalReady for Wal<'_> {
    async fn wal_ready(&self, needed: &NeededWal) -> Result<()> {
        let (sink, codec) = (Arc::clone(&self.repository.sink), self.repository.codec.clone());
        let store = WalStore::new(sink, codec, needed.system_identifier);
        let mut missing: BTreeSet<String> = segments(needed).collect();
        let (mut last, mut ended) = (None, false);
        let mut waits = async || -> Result<()> {
            loop {
                // The primary ends a segment by itself only when it is full. Once: each one fills its disk, where it cannot be archived.
                if !ended {
                    match self.backups.switch_wal().await {
                        Ok(()) => ended = true,
                        Err(error) => last = Some(error),
                    }
                }
                let (Some(first), Some(end)) = (missing.first(), missing.last()) else { return Ok(()) };
                match store.names(needed.timeline, first, Some(end)).await {
                    Ok(found) => missing.retain(|name| !found.contains(name)),
                    Err(error) => last = Some(error),
                }
                if missing.is_empty() {
                    return Ok(());
                }
                tokio::time::sleep(WAL_EVERY).await;
            }
        };
        match tokio::time::timeout(WAL_LIMIT, waits()).await {
            Ok(done) => done,
            Err(_) => {
                let first = missing.first().cloned().unwrap_or_default();
                let text = format!("the WAL of the backup is not archived. missing={}, first={first}", missing.len());
                let error = Error::unavailable(text).hint("`pgdock status` tells why WAL is not archived");
                Err(match last {
                    Some(cause) => error.because(cause),
                    None => error,
                })
            }
        }
    }
}

/// The segments that hold the WAL of a backup.
fn segments(needed: &NeededWal) -> impl Iterator<Item = String> {
    let size = needed.segment_bytes;
    // A position at the beginning of a segment is the end of the one before.
    let (first, last) = (needed.start.0 / size, Lsn(needed.stop.0.saturating_sub(1)).0 / size);
    let timeline = needed.timeline;
    (first..=last).map(move |number| Segment::numbered(timeline, number, size).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TimelineId;

    #[test]
    fn a_backup_needs_every_segment_from_its_start_to_its_stop() {
        let size = 16 << 20;
        let of = |start: u64, stop: u64| {
            let (start, stop) = (Lsn(start), Lsn(stop));
            let needed = NeededWal { system_identifier: 7, timeline: TimelineId(2), start, stop, segment_bytes: size };
            segments(&needed).collect::<Vec<_>>()
        };
        assert_eq!(of(3 * size + 40, 3 * size + 500), ["000000020000000000000003"]);
        assert_eq!(of(3 * size + 40, 4 * size), ["000000020000000000000003"], "it ends there");
        assert_eq!(of(3 * size, 4 * size + 1), ["000000020000000000000003", "000000020000000000000004"]);
    }
}
