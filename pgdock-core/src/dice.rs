//! Chance as a parameter: the seeded dice of the `faulty` implementations.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Dice that fall the same way for the same seed and the same order of throws.
#[derive(Debug)]
pub(crate) struct Dice {
    seed: u64,
    rng: Mutex<StdRng>,
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, rng: Mutex::new(StdRng::seed_from_u64(seed)) }
    }

    /// The seed, for the line that replays a failure.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// True with this probability. Throws even for 0, so that one fault's setting does not shift another's.
    pub(crate) fn chance(&self, probability: f64) -> bool {
        self.with(|rng| rng.random::<f64>()) < probability
    }

    /// A number from 1 to `most`.
    pub(crate) fn up_to(&self, most: u32) -> u32 {
        self.with(|rng| rng.random_range(1..=most.max(1)))
    }

    /// A duration from nothing to `most`.
    pub(crate) fn delay(&self, most: Duration) -> Duration {
        most.mul_f64(self.with(|rng| rng.random::<f64>()))
    }

    fn with<T>(&self, throw: impl FnOnce(&mut StdRng) -> T) -> T {
        throw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// 32 hexadecimal digits that no other call, process or machine has drawn.
pub(crate) fn unique() -> String {
    format!("{:032x}", draw::<u128>())
}

/// A number that nobody can foresee. The one place where chance comes from.
#[expect(clippy::disallowed_methods, reason = "this is where it comes from")]
pub(crate) fn draw<T>() -> T
where
    rand::distr::StandardUniform: rand::distr::Distribution<T>,
{
    rand::rng().random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_falls_the_same_way() {
        let throws = |seed| {
            let dice = Dice::new(seed);
            (0..64).map(|_| dice.chance(0.5)).collect::<Vec<_>>()
        };
        assert_eq!(throws(7), throws(7));
        assert_ne!(throws(7), throws(8));
    }

    #[test]
    fn unique_texts_differ() {
        assert_ne!(unique(), unique());
        assert_eq!(unique().len(), 32);
    }
}
