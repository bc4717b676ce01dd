//! [`Clock`]: time as a parameter.
//!
//! Architecture invariant: nothing outside this file and the binaries reads a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on this machine's `CLOCK_BOOTTIME`: it counts suspend, never steps, and means nothing on
/// another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub Duration);

impl Moment {
    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0 + rhs)
    }
}

impl std::ops::Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(rhs))
    }
}

/// A source of time.
///
/// # Contract
/// [`now`](Self::now) never falls, goes on while the machine sleeps, and is never stepped.
/// [`wall`](Self::wall) is only for people: no decision rests on it.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// The present moment on the monotonic clock.
    fn now(&self) -> Moment;
    /// The calendar time, for logs and events.
    fn wall(&self) -> jiff::Timestamp;
}

/// The machine's own clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Moment(Duration::new(t.tv_sec.try_into().unwrap_or(0), t.tv_nsec.try_into().unwrap_or(0)))
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }
}

/// A clock that a test moves by hand.
#[derive(Debug, Default)]
pub struct ManualClock(std::sync::Mutex<Duration>);

impl ManualClock {
    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment(*self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_clock_never_falls() {
        let mut last = SystemClock.now();
        assert!(last.0 > Duration::ZERO);
        for _ in 0..1_000 {
            let now = SystemClock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn a_manual_clock_moves_by_hand_only() {
        let clock = ManualClock::default();
        let start = clock.now();
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.now().since(start), Duration::from_secs(3));
        assert_eq!(start.since(clock.now()), Duration::ZERO, "a moment that lies ahead is not long ago");
        assert_eq!(start - Duration::from_secs(1), start, "before the start there is nothing");
    }
}
