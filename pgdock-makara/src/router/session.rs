//! The context of a task: what it wrote, it reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;

use crate::{CommitToken, Context, clock};

tokio::task_local! {
    static CURRENT: Session;
    static MODE: Mode;
}

/// What a part of a task asks for, whatever its session says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    OnPrimary,
    WithoutSticking,
}

/// Runs a future whose reads all go to the primary.
pub async fn on_primary<F: Future>(future: F) -> F::Output {
    MODE.scope(Mode::OnPrimary, future).await
}

/// Runs a future whose reads go where they would if nothing had been written, and whose writes are not remembered:
/// for work of which nobody expects to see the effect at once. What the session remembered before holds again after
/// it.
pub async fn without_sticking<F: Future>(future: F) -> F::Output {
    MODE.scope(Mode::WithoutSticking, future).await
}

/// How a router sees to it that a session reads what it wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sticky {
    /// It does not: reads may be behind.
    Off,
    /// After a write, the session reads from the primary, until so long after the end of its request: Makara's way.
    Ttl(Duration),
    /// After a write, the session reads from standbys that have replayed it, each asked for each read, or from the
    /// primary.
    Lsn {
        /// For how long a session remembers, counted from the end of its request. It is also for how long it reads
        /// from the primary where the position cannot help: the end of a write is unknown, or a failover came between.
        ttl: Duration,
        /// How long a read may wait for a standby to replay, before it goes to the primary. Zero does not wait.
        wait: Duration,
    },
}

impl Sticky {
    pub(super) fn ttl(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::Ttl(ttl) | Self::Lsn { ttl, .. } => Some(ttl),
        }
    }
}

/// What a session remembers between its requests, by the id of the router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Until when it reads from the primary.
    pub deadlines: BTreeMap<String, SystemTime>,
    /// What it has to see, and until when it remembers that.
    pub tokens: BTreeMap<String, (CommitToken, SystemTime)>,
}

impl Memory {
    /// One that remembers deadlines alone.
    #[must_use]
    pub fn of(deadlines: BTreeMap<String, SystemTime>) -> Self {
        Self { deadlines, tokens: BTreeMap::new() }
    }

    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty() && self.tokens.is_empty()
    }

    /// When the last of it is over.
    #[must_use]
    pub fn until(&self) -> Option<SystemTime> {
        self.deadlines.values().chain(self.tokens.values().map(|(_, until)| until)).max().copied()
    }
}

/// A [`Context`], and the [`CommitToken`]s of its writes, that the statements of a task share. Clones are the same
/// session.
///
/// A task that is spawned does not inherit it: use [`spawn`](Self::spawn), or wrap its future in
/// [`scope`](Self::scope) too. Outside any session, nothing sticks.
#[derive(Clone, Debug)]
pub struct Session(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    context: Context,
    tokens: BTreeMap<String, Required>,
    changed: bool,
}

/// What the reads of a session have to see.
#[derive(Clone, Copy, Debug)]
struct Required {
    token: CommitToken,
    /// Until when an earlier request said that it holds.
    until: Option<SystemTime>,
    /// For how long after the end of this request it does.
    staged: Option<Duration>,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session without a past.
    #[must_use]
    pub fn new() -> Self {
        Self::resumed(Memory::default())
    }

    /// A session that goes on with what an earlier one remembered, as [`commit`](Self::commit) gave it.
    #[must_use]
    pub fn resumed(memory: Memory) -> Self {
        let now = clock::wall();
        let required = |(token, until)| Required { token, until: Some(until), staged: None };
        let live = memory.tokens.into_iter().filter(|(_, (_, until))| *until > now);
        let tokens = live.map(|(id, stored)| (id, required(stored))).collect();
        Self(Arc::new(Mutex::new(Inner { context: Context::resumed(memory.deadlines, now), tokens, changed: false })))
    }

