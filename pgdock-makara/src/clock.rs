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

/// The present, as timers have it.
pub(crate) fn present() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// A moment so long after the present; for a span that the clock cannot tell, one that never comes.
pub(crate) fn after(span: Duration) -> tokio::time::Instant {
    later(present(), span)
}

/// The same after another moment.
pub(crate) fn later(moment: tokio::time::Instant, span: Duration) -> tokio::time::Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    moment.checked_add(span.min(FAR)).unwrap_or(moment)
}

/// The time of day.
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// A number from 0 up to 1, for jitter: each state hashes with keys of its own.
pub(crate) fn chance() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_without_an_end_is_no_panic() {
        assert!(after(Duration::MAX) > after(Duration::from_secs(365 * 24 * 3600)));
        assert!(later(present(), Duration::from_secs(1)) > present());
    }
}
