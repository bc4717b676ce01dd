//! [`FaultyFailoverIp`]: an address whose keeper is behind a bad network, the same one for the same seed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{FailoverIp, Holder, Pace, Target};
use crate::dice::Dice;
use crate::{Error, Result};

/// Wraps an address. Without further settings nothing is lost.
#[derive(Debug)]
pub struct FaultyFailoverIp {
    inner: Arc<dyn FailoverIp>,
    dice: Dice,
    refuse: f64,
    lose_answers: f64,
    land_late: (f64, u32),
    delay: (f64, Duration),
    travelling: Mutex<Vec<(u32, Target)>>,
}

impl FaultyFailoverIp {
    /// Around an address, with the seed of its faults.
    #[must_use]
    pub fn new(inner: Arc<dyn FailoverIp>, seed: u64) -> Self {
        Self {
            inner,
            dice: Dice::new(seed),
            refuse: 0.0,
            lose_answers: 0.0,
            land_late: (0.0, 1),
            delay: (0.0, Duration::ZERO),
            travelling: Mutex::default(),
        }
    }

    /// How probable it is that a call is refused: nothing moves.
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

    /// How probable it is that an assignment is given up and has its effect 1 to `calls_max` calls later.
    #[must_use]
    pub fn land_late(mut self, probability: f64, calls_max: u32) -> Self {
        self.land_late = (probability, calls_max);
        self
    }

    /// How probable it is that a call begins later, by up to `most`.
    #[must_use]
    pub fn delay(mut self, probability: f64, most: Duration) -> Self {
        self.delay = (probability, most);
        self
    }

    async fn before(&self) -> Result<()> {
        let arrived: Vec<_> = {
            let mut travelling = self.travelling.lock().unwrap_or_else(PoisonError::into_inner);
            travelling.iter_mut().for_each(|(calls_left, _)| *calls_left -= 1);
            travelling.extract_if(.., |(calls_left, _)| *calls_left == 0).collect()
        };
        for (_, target) in arrived {
            // Nobody waits for this answer any more.
            let _ = self.inner.assign(&target).await;
        }
        let delay = self.dice.delay(self.delay.1);
        if self.dice.chance(self.delay.0) {
            tokio::time::sleep(delay).await;
        }
        if self.dice.chance(self.refuse) {
            return Err(Error::unavailable(format!("the address's keeper refused. seed={}", self.dice.seed())));
        }
        Ok(())
    }

    fn lost(&self) -> Error {
        Error::unavailable(format!("the answer of the address's keeper was lost. seed={}", self.dice.seed()))
    }
}

impl std::fmt::Display for FaultyFailoverIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl FailoverIp for FaultyFailoverIp {
    async fn current(&self) -> Result<Option<Holder>> {
        self.before().await?;
        let answer = self.inner.current().await;
        if self.dice.chance(self.lose_answers) { Err(self.lost()) } else { answer }
    }

    async fn assign(&self, target: &Target) -> Result<()> {
        self.before().await?;
        let calls_left = self.dice.up_to(self.land_late.1);
        if self.dice.chance(self.land_late.0) {
            self.travelling.lock().unwrap_or_else(PoisonError::into_inner).push((calls_left, target.clone()));
            return Err(self.lost().outcome_unknown());
        }
        let answer = self.inner.assign(target).await;
        if self.dice.chance(self.lose_answers) { Err(self.lost().outcome_unknown()) } else { answer }
    }
    async fn release(&self) -> Result<()> {
        self.before().await?;
        let answer = self.inner.release().await;
        if self.dice.chance(self.lose_answers) { Err(self.lost().outcome_unknown()) } else { answer }
    }

    fn pace(&self) -> Pace {
        self.inner.pace()
    }
}
