//! [`probe()`]: whether a store honours the conditions that a witness rests on.
//!
//! Some stores ignore the condition of a write, some check it and write afterwards, some answer reads from
//! a cache. With such a store two nodes can both become primary, so it is refused before it matters.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;

use super::record::Durability;
use super::{Record, Swap, Version, Witness, fresh_nonce};
use crate::clock::Clock;
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::{History, TimelineId};
use crate::{Error, ErrorKind, Result, Term};

/// How many try to change the document at once.
const RACERS: usize = 8;
/// How many such races are run.
const RACES: u64 = 4;
/// How often a store is asked that wants to be asked more slowly, and how long it is left alone meanwhile.
const TRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(1_100);

/// A document for [`probe()`] alone, with the means to remove it.
pub struct Scratch {
    handles: Vec<(String, Arc<dyn Witness>)>,
    remove: Pin<Box<dyn Future<Output = Result<()>> + Send>>,
}

impl Scratch {
    /// A document that did not exist before, and what removes it.
    pub fn new(witness: Arc<dyn Witness>, remove: impl Future<Output = Result<()>> + Send + 'static) -> Self {
        Self { handles: vec![(String::new(), witness)], remove: Box::pin(remove) }
    }

    /// Probes through these handles to the document instead, each through an address of its own.
    ///
    /// # Panics
    /// Without a handle.
    #[must_use]
    pub fn through(mut self, handles: Vec<(String, Arc<dyn Witness>)>) -> Self {
        assert!(!handles.is_empty(), "a probe needs a handle");
        self.handles = handles;
        self
    }

    /// Probes the store by this document, then removes it. A document that could not be removed does no
    /// harm, and fails no probe: the report tells.
    pub async fn probe(self, clock: &dyn Clock) -> ProbeReport {
        let handles: Vec<_> = self.handles.iter().map(|(_, witness)| witness.as_ref()).collect();
        let mut report = probe_through(&handles, clock).await;
        report.endpoints = self.handles.iter().map(|(name, _)| name.clone()).filter(|name| !name.is_empty()).collect();
        report.left_behind = self.remove.await.err().map(|e| e.chain());
        report
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("handles", &self.handles).finish_non_exhaustive()
    }
}

/// What a probe saw.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// The store, as it calls itself.
    pub store: String,
    /// The addresses of the store through which it was probed, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<String>,
    /// Each check, in the order that they ran.
    pub checks: Vec<Check>,
    /// Why the scratch document was not removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_behind: Option<String>,
    #[serde(skip)]
    why: Option<Why>,
}

/// What can be done where nothing is known.
#[derive(Clone, Debug)]
struct Why {
    kind: ErrorKind,
    hints: Vec<String>,
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What the store must do.
    pub name: &'static str,
    /// Whether it did.
    pub verdict: Verdict,
    /// How long the check took, in microseconds. A race counts as one round of requests.
    pub micros: u64,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The store did what it must.
    Passed,
    /// The store broke the contract: it must not be used.
    Failed(String),
    /// The store did not answer: nothing is known.
    Unknown(String),
}

impl ProbeReport {
    /// Whether every check passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.verdict == Verdict::Passed)
    }

    /// Refuses a store that did not pass.
    ///
    /// # Errors
    /// `NeedsOperator` when the store broke the contract; what the store answered, such as `Unavailable`, when
    /// it could not be tried.
    pub fn into_result(self) -> Result<()> {
        let store = &self.store;
        for check in &self.checks {
            match &check.verdict {
                Verdict::Failed(why) => {
                    return Err(Error::needs_operator(format!(
                        "the store cannot be a witness: it {why}. check={}, store={store}",
                        check.name.replace(' ', "-")
                    ))
                    .hint("two nodes could both become primary with it; use another store"));
                }
                Verdict::Unknown(said) => {
                    let kind = self.why.as_ref().map_or(ErrorKind::Unavailable, |why| why.kind);
                    let error = Error::new(kind, format!("the witness could not be probed: {said}. store={store}"));
                    let hints = self.why.iter().flat_map(|why| &why.hints);
                    return Err(hints.fold(error, |error, hint| error.hint(hint)));
                }
                Verdict::Passed => {}
            }
        }
        Ok(())
    }
}

