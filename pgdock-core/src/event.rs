//! [`EventLog`]: what happened on a node, for people.
//!
//! One JSON object a line, in a file that is rotated once: together the two hold at least the last
//! `bytes_max` of events. A thread of its own writes, so that a full or stalled disk never holds up the
//! agent: what cannot be written is counted, and the last events stay in memory.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::{Error, NodeName, Result, Term};

mod file;

use file::EventFile;

/// How many events stay in memory.
const KEPT: usize = 1000;
/// How many may wait for the disk.
const WAITING_MAX: usize = 1000;
/// How large a file may grow before it is rotated, in bytes.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the node's calendar clock.
    pub at: Timestamp,
    /// Where.
    pub node: NodeName,
    /// In whose reign, as far as the node knew.
    pub term: Option<Term>,
    /// What.
    pub kind: EventKind,
    /// What, for a person.
    pub message: String,
    /// What, for a program; which fields there are depends on the kind.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The agent started.
    Started,
    /// A new cluster was begun here.
    Bootstrap,
    /// A node was elected.
    LeaderElected,
    /// PostgreSQL left recovery.
    Promoted,
    /// PostgreSQL was killed, so that it acknowledges no commit any more.
    Fenced,
    /// The lead was lost to another node.
    Deposed,
    /// The lead was handed over because PostgreSQL ended here.
    Handover,
    /// The lead was handed over because an operator wanted it.
    Switchover,
    /// The leader is suspected to be dead.
    Suspected,
    /// PostgreSQL follows another upstream.
    Follow,
    /// The end of a crashed primary's WAL was taken over from its agent.
    WalTaken,
    /// The data directory was taken back to the fork.
    Rewound,
    /// WAL that nobody else has was put aside before a rewind.
    Diverged,
    /// The data directory was copied anew.
    Cloned,
    /// Other standbys than before hold every acknowledged commit.
    SyncSetChanged,
    /// The witness does not answer.
    WitnessLost,
    /// The witness answers again.
    WitnessBack,
    /// PostgreSQL ended.
    PostgresExited,
    /// PostgreSQL started.
    PostgresStarted,
    /// An operator's order arrived or ended.
    Order,
    /// Another bundle of configuration counts, or the agent went back to the one before.
    Configured,
    /// The failover IP was moved.
    AddressMoved,
    /// A base backup was begun.
    BackupBegun,
    /// A base backup was made.
    BackupMade,
    /// A base backup failed.
    BackupFailed,
    /// There is something that a person should know.
    Problem,
    /// There no longer is.
    ProblemCleared,
    /// Automatic decisions were stopped.
    Paused,
    /// Automatic decisions go on.
    Resumed,
    /// The deadman killed PostgreSQL.
    DeadmanFired,
    /// The store of the witness was seen to break its word.
    WitnessBroken,
    /// The agent stopped in order.
    Stopped,
    /// A kind that this version does not know, read from a file.
    #[serde(other)]
    Other,
}

impl std::fmt::Display for EventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match serde_json::to_value(self) {
            Ok(Value::String(name)) => f.pad(&name),
            _ => f.pad("other"),
        }
    }
}

/// A node's log of events.
#[derive(Debug)]
pub struct EventLog {
    node: NodeName,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    recent: Mutex<VecDeque<Event>>,
    /// The files held more than memory does when the log was opened.
    older_in_files: bool,
    writer: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

enum Job {
    Write(String),
    Flush(oneshot::Sender<()>),
}

impl EventLog {
    /// Opens the log, and goes on after the events that are in it.
    ///
    /// # Errors
    /// `Internal` when the writer's thread cannot be started. A file that cannot be written is no error:
    /// events are then kept in memory, and [`dropped`](Self::dropped) counts.
    pub fn open(path: &Path, node: NodeName, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::with_limit(path, node, clock, BYTES_MAX)
    }

    fn with_limit(path: &Path, node: NodeName, clock: Arc<dyn Clock>, bytes_max: u64) -> Result<Self> {
        let mut recent: VecDeque<_> = file::read(path, None).into();
        let older_in_files = recent.len() > KEPT;
        recent.drain(..recent.len().saturating_sub(KEPT));
        let dropped = Arc::new(AtomicU64::new(0));
        let (writer, jobs) = sync_channel(WAITING_MAX);
        let mut file = EventFile::new(path, bytes_max);
        let counter = dropped.clone();
        std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                for job in jobs {
                    match job {
                        Job::Write(line) => {
                            if file.append(&line).is_err() {
                                counter.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        Job::Flush(done) => {
                            let _ = done.send(());
                        }
                    }
                }
            })
            .map_err(|e| Error::internal("cannot start the thread that writes events").because(e))?;
        Ok(Self { node, path: path.to_owned(), clock, recent: Mutex::new(recent), older_in_files, writer, dropped })
    }

    /// Notes an event. Never waits.
    pub fn record(&self, kind: EventKind, term: Option<Term>, message: impl Into<String>, detail: Value) {
        let event =
            Event { at: self.clock.wall(), node: self.node.clone(), term, kind, message: message.into(), detail };
        if let Ok(line) = serde_json::to_string(&event)
            && self.writer.try_send(Job::Write(line)).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        let mut recent = self.recent();
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(event);
    }

