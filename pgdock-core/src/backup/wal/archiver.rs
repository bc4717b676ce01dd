//! [`Archiver`]: brings WAL into the archive, and tells PostgreSQL's archiver what is there.
//!
//! ```text
//!  pg_wal/archive_status/*.ready ──▶ round: by duty ──▶ put, several at once ──▶ sink
//!                                        │                                        │
//!  PostgreSQL ── archive_command ──▶ push(name): waits until it is confirmed ◀────┘
//! ```
//!
//! The rounds run ahead of PostgreSQL, which asks for one file at a time: by the time it asks for the next, that is in the
//! archive as a rule. It is never told so before the sink has said that the file is durable there.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::duty::{Duty, Standing, duty};
use super::file::WalFile;
use super::ready::{self, Ready};
use super::store::WalStore;
use crate::backup::Stored;
use crate::backup::object::blocking;
use crate::clock::{Clock, Moment};
use crate::postgres::lsn::Lsn;
use crate::{Error, Result};

/// How often it is looked for files where nobody asks.
const EVERY: Duration = Duration::from_secs(1);
/// The longest pause after a failure; it doubles from the shortest.
const PAUSE_MAX: Duration = Duration::from_secs(10);
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// How long PostgreSQL waits for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one request to the sink may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// How much WAL is on its way at once, in bytes: an object of each lies in memory.
const AHEAD_BYTES: u64 = 48 << 20;
/// How often a file that was refused is tried again: somebody may have looked into it.
const REFUSED_EVERY: Duration = Duration::from_secs(30);
/// A failure that is over sooner than this is nobody's concern.
const GRACE: Duration = Duration::from_secs(30);
/// WAL that waits longer than this is somebody's concern, whatever the reason.
const WAITS_MAX: Duration = Duration::from_secs(300);

/// What an archiver knows of its node at one moment.
#[derive(Clone, Debug)]
pub struct Situation {
    /// How the node stands to the cluster.
    pub standing: Standing,
    /// Which database system its data directory is of.
    pub system: Option<u64>,
    /// Up to where its WAL is on disk.
    pub flushed: Lsn,
}

/// How archiving stands, as `status` and `/metrics` show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveStatus {
    /// The file that this node archived last, in this life of its agent.
    pub last: Option<String>,
    /// When.
    pub last_at: Option<Timestamp>,
    /// How many files wait.
    pub waiting: u64,
    /// WAL that is on this node's disk and not in the archive, the segment that is being written included, in bytes.
    /// Only the leader tells.
    pub backlog_bytes: Option<u64>,
    /// Up to where all of its WAL is in the archive. Only the leader tells.
    #[serde(default)]
    pub stored_to: Option<Lsn>,
    /// Since when the oldest one waits.
    pub oldest_at: Option<Timestamp>,
    /// What keeps it from being archived.
    pub failing: Option<String>,
}

/// What PostgreSQL's archiver is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The file may be given up.
    Done,
    /// Not now; the reason.
    NotYet(String),
    /// PostgreSQL is being stopped: it should not wait.
    Stopping,
}

/// Where the archive is: it is opened when it is first needed, and again until that works.
#[async_trait]
pub trait Open: std::fmt::Debug + Send + Sync + 'static {
    /// The WAL of a database system.
    ///
    /// # Errors
    /// `Invalid` where settings or secrets are wrong, `Unavailable` where the store does not answer.
    async fn open(&self, system: u64) -> Result<WalStore>;
}

/// Brings WAL into the archive.
pub struct Archiver {
    data: PathBuf,
    archive: Box<dyn Open>,
    situation: Box<dyn Fn() -> Situation + Send + Sync>,
    stopping: watch::Receiver<bool>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    wake: Notify,
    /// Counts changes of what is confirmed or refused.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    store: Option<WalStore>,
    segment_bytes: Option<u64>,
    /// Files that PostgreSQL still has and may give up.
    confirmed: HashSet<String>,
    /// Files of whose name other content is in the archive, and when that was seen.
    refused: BTreeMap<String, Moment>,
    /// Since when it fails, and why it failed last.
    failing: Option<(Moment, String)>,
    /// Up to where this node has stored its WAL piece by piece.
    streamed: Option<Lsn>,
    /// When PostgreSQL asked last.
    asked_at: Option<Moment>,
    status: ArchiveStatus,
}