/// Checks by a document that belongs to no cluster whether a store keeps the contract of [`Witness`].
///
/// The document must not exist yet. Answers that get lost leave a check unknown; they are no breach.
pub async fn probe(witness: &dyn Witness, clock: &dyn Clock) -> ProbeReport {
    probe_through(&[witness], clock).await
}

/// The same through several handles to one document, such as the addresses of a store: what is written
/// through one of them must hold for all the others.
///
/// # Panics
/// Without a handle.
pub async fn probe_through(handles: &[&dyn Witness], clock: &dyn Clock) -> ProbeReport {
    assert!(!handles.is_empty(), "a probe needs a handle");
    let mut probe =
        Probe { handles, turn: AtomicUsize::new(0), clock, checks: Vec::new(), seen: Vec::new(), why: None };
    probe.all().await;
    ProbeReport {
        store: handles[0].to_string(),
        endpoints: Vec::new(),
        checks: probe.checks,
        left_behind: None,
        why: probe.why,
    }
}

/// A document of no cluster, with a nonce of its own: to try a store with.
#[must_use]
pub fn scratch_record(heartbeat: u64) -> Record {
    Record {
        format: Durability::Async.format(),
        cluster: "scratch".to_owned(),
        system_identifier: 0,
        term: Term(0),
        leader: None,
        heartbeat,
        nonce: fresh_nonce(),
        ttl: Duration::from_secs(10),
        durability: Durability::Async,
        sync_set: Default::default(),
        acks: 0,
        handoff_to: None,
        timeline: TimelineId(1),
        leader_lsn: Lsn(0),
        members: Default::default(),
        barred: Default::default(),
        paused: false,
        bundle: Default::default(),
        history: History::new(TimelineId(1)),
        backup: None,
    }
}

struct Probe<'a> {
    handles: &'a [&'a dyn Witness],
    turn: AtomicUsize,
    clock: &'a dyn Clock,
    checks: Vec<Check>,
    seen: Vec<Version>,
    why: Option<Why>,
}

/// Why a check did not pass.
enum Bad {
    Broke(String),
    Unknown(Error),
}

type Checked<T = ()> = std::result::Result<T, Bad>;

fn broke<T>(what: impl Into<String>) -> Checked<T> {
    Err(Bad::Broke(what.into()))
}

/// What a swap without a clear answer says of the store.
fn unclear(error: Error) -> Bad {
    // A store that says itself that it cannot do it needs no further proof.
    if error.kind() == ErrorKind::NeedsOperator { Bad::Broke(error.chain()) } else { Bad::Unknown(error) }
}

/// Whether the store only wants to be asked more slowly.
fn is_hurried(swap: &Swap) -> bool {
    matches!(swap, Swap::Ambiguous(e) if e.outcome_known() && e.kind() == ErrorKind::Unavailable)
}

