//! The context of a task: what it wrote, it reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::{Context, clock};

tokio::task_local! {
    static CURRENT: Session;
}

/// A [`Context`] that the statements of a task share. Clones are the same session.
///
/// A task that is spawned does not inherit it: wrap its future in [`scope`](Self::scope) too. Outside any session,
/// nothing sticks.
#[derive(Clone, Debug)]
pub struct Session(Arc<Mutex<Context>>);

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session without a past.
    #[must_use]
    pub fn new() -> Self {
        Self::resumed(BTreeMap::new())
    }

    /// A session that goes on with the deadlines of an earlier one, as [`commit`](Self::commit) gave them.
    #[must_use]
    pub fn resumed(deadlines: BTreeMap<String, SystemTime>) -> Self {
        Self(Arc::new(Mutex::new(Context::resumed(deadlines, clock::wall()))))
    }

    /// Runs a future in this session.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        CURRENT.scope(self.clone(), future).await
    }

    /// The session of the running task.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Sends reads of a router to the primary, from now to so long after the next [`commit`](Self::commit).
    pub fn stick_to_primary(&self, router: &str, ttl: Duration) {
        self.with(|context| context.stick(router, ttl));
    }

    /// Whether reads of a router go to the primary.
    #[must_use]
    pub fn is_stuck(&self, router: &str) -> bool {
        self.with(|context| context.is_stuck(router))
    }

    /// Forgets what was written through a router.
    pub fn release(&self, router: &str) {
        self.with(|context| context.release(router));
    }

    /// Ends a request: times to live count from now. Returns the deadlines to keep for the next one, if they changed.
    #[must_use]
    pub fn commit(&self) -> Option<BTreeMap<String, SystemTime>> {
        self.with(|context| context.commit(clock::wall()).cloned())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Context) -> T) -> T {
        // A context is whole between any two of its operations, none of which calls foreign code.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) fn is_stuck(router: &str) -> bool {
    CURRENT.try_with(|session| session.is_stuck(router)).unwrap_or(false)
}

pub(super) fn stick(router: &str, ttl: Duration) {
    let _ = CURRENT.try_with(|session| session.stick_to_primary(router, ttl));
}