/// What there is to be archived.
struct Found {
    files: Vec<(String, WalFile)>,
    situation: Situation,
    system: u64,
    segment_bytes: u64,
}

impl std::fmt::Debug for Archiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archiver").field("data", &self.data).field("archive", &self.archive).finish_non_exhaustive()
    }
}

impl Archiver {
    /// For a data directory. `stopping` tells whether its PostgreSQL is being stopped.
    pub fn new(
        data: &Path,
        archive: impl Open,
        situation: impl Fn() -> Situation + Send + Sync + 'static,
        stopping: watch::Receiver<bool>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            data: data.to_owned(),
            archive: Box::new(archive),
            situation: Box::new(situation),
            stopping,
            clock,
            state: Mutex::default(),
            wake: Notify::new(),
            changed: watch::Sender::new(0),
        }
    }

    /// Works until it is told to end.
    pub async fn run(&self, end: CancellationToken) {
        let work = async { tokio::join!(self.keep_archiving(), self.keep_looking()) };
        tokio::select! {
            () = end.cancelled() => {}
            _ = work => {}
        }
    }

    async fn keep_archiving(&self) {
        let mut pause = EVERY;
        loop {
            let failed = self.round().await.is_err();
            pause = if failed { if pause == EVERY { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) } } else { EVERY };
            tokio::select! {
                () = self.wake.notified(), if !failed => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// What waits is told also while a round waits for a sink that hangs.
    async fn keep_looking(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.found().await {
                tracing::debug!(error = %error.chain(), "it was not found out what waits to be archived");
            }
        }
    }

    /// Answers PostgreSQL's archiver: waits a bounded time until the file may be given up.
    pub async fn push(&self, name: &str) -> Answer {
        if let Err(error) = WalFile::parse(name) {
            return Answer::NotYet(error.chain());
        }
        self.state().asked_at = Some(self.clock.now());
        let (mut stopping, mut changed) = (self.stopping.clone(), self.changed.subscribe());
        let until_stop = async {
            if stopping.wait_for(|stops| *stops).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let until_known = async {
            loop {
                if let Some(answer) = self.known(name) {
                    return answer;
                }
                self.wake.notify_one();
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            biased;
            () = until_stop => Answer::Stopping,
            answer = until_known => answer,
            () = tokio::time::sleep(PATIENCE) => {
                let failing = self.state().failing.as_ref().map(|(_, why)| why.clone());
                Answer::NotYet(failing.unwrap_or_else(|| "it is not in the archive yet".to_owned()))
            }
        }
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> ArchiveStatus {
        self.state().status.clone()
    }

    /// Whether PostgreSQL still has files that it may give up, and has not asked for a while: it gives up asking for a
    /// minute after three failures.
    #[must_use]
    pub fn sleeps(&self, longer_than: Duration) -> bool {
        let now = self.clock.now();
        let state = self.state();
        !state.confirmed.is_empty() && state.asked_at.is_none_or(|at| now.since(at) > longer_than)
    }

    /// Whether there is WAL in the archive of the name, but not with the content, that this node has: then perhaps
    /// another one leads.
    #[must_use]
    pub fn is_contradicted(&self) -> bool {
        !self.state().refused.is_empty()
    }

    /// What a person should know.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let state = self.state();
        let mut problems = Vec::new();
        if let Some(name) = state.refused.keys().next() {
            problems.push(format!(
                "the archive holds other WAL under the name of this node's, which is not overwritten. files={}, first={name}",
                state.refused.len()
            ));
        }
        let status = &state.status;
        let oldest = status
            .oldest_at
            .map_or(Duration::ZERO, |at| Duration::try_from(wall.duration_since(at)).unwrap_or_default());
        let fails = state.failing.as_ref().filter(|(since, _)| now.since(*since) >= GRACE);
        if state.refused.is_empty() && (fails.is_some() || oldest >= WAITS_MAX) {
            let why = fails.map_or("it is not in the archive yet", |(_, why)| why);
            problems.push(format!(
                "WAL is not archived. waiting={}, oldest_seconds={}, why={why}",
                status.waiting,
                oldest.as_secs()
            ));
        }
        problems
    }

    fn known(&self, name: &str) -> Option<Answer> {
        let state = self.state();
        if state.confirmed.contains(name) {
            return Some(Answer::Done);
        }
        let other =
            || Answer::NotYet(format!("the archive holds other content under this name, and keeps it. file={name}"));
        state.refused.contains_key(name).then(other)
    }

    /// Looks for files, and does with each what is to be done.
    async fn round(&self) -> Result<()> {
        let done = self.work().await;
        let now = self.clock.now();
        let mut state = self.state();
        match &done {
            Ok(()) => state.failing = None,
            Err(error) => {
                let since = state.failing.take().map_or(now, |(since, _)| since);
                tracing::warn!(error = %error.chain(), "WAL was not archived");
                state.failing = Some((since, error.chain()));
            }
        }
        state.status.failing = state.failing.as_ref().map(|(_, why)| why.clone());
        done
    }

    /// What there is to be archived; nothing where there is no data directory: then there is no telling how large segments are.
    async fn found(&self) -> Result<Option<Found>> {
        let data = self.data.clone();
        let ready = blocking(move || ready::ready(&data)).await?;
        let situation = (self.situation)();
        let Some(system) = situation.system else { return Ok(None) };
        let segment_bytes = self.segment_bytes().await?;
        let files = self.look(&ready, &situation, segment_bytes);
        Ok(Some(Found { files, situation, system, segment_bytes }))
    }

    async fn work(&self) -> Result<()> {
        let Some(Found { files: todo, situation, system, segment_bytes }) = self.found().await? else { return Ok(()) };
        if todo.is_empty() {
            return Ok(());
        }
        let (mut to_put, mut to_confirm) = (Vec::new(), Vec::new());
        for (name, file) in todo {
            match duty(file, &situation.standing, segment_bytes) {
                Duty::Release => self.confirm(&name, false),
                Duty::Confirm => to_confirm.push((name, file)),
                Duty::Put => to_put.push((name, file)),
                Duty::Wait => {}
            }
        }
        if to_put.is_empty() && to_confirm.is_empty() {
            return Ok(());
        }
        let store = self.store(system).await?;
        limited(self.look_up(&store, to_confirm)).await?;
        // What is needed to understand a timeline is there before the timeline is.
        let (past, segments): (Vec<_>, Vec<_>) =
            to_put.into_iter().partition(|(_, file)| matches!(file, WalFile::History(_)));
        for (name, file) in past {
            self.put(&store, name, file, segment_bytes).await?;
        }
        let at_once = usize::try_from((AHEAD_BYTES / segment_bytes).clamp(1, 4)).unwrap_or(1);
        let mut puts = futures_util::stream::iter(segments)
            .map(|(name, file)| self.put(&store, name, file, segment_bytes))
            .buffered(at_once);
        while let Some(put) = puts.next().await {
            put?;
        }
        Ok(())
    }

    /// Notes what waits, and says which files are to be worked on.
    fn look(&self, ready: &[(String, Ready)], situation: &Situation, segment_bytes: u64) -> Vec<(String, WalFile)> {
        let now = self.clock.now();
        let mut state = self.state();
        let names: BTreeSet<&str> = ready.iter().map(|(name, _)| name.as_str()).collect();
        state.confirmed.retain(|name| names.contains(name.as_str()));
        state.refused.retain(|name, at| names.contains(name.as_str()) && now.since(*at) < REFUSED_EVERY);
        let waits = |name: &String| !state.confirmed.contains(name);
        let waiting: Vec<_> = ready.iter().filter(|(name, _)| waits(name)).collect();
        let todo = waiting.iter().filter(|(name, _)| !state.refused.contains_key(name));
        let todo = todo.map(|(name, ready)| (name.clone(), ready.file)).collect();
        let count = waiting.len() as u64;
        let oldest = waiting.iter().filter_map(|(_, ready)| ready.since).min();
        let first = waiting.iter().find_map(|(_, ready)| match ready.file {
            WalFile::Segment(segment) => Some(segment),
            _ => None,
        });
        let stored_to = situation.standing.leads.then(|| {
            let present = situation.flushed.0 / segment_bytes * segment_bytes;
            let whole = first.map_or(present, |segment| segment.begin(segment_bytes).0);
            Lsn(whole.max(state.streamed.filter(|_| first.is_none()).unwrap_or_default().0))
        });
        let status = &mut state.status;
        status.waiting = count;
        status.oldest_at = oldest.and_then(|at| Timestamp::try_from(at).ok());
        status.stored_to = stored_to;
        status.backlog_bytes = stored_to.map(|stored| situation.flushed.ahead_of(stored));
        todo
    }

    /// Confirms those that are in the archive, by one listing a timeline.
    async fn look_up(&self, store: &WalStore, files: Vec<(String, WalFile)>) -> Result<()> {
        let mut by_timeline: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for (name, file) in files {
            by_timeline.entry(file.timeline()).or_default().insert(name);
        }
        for (timeline, names) in by_timeline {
            let (Some(first), Some(last)) = (names.first(), names.last()) else { continue };
            let found = store.names(timeline, first, Some(last)).await?;
            for name in names.intersection(&found) {
                self.confirm(name, false);
            }
        }
        Ok(())
    }

    async fn put(&self, store: &WalStore, name: String, file: WalFile, segment_bytes: u64) -> Result<()> {
        // Since the round began the lead may have been lost.
        let standing = (self.situation)().standing;
        if duty(file, &standing, segment_bytes) != Duty::Put {
            return Ok(());
        }
        let path = self.data.join("pg_wal").join(&name);
        match limited(store.put_file(file, &path)).await? {
            Stored::Created | Stored::Same => self.confirm(&name, true),
            // No recovery reads it: what counts of it is in the first segment of the timeline after it.
            Stored::Different if matches!(file, WalFile::Partial(_)) => {
                tracing::warn!(file = name, "the archive holds another end of this timeline, and keeps it");
                self.confirm(&name, false);
            }
            Stored::Different => {
                tracing::error!(file = name, "the archive holds other WAL under this name: it is not overwritten");
                let now = self.clock.now();
                self.state().refused.insert(name, now);
                self.changed.send_modify(|n| *n += 1);
            }
        }
        Ok(())
    }

    fn confirm(&self, name: &str, archived_here: bool) {
        let wall = self.clock.wall();
        {
            let mut state = self.state();
            state.confirmed.insert(name.to_owned());
            state.refused.remove(name);
            if archived_here {
                state.status.last = Some(name.to_owned());
                state.status.last_at = Some(wall);
            }
        }
        self.changed.send_modify(|n| *n += 1);
    }

    async fn store(&self, system: u64) -> Result<WalStore> {
        if let Some(store) = self.state().store.as_ref().filter(|store| store.system() == system) {
            return Ok(store.clone());
        }
        let store = limited(self.archive.open(system)).await?;
        self.state().store = Some(store.clone());
        Ok(store)
    }

    async fn segment_bytes(&self) -> Result<u64> {
        if let Some(size) = self.state().segment_bytes {
            return Ok(size);
        }
        let data = self.data.clone();
        let size = blocking(move || crate::postgres::wal_tail::segment_bytes(&data)).await?;
        self.state().segment_bytes = Some(size);
        Ok(size)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request to the sink, which may hang.
async fn limited<T>(request: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(REQUEST_LIMIT, request).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::unavailable(format!("the backup store does not answer. limit={REQUEST_LIMIT:?}"))),
    }
}

pub(super) mod stream;
#[cfg(test)]
mod tests;