impl Probe<'_> {
    /// Every check rests on those before it, so that the first one that does not pass ends the probe.
    async fn all(&mut self) -> Option<()> {
        let started = self.clock.now();
        let done = self.starts_empty().await;
        self.note("answers, without a document", started, done)?;

        let started = self.clock.now();
        let done = self.race(None, 0).await;
        let created = self.note("lets one of eight create", started, done)?;

        let started = self.clock.now();
        let done = self.is_refused(None).await;
        self.note("refuses to create twice", started, done)?;

        let started = self.clock.now();
        let done = self.update(&created).await;
        let mut present = self.note("replaces the present document", started, done)?;

        let started = self.clock.now();
        let done = self.is_refused(Some(&created)).await;
        self.note("refuses a stale version", started, done)?;

        for round in 0..RACES {
            let started = self.clock.now();
            let done = self.race(Some(&present), round + 2).await;
            present = self.note("lets one of eight replace", started, done)?;
        }

        let started = self.clock.now();
        let done = self.is_refused(Some(&created)).await;
        self.note("still refuses a stale version", started, done)
    }

    fn note<T>(&mut self, name: &'static str, started: crate::clock::Moment, done: Checked<T>) -> Option<T> {
        let micros = u64::try_from(self.clock.now().since(started).as_micros()).unwrap_or(u64::MAX);
        let (verdict, value) = match done {
            Ok(value) => (Verdict::Passed, Some(value)),
            Err(Bad::Broke(what)) => (Verdict::Failed(what), None),
            Err(Bad::Unknown(error)) => {
                self.why = Some(Why { kind: error.kind(), hints: error.hints().to_vec() });
                (Verdict::Unknown(error.chain()), None)
            }
        };
        self.checks.push(Check { name, verdict, micros });
        value
    }

    /// The handles in turn, so that what one has done is looked at through another.
    fn handle(&self) -> &dyn Witness {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.handles[turn % self.handles.len()]
    }

    async fn read(&self) -> Checked<Option<(Record, Version)>> {
        self.handle().read().await.map_err(Bad::Unknown)
    }

    /// Some stores allow one write a second to one object: they are given the time.
    async fn swap(&self, next: &Record, expected: Option<&Version>) -> Swap {
        for _ in 1..TRIES {
            let swap = self.handle().compare_and_swap(next, expected).await;
            if !is_hurried(&swap) {
                return swap;
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.handle().compare_and_swap(next, expected).await
    }

    async fn starts_empty(&self) -> Checked {
        match self.read().await? {
            None => Ok(()),
            Some(_) => Err(Bad::Unknown(Error::conflict("the scratch document exists already"))),
        }
    }

    /// The document must be this one, under this version, which must be new.
    async fn shows(&mut self, nonce: &str, version: Version) -> Checked<Version> {
        match self.read().await? {
            None => return broke("lost a document that it had committed"),
            Some((record, _)) if record.nonce != nonce => {
                return broke("answered another document than the one committed last");
            }
            Some((_, read)) if read != version => return broke("gave two versions to one document"),
            Some(_) => {}
        }
        if self.seen.contains(&version) {
            return broke("gave one version to two documents");
        }
        self.seen.push(version.clone());
        Ok(version)
    }

    async fn update(&mut self, expected: &Version) -> Checked<Version> {
        let next = scratch_record(1);
        match self.swap(&next, Some(expected)).await {
            Swap::Committed(version) => self.shows(&next.nonce, version).await,
            Swap::Conflict => broke("refused the version that it had given itself"),
            Swap::Ambiguous(e) => Err(unclear(e)),
        }
    }

    /// A write with a wrong condition must be refused, and must change nothing.
    async fn is_refused(&self, expected: Option<&Version>) -> Checked {
        let before = self.read().await?;
        match self.swap(&scratch_record(99), expected).await {
            Swap::Committed(_) if expected.is_none() => return broke("created a document over one that exists"),
            Swap::Committed(_) => return broke("replaced a document by a stale version"),
            Swap::Ambiguous(e) => return Err(unclear(e)),
            Swap::Conflict => {}
        }
        if self.read().await? == before { Ok(()) } else { broke("changed a document though it refused to") }
    }

    async fn race(&mut self, expected: Option<&Version>, heartbeat: u64) -> Checked<Version> {
        for _ in 1..TRIES {
            let documents: Vec<_> = (0..RACERS).map(|_| scratch_record(heartbeat)).collect();
            let racing = documents.iter().map(|next| (self.handle(), next));
            let racing = racing.map(|(handle, next)| handle.compare_and_swap(next, expected));
            let swaps = join_all(racing).await;
            let (mut won, mut hurried, mut unknown) = (Vec::new(), false, None);
            for (document, swap) in documents.iter().zip(swaps) {
                hurried |= is_hurried(&swap);
                match swap {
                    Swap::Committed(version) => won.push((document, version)),
                    Swap::Conflict => {}
                    Swap::Ambiguous(e) if e.outcome_known() && e.kind() == ErrorKind::Unavailable => {}
                    Swap::Ambiguous(e) => unknown = Some(unclear(e)),
                }
            }
            return match (won.pop(), unknown) {
                (Some(_), _) if !won.is_empty() => broke(format!("let {} of {RACERS} racers win", won.len() + 1)),
                (_, Some(unknown)) => Err(unknown),
                (Some((document, version)), None) => self.shows(&document.nonce, version).await,
                (None, None) if hurried => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                (None, None) => broke("let nobody win a race"),
            };
        }
        Err(Bad::Unknown(Error::unavailable("the store takes no write, again and again")))
    }
}