    /// The events at and after a time, oldest first; all that are known without one. Those that are no
    /// longer in memory are read from the files, which blocks.
    #[must_use]
    pub fn since(&self, since: Option<Timestamp>) -> Vec<Event> {
        let wanted = |event: &&Event| since.is_none_or(|since| event.at >= since);
        let (in_memory, complete): (Vec<_>, _) = {
            let recent = self.recent();
            let reaches_back = recent.front().is_some_and(|first| since.is_some_and(|since| first.at < since));
            (recent.iter().filter(wanted).cloned().collect(), reaches_back || !self.has_older(recent.len()))
        };
        if complete {
            return in_memory;
        }
        // The newest may not be on disk yet, or never get there.
        let mut events = file::read(&self.path, since);
        if let Some(first) = in_memory.first() {
            let overlap = events.iter().position(|event| event.at >= first.at && in_memory.contains(event));
            events.truncate(overlap.unwrap_or(events.len()));
        }
        events.extend(in_memory);
        events
    }

    /// How many events never got to disk, because it was full, failed, or was too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all events so far are written, or the time is up.
    pub async fn flush(&self, budget: Duration) {
        let (done, waiting) = oneshot::channel();
        if self.writer.try_send(Job::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(budget, waiting).await;
        }
    }

    fn has_older(&self, in_memory: usize) -> bool {
        self.older_in_files || in_memory == KEPT
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, VecDeque<Event>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::clock::SystemClock;

    fn open(path: &Path, bytes_max: u64) -> EventLog {
        EventLog::with_limit(path, NodeName::new("n1").unwrap(), Arc::new(SystemClock), bytes_max).unwrap()
    }

    async fn flush(log: &EventLog) {
        log.flush(Duration::from_secs(20)).await;
    }

    fn messages(events: &[Event]) -> Vec<&str> {
        events.iter().map(|e| e.message.as_str()).collect()
    }

    #[tokio::test]
    async fn events_outlive_the_log_and_a_torn_line() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("logs/events.ndjson");
        let log = open(&path, BYTES_MAX);
        log.record(EventKind::Started, None, "one", Value::Null);
        log.record(EventKind::Promoted, Some(Term(3)), "two", json!({"timeline": 2}));
        flush(&log).await;
        drop(log);
        // A crash amid a write, and a kind of a later version.
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str(&text.lines().next().unwrap().replace("started", "of_the_future"));
        text.push_str("\n{\"at\":\"20");
        std::fs::write(&path, text).unwrap();

        let log = open(&path, BYTES_MAX);
        log.record(EventKind::Stopped, Some(Term(3)), "three", Value::Null);
        flush(&log).await;
        drop(log);
        let events = open(&path, BYTES_MAX).since(None);
        assert_eq!(messages(&events), ["one", "two", "one", "three"]);
        assert_eq!(events[1].detail, json!({"timeline": 2}));
        assert_eq!(events[2].kind, EventKind::Other);
        assert_eq!(log_lines(&path), 5);
    }

    fn log_lines(path: &Path) -> usize {
        std::fs::read_to_string(path).unwrap().lines().count()
    }

    #[tokio::test]
    async fn files_stay_bounded_and_memory_too() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("events.ndjson");
        let log = open(&path, 64 * 1024);
        let last = 4 * KEPT;
        for i in 1..=last {
            log.record(EventKind::Problem, None, format!("event {i}"), Value::Null);
            if i % 100 == 0 {
                flush(&log).await;
            }
        }
        let size: u64 = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(size > 64 * 1024 && size <= 2 * 64 * 1024, "size={size}");
        assert_eq!(log.dropped(), 0);
        let events = log.since(None);
        let numbers: Vec<usize> = events.iter().map(|e| e.message[6..].parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a gap or a repetition");
        assert_eq!(numbers.last(), Some(&last));
    }

    #[tokio::test]
    async fn since_is_answered_from_memory_and_files_alike() {
        let dir = TempDir::new().unwrap();
        let log = open(&dir.path().join("events.ndjson"), BYTES_MAX);
        for i in 0..KEPT + 200 {
            log.record(EventKind::Problem, None, format!("{i}"), Value::Null);
            if i % 100 == 0 {
                flush(&log).await;
            }
        }
        flush(&log).await;
        let all = log.since(None);
        assert_eq!(all.len(), KEPT + 200);
        for from in [100, 1100] {
            let since = log.since(Some(all[from].at));
            assert!(since.ends_with(&all[from..]), "from={from}");
            assert!(since.iter().all(|e| e.at >= all[from].at));
        }
    }

    #[tokio::test]
    async fn a_full_disk_costs_only_the_file() {
        let log = open(Path::new("/dev/full"), BYTES_MAX);
        for i in 0..3 {
            log.record(EventKind::Fenced, None, format!("{i}"), Value::Null);
        }
        flush(&log).await;
        assert_eq!(messages(&log.since(None)), ["0", "1", "2"]);
        assert_eq!(log.dropped(), 3);
    }
}
