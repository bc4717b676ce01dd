//! [`Plan`]: what a seed decides before the run begins.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fault::Fault;
use super::setup::Setup;

/// How faults follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One fault, until all is well again, then the next.
    Single,
    /// One after the other at drawn times, whatever goes on; all is well again only now and then.
    Mixed,
}

/// After so many faults of [`Mode::Mixed`] all may become well again.
pub(super) const MIXED: usize = 5;

/// What a seed decides before the run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// The cluster.
    pub setup: Setup,
    /// How faults follow each other.
    pub mode: Mode,
    /// The faults, with how long to wait before each.
    pub faults: Vec<(Duration, Fault)>,
}

impl Plan {
    /// The plan of a seed. Without a mode, every other seed mixes.
    #[must_use]
    pub fn of(seed: u64, setup: Setup, faults: usize, mode: Option<Mode>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xfa_0175);
        let mode = mode.unwrap_or(if seed.is_multiple_of(2) { Mode::Mixed } else { Mode::Single });
        let drawn = (0..faults).map(|_| {
            let pause = Duration::from_millis(rng.random_range(200..3_000));
            (pause, Fault::draw(&mut rng, setup))
        });
        let faults = drawn.collect();
        Self { seed, setup, mode, faults }
    }

    /// The line that replays it.
    #[must_use]
    pub fn replay(&self) -> String {
        let mode = match self.mode {
            Mode::Single => "single",
            Mode::Mixed => "mixed",
        };
        format!(
            "cargo test -p pgdock-tests --test faults -- --seed {} --faults {} --setup {} --mode {mode}",
            self.seed,
            self.faults.len(),
            self.setup
        )
    }

    /// Whether a clock will jump: only then the nodes' programs run with one that can.
    #[must_use]
    pub fn clocks(&self) -> bool {
        self.faults.iter().any(|(_, fault)| matches!(fault, Fault::Clock { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_whatever_the_number_of_faults() {
        let (short, long) = (Plan::of(7, Setup::TwoInSync, 5, None), Plan::of(7, Setup::TwoInSync, 50, None));
        assert_eq!(short.faults[..], long.faults[..5]);
        assert_eq!(short.mode, Mode::Single);
        assert!(short.replay().ends_with("--seed 7 --faults 5 --setup two-in-sync --mode single"));
    }
}
