//! [`MemoryFailoverIp`]: an address that exists only in a test.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{FailoverIp, Holder, Target};
use crate::{Error, Result};

/// An address in memory. All who hold the same [`Arc`](std::sync::Arc) share it.
#[derive(Debug, Default)]
pub struct MemoryFailoverIp(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    unreachable: bool,
    holder: Option<Holder>,
    moves: Vec<Target>,
}

impl MemoryFailoverIp {
    /// An address that points to nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether its keeper answers. While it does not, nothing moves.
    pub fn set_reachable(&self, reachable: bool) {
        self.state().unreachable = !reachable;
    }

    /// Points it elsewhere, as by an operator's hand.
    pub fn point_to(&self, holder: Option<Holder>) {
        self.state().holder = holder;
    }

    /// Every move so far, oldest first. An assignment to whoever holds it is none.
    #[must_use]
    pub fn moves(&self) -> Vec<Target> {
        self.state().moves.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> Result<()> {
        if self.unreachable {
            return Err(Error::unavailable("the keeper of the failover address is set to be unreachable"));
        }
        Ok(())
    }
}

impl std::fmt::Display for MemoryFailoverIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("memory")
    }
}

#[async_trait]
impl FailoverIp for MemoryFailoverIp {
    async fn current(&self) -> Result<Option<Holder>> {
        let state = self.state();
        state.check()?;
        Ok(state.holder.clone())
    }

    async fn assign(&self, target: &Target) -> Result<()> {
        let mut state = self.state();
        state.check()?;
        if !state.holder.as_ref().is_some_and(|holder| holder.is(target)) {
            state.holder = Some(Holder::Node(target.node.clone()));
            state.moves.push(target.clone());
        }
        Ok(())
    }
}