    /// Runs a future in this session.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        CURRENT.scope(self.clone(), future).await
    }

    /// Runs a function in this session.
    #[cfg(feature = "tower")]
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// Spawns a task in this session.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(CURRENT.scope(self.clone(), future))
    }

    /// The session of the running task.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Sends reads of a router to the primary, from now to so long after the next [`commit`](Self::commit).
    pub fn stick_to_primary(&self, router: &str, ttl: Duration) {
        self.with(|inner| inner.context.stick(router, ttl));
    }

    /// Whether reads of a router go to the primary.
    #[must_use]
    pub fn is_stuck(&self, router: &str) -> bool {
        self.with(|inner| inner.context.is_stuck(router))
    }

    /// Has the reads of a router see what a token names, from now to so long after the next
    /// [`commit`](Self::commit): for a token that came with a message, or from another service. The later of several
    /// counts.
    pub fn require(&self, router: &str, token: CommitToken, ttl: Duration) {
        self.with(|inner| {
            let required =
                inner.tokens.entry(router.to_owned()).or_insert(Required { token, until: None, staged: None });
            required.token = required.token.later(token);
            required.staged = required.staged.max(Some(ttl));
        });
    }

    /// What the reads of a router have to see, to be handed to somebody else who shall see it.
    #[must_use]
    pub fn token(&self, router: &str) -> Option<CommitToken> {
        self.with(|inner| inner.tokens.get(router).map(|required| required.token))
    }

    /// Forgets what was written through a router.
    pub fn release(&self, router: &str) {
        self.with(|inner| {
            inner.context.release(router);
            inner.changed |= inner.tokens.remove(router).is_some_and(|required| required.until.is_some());
        });
    }

    /// Forgets everything.
    pub fn release_all(&self) {
        self.with(|inner| {
            inner.context.release_all();
            inner.changed |= std::mem::take(&mut inner.tokens).values().any(|required| required.until.is_some());
        });
    }

    /// Ends a request: times to live count from now. Returns what to keep for the next one, if it changed.
    #[must_use]
    pub fn commit(&self) -> Option<Memory> {
        let now = clock::wall();
        self.with(|inner| {
            let mut changed = std::mem::take(&mut inner.changed) | inner.context.commit(now).is_some();
            inner.tokens.retain(|_, required| {
                if let Some(ttl) = required.staged.take() {
                    required.until = required.until.max(Some(now + ttl));
                    changed = true;
                }
                let live = required.until.is_some_and(|until| until > now);
                changed |= !live;
                live
            });
            let tokens =
                inner.tokens.iter().filter_map(|(id, required)| Some((id.clone(), (required.token, required.until?))));
            changed.then(|| Memory { deadlines: inner.context.deadlines().clone(), tokens: tokens.collect() })
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        // A session is whole between any two of its operations, none of which calls foreign code.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Which nodes may answer a read of this task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Any,
    Primary,
    /// Those that have replayed this.
    Seen(CommitToken),
}

pub(super) fn demand(router: &str) -> Demand {
    match MODE.try_with(|mode| *mode) {
        Ok(Mode::OnPrimary) => return Demand::Primary,
        Ok(Mode::WithoutSticking) => return Demand::Any,
        Err(_) => {}
    }
    let asked = CURRENT.try_with(|session| {
        session.with(|inner| match inner.tokens.get(router) {
            _ if inner.context.is_stuck(router) => Demand::Primary,
            Some(required) => Demand::Seen(required.token),
            None => Demand::Any,
        })
    });
    asked.unwrap_or(Demand::Any)
}

/// The session that remembers what this task writes.
fn remembering() -> Option<Session> {
    if MODE.try_with(|mode| *mode) == Ok(Mode::WithoutSticking) {
        return None;
    }
    Session::current()
}

/// A write under way. When it ends, the session remembers it: by its position if that is known, and else, also when
/// the write is given up half way, by sticking to the primary.
pub(super) struct Writing<'a> {
    session: Option<Session>,
    router: &'a str,
    sticky: Sticky,
}

impl<'a> Writing<'a> {
    pub(super) fn begin(router: &'a str, sticky: Sticky) -> Self {
        let session = if sticky == Sticky::Off { None } else { remembering() };
        Self { session, router, sticky }
    }

    /// One that nobody remembers.
    pub(super) fn forgotten(router: &'a str) -> Self {
        Self { session: None, router, sticky: Sticky::Off }
    }

    /// Whether somebody asks for the position of its end.
    pub(super) fn wants_position(&self) -> bool {
        self.session.is_some() && matches!(self.sticky, Sticky::Lsn { .. })
    }

    /// It ended here.
    pub(super) fn ended(mut self, token: Option<CommitToken>) {
        if let (Sticky::Lsn { ttl, .. }, Some(token)) = (self.sticky, token)
            && let Some(session) = self.session.take()
        {
            session.require(self.router, token, ttl);
        }
    }

    /// It did nothing.
    pub(super) fn nothing(mut self) {
        self.session = None;
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let (Some(session), Some(ttl)) = (&self.session, self.sticky.ttl()) {
            session.stick_to_primary(self.router, ttl);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);
    const TOKEN: CommitToken = CommitToken { system: 1, timeline: 1, lsn: 7 };

    #[tokio::test]
    async fn a_write_is_remembered_by_its_position_and_without_one_by_sticking() {
        let lsn = Sticky::Lsn { ttl: TTL, wait: Duration::ZERO };
        for (sticky, token, expected) in [
            (Sticky::Off, Some(TOKEN), Demand::Any),
            (Sticky::Ttl(TTL), Some(TOKEN), Demand::Primary),
            (lsn, Some(TOKEN), Demand::Seen(TOKEN)),
            (lsn, None, Demand::Primary),
        ] {
            let session = Session::new();
            session
                .scope(async {
                    let writing = Writing::begin("app", sticky);
                    assert_eq!(writing.wants_position(), sticky == lsn);
                    writing.ended(token);
                    assert_eq!((demand("app"), demand("other")), (expected, Demand::Any), "{sticky:?}");
                    assert_eq!(on_primary(async { demand("app") }).await, Demand::Primary);
                    assert_eq!(without_sticking(async { demand("app") }).await, Demand::Any);
                })
                .await;
            let memory = session.commit();
            assert_eq!(memory.is_some(), sticky != Sticky::Off);
            let resumed = Session::resumed(memory.unwrap_or_default());
            assert_eq!(resumed.scope(async { demand("app") }).await, expected, "the next request");
        }
    }

    #[tokio::test]
    async fn a_write_that_is_given_up_sticks_and_one_that_did_nothing_does_not() {
        let sticky = Sticky::Lsn { ttl: TTL, wait: Duration::ZERO };
        let session = Session::new();
        session
            .scope(async {
                Writing::begin("app", sticky).nothing();
                without_sticking(async { drop(Writing::begin("app", sticky)) }).await;
                assert_eq!(demand("app"), Demand::Any);
                drop(Writing::begin("app", sticky));
                assert_eq!(demand("app"), Demand::Primary);
            })
            .await;
    }

    #[tokio::test]
    async fn the_later_token_counts_and_is_kept_until_the_ttl_after_the_request() {
        let session = Session::new();
        assert_eq!(session.commit(), None);
        session.require("app", CommitToken { lsn: 9, ..TOKEN }, TTL);
        session.require("app", TOKEN, Duration::ZERO);
        assert_eq!(session.token("app").map(|token| token.lsn), Some(9));
        let memory = session.commit().expect("there is something to remember");
        assert!(memory.until() > Some(clock::wall() + TTL / 2) && memory.deadlines.is_empty());
        assert_eq!(session.commit(), None, "nothing new");
        let resumed = Session::resumed(memory);
        resumed.release("app");
        assert_eq!((resumed.token("app"), resumed.commit()), (None, Some(Memory::default())));
        let over = BTreeMap::from([("app".to_owned(), (TOKEN, SystemTime::UNIX_EPOCH))]);
        assert_eq!(Session::resumed(Memory { tokens: over, ..Memory::default() }).token("app"), None);
    }
}
