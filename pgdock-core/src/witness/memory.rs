//! [`MemoryWitness`]: a document in memory, for tests; it can also lie, to see that [`probe`](super::probe())
//! notices.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{Record, Swap, Version, Witness};
use crate::{Error, Result};

/// How a store can fail to be a witness. Each of these was seen in a real product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Lie {
    /// It creates over a document that exists.
    IgnoresCreate,
    /// It replaces the document whatever its version is.
    IgnoresVersion,
    /// It looks first and writes afterwards, so that two racers both pass.
    ChecksThenWrites,
    /// Its reads answer the document before the present one, as a cache does.
    AnswersOld,
    /// It says that it has written, and has not.
    DropsWrites,
}

impl Lie {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::IgnoresCreate, Self::IgnoresVersion, Self::ChecksThenWrites, Self::AnswersOld, Self::DropsWrites];
}

/// A document in memory. All who hold the same [`Arc`](std::sync::Arc) share it.
#[derive(Debug, Default)]
pub struct MemoryWitness {
    lie: Option<Lie>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    unreachable: bool,
    history: Vec<(Record, Version)>,
}

impl MemoryWitness {
    /// No document yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that breaks the contract in one way.
    #[must_use]
    pub fn lying(lie: Lie) -> Self {
        Self { lie: Some(lie), ..Self::default() }
    }

    /// Whether it answers. While it does not, nothing lands.
    pub fn set_reachable(&self, reachable: bool) {
        self.state().unreachable = !reachable;
    }

    /// Every document that was committed, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<(Record, Version)> {
        self.state().history.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allows(&self, state: &State, expected: Option<&Version>) -> bool {
        match (self.lie, expected) {
            (Some(Lie::IgnoresCreate), None) | (Some(Lie::IgnoresVersion), Some(_)) => true,
            _ => state.history.last().map(|(_, version)| version) == expected,
        }
    }
}

impl State {
    fn check(&self) -> Result<()> {
        if self.unreachable { Err(Error::unavailable("the witness is set to be unreachable")) } else { Ok(()) }
    }
}

impl std::fmt::Display for MemoryWitness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("memory:")
    }
}

#[async_trait]
impl Witness for MemoryWitness {
    async fn read(&self) -> Result<Option<(Record, Version)>> {
        let state = self.state();
        state.check()?;
        let back = usize::from(self.lie == Some(Lie::AnswersOld) && state.history.len() > 1);
        Ok(state.history.iter().rev().nth(back).cloned())
    }

    async fn compare_and_swap(&self, next: &Record, expected: Option<&Version>) -> Swap {
        if self.lie == Some(Lie::ChecksThenWrites) {
            if !self.allows(&self.state(), expected) {
                return Swap::Conflict;
            }
            tokio::task::yield_now().await;
        }
        let mut state = self.state();
        if let Err(unreachable) = state.check() {
            return Swap::Ambiguous(unreachable);
        }
        if self.lie != Some(Lie::ChecksThenWrites) && !self.allows(&state, expected) {
            return Swap::Conflict;
        }
        let version = Version(format!("{}-{}", state.history.len() + 1, next.nonce));
        if self.lie != Some(Lie::DropsWrites) {
            state.history.push((next.clone(), version.clone()));
        }
        Swap::Committed(version)
    }

    fn kind(&self) -> &'static str {
        "memory"
    }
}
