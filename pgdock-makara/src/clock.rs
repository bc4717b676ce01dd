//! The one place where the time is asked for.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

/// The clocks of one router.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Time since the start, on the monotonic clock.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The time of day.
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// A number from 0 up to 1, for jitter: each state hashes with keys of its own.
pub(crate) fn chance() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX)
}
