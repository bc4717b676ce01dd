//! [`FaultyExecutor`]: a node behind a bad network, the same one for the same seed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use super::command::{Command, Exit};
use super::{Executor, OnOutput};
use crate::dice::Dice;
use crate::{Error, Result};

/// Wraps an executor. Without further settings nothing is lost.
#[derive(Debug)]
pub struct FaultyExecutor {
    inner: Arc<dyn Executor>,
    dice: Dice,
    refuse: f64,
    lose_answers: f64,
    delay: (f64, Duration),
}

impl FaultyExecutor {
    /// Around an executor, with the seed of its faults.
    #[must_use]
    pub fn new(inner: Arc<dyn Executor>, seed: u64) -> Self {
        Self { inner, dice: Dice::new(seed), refuse: 0.0, lose_answers: 0.0, delay: (0.0, Duration::ZERO) }
    }

    /// How probable it is that the node cannot be reached: nothing happens there.
    #[must_use]
    pub fn refuse(mut self, probability: f64) -> Self {
        self.refuse = probability;
        self
    }

    /// How probable it is that a call has its effect and its answer is lost.
    #[must_use]
    pub fn lose_answers(mut self, probability: f64) -> Self {
        self.lose_answers = probability;
        self
    }

    /// How probable it is that a call begins later, by up to `most`.
    #[must_use]
    pub fn delay(mut self, probability: f64, most: Duration) -> Self {
        self.delay = (probability, most);
        self
    }

    async fn before(&self) -> Result<()> {
        let delay = self.dice.delay(self.delay.1);
        if self.dice.chance(self.delay.0) {
            tokio::time::sleep(delay).await;
        }
        if self.dice.chance(self.refuse) {
            return Err(Error::unavailable(format!("the node refused. node={self}, seed={}", self.dice.seed())));
        }
        Ok(())
    }

    fn after<T>(&self, answer: Result<T>) -> Result<T> {
        if self.dice.chance(self.lose_answers) {
            let lost = format!("the node's answer was lost. node={self}, seed={}", self.dice.seed());
            return Err(Error::unavailable(lost).outcome_unknown());
        }
        answer
    }
}

impl std::fmt::Display for FaultyExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl Executor for FaultyExecutor {
    async fn run(&self, command: &Command, output: &mut OnOutput<'_>) -> Result<Exit> {
        self.before().await?;
        self.after(self.inner.run(command, output).await)
    }

    async fn put_file(&self, from: &mut (dyn AsyncRead + Send + Unpin), path: &Path, mode: u32) -> Result<()> {
        self.before().await?;
        self.after(self.inner.put_file(from, path, mode).await)
    }

    async fn get_file(&self, path: &Path, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64> {
        self.before().await?;
        self.after(self.inner.get_file(path, to).await)
    }
}
