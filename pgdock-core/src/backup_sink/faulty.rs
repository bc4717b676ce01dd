//! [`FaultySink`]: a store behind a bad network, the same one for the same seed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, ReadBuf};

use super::{BackupSink, Body, Entry, Key, Put};
use crate::dice::Dice;
use crate::{Error, Result};

/// Wraps a store. Without further settings nothing is lost.
#[derive(Debug)]
pub struct FaultySink {
    inner: Arc<dyn BackupSink>,
    dice: Dice,
    refuse: f64,
    lose_answers: f64,
    break_off: f64,
    delay: (f64, Duration),
}

impl FaultySink {
    /// Around a store, with the seed of its faults.
    #[must_use]
    pub fn new(inner: Arc<dyn BackupSink>, seed: u64) -> Self {
        Self {
            inner,
            dice: Dice::new(seed),
            refuse: 0.0,
            lose_answers: 0.0,
            break_off: 0.0,
            delay: (0.0, Duration::ZERO),
        }
    }

    /// How probable it is that a call is refused: nothing happens.
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

    /// How probable it is that a body breaks off half way, on its way in or out.
    #[must_use]
    pub fn break_off(mut self, probability: f64) -> Self {
        self.break_off = probability;
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
            return Err(Error::unavailable(format!("the backup store refused. seed={}", self.dice.seed())));
        }
        Ok(())
    }

    fn after<T>(&self, answer: Result<T>) -> Result<T> {
        if self.dice.chance(self.lose_answers) {
            let lost = format!("the answer of the backup store was lost. seed={}", self.dice.seed());
            return Err(Error::unavailable(lost).outcome_unknown());
        }
        answer
    }

    /// How many bytes of a body come through; nothing as a rule stops it.
    fn fate(&self) -> Option<u64> {
        let after = u64::from(self.dice.up_to(64 << 10)) - 1;
        self.dice.chance(self.break_off).then_some(after)
    }
}

impl std::fmt::Display for FaultySink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl BackupSink for FaultySink {
    async fn put(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Put> {
        self.before().await?;
        let answer = self.inner.put(key, &mut Breaking { body, left: self.fate() }).await;
        self.after(answer)
    }

    async fn get(&self, key: &Key) -> Result<Option<(u64, Body)>> {
        self.before().await?;
        let answer = self.after(self.inner.get(key).await)?;
        Ok(answer.map(|(size, body)| (size, Box::pin(Breaking { body, left: self.fate() }) as Body)))
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Entry>> {
        self.before().await?;
        self.after(self.inner.list(prefix, after).await)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.before().await?;
        self.after(self.inner.delete(key).await)
    }
}

/// A body that fails after so many bytes, even where it would have ended there.
struct Breaking<R> {
    body: R,
    left: Option<u64>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Breaking<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = to.filled().len();
        let ready = Pin::new(&mut self.body).poll_read(cx, to);
        let came = (to.filled().len() - before) as u64;
        match self.left {
            Some(left) if came >= left => {
                to.set_filled(before);
                self.left = Some(0);
                Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
            }
            Some(left) if ready.is_ready() && came == 0 && left > 0 => {
                Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
            }
            Some(left) => {
                self.left = Some(left - came);
                ready
            }
            None => ready,
        }
    }
}
