//! [`FaultyWitness`]: a witness behind a bad network, the same one for the same seed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Record, Swap, Version, Witness};
use crate::dice::Dice;
use crate::{Error, Result};

/// Wraps a witness. Without further settings nothing is lost.
#[derive(Debug)]
pub struct FaultyWitness {
    inner: Arc<dyn Witness>,
    dice: Dice,
    lose_requests: f64,
    lose_answers: f64,
    land_late: (f64, u32),
    delay: (f64, Duration),
    travelling: Mutex<Vec<Travelling>>,
}

/// A swap that its author has given up, and that has not arrived yet.
#[derive(Debug)]
struct Travelling {
    calls_left: u32,
    next: Record,
    expected: Option<Version>,
}

impl FaultyWitness {
    /// Around a witness, with the seed of its faults.
    #[must_use]
    pub fn new(inner: Arc<dyn Witness>, seed: u64) -> Self {
        Self {
            inner,
            dice: Dice::new(seed),
            lose_requests: 0.0,
            lose_answers: 0.0,
            land_late: (0.0, 1),
            delay: (0.0, Duration::ZERO),
            travelling: Mutex::default(),
        }
    }

    /// How probable it is that a request never arrives.
    #[must_use]
    pub fn lose_requests(mut self, probability: f64) -> Self {
        self.lose_requests = probability;
        self
    }

    /// How probable it is that a request takes effect and its answer is lost.
    #[must_use]
    pub fn lose_answers(mut self, probability: f64) -> Self {
        self.lose_answers = probability;
        self
    }

    /// How probable it is that a swap is given up and arrives afterwards, 1 to `calls_max` calls later.
    #[must_use]
    pub fn land_late(mut self, probability: f64, calls_max: u32) -> Self {
        self.land_late = (probability, calls_max);
        self
    }

    /// How probable it is that a call takes longer, by up to `most`, half before it takes effect and half after.
    #[must_use]
    pub fn delay(mut self, probability: f64, most: Duration) -> Self {
        self.delay = (probability, most);
        self
    }

    /// How many given-up swaps have not arrived yet.
    #[must_use]
    pub fn travelling(&self) -> usize {
        self.travelling.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Lets those swaps arrive whose time has come.
    async fn arrive(&self) {
        let arrived: Vec<_> = {
            let mut travelling = self.travelling.lock().unwrap_or_else(PoisonError::into_inner);
            travelling.iter_mut().for_each(|t| t.calls_left -= 1);
            travelling.extract_if(.., |t| t.calls_left == 0).collect()
        };
        for late in arrived {
            // Nobody waits for this answer any more.
            let _ = self.inner.compare_and_swap(&late.next, late.expected.as_ref()).await;
        }
    }

    /// What this call waits before and after; nothing as a rule.
    async fn wait(&self) -> Duration {
        let delay = self.dice.delay(self.delay.1);
        if !self.dice.chance(self.delay.0) {
            return Duration::ZERO;
        }
        tokio::time::sleep(delay / 2).await;
        delay / 2
    }

    fn lost(&self, what: &str) -> Error {
        Error::unavailable(format!("{what} was lost. seed={}", self.dice.seed()))
    }
}

impl std::fmt::Display for FaultyWitness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "faulty:{}", self.inner)
    }
}

#[async_trait]
impl Witness for FaultyWitness {
    async fn read(&self) -> Result<Option<(Record, Version)>> {
        self.arrive().await;
        let after = self.wait().await;
        if self.dice.chance(self.lose_requests) {
            return Err(self.lost("the request"));
        }
        let answer = self.inner.read().await;
        tokio::time::sleep(after).await;
        if self.dice.chance(self.lose_answers) { Err(self.lost("the answer")) } else { answer }
    }

    async fn compare_and_swap(&self, next: &Record, expected: Option<&Version>) -> Swap {
        self.arrive().await;
        let after = self.wait().await;
        if self.dice.chance(self.lose_requests) {
            return Swap::Ambiguous(self.lost("the request").outcome_unknown());
        }
        let calls_left = self.dice.up_to(self.land_late.1);
        if self.dice.chance(self.land_late.0) {
            let late = Travelling { calls_left, next: next.clone(), expected: expected.cloned() };
            self.travelling.lock().unwrap_or_else(PoisonError::into_inner).push(late);
            return Swap::Ambiguous(self.lost("the request").outcome_unknown());
        }
        let answer = self.inner.compare_and_swap(next, expected).await;
        tokio::time::sleep(after).await;
        if self.dice.chance(self.lose_answers) {
            Swap::Ambiguous(self.lost("the answer").outcome_unknown())
        } else {
            answer
        }
    }

    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
}
