//! [`Failure`]: an action that failed, why, and when it is tried again.

use std::time::Duration;

use crate::Error;
use crate::clock::Moment;

/// The longest pause before a failed action is tried again.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A failed action that was not tried again for so long, though it could, is no problem any more.
const FAILURE_GRACE: Duration = Duration::from_secs(2);

/// An action that failed and is tried again.
#[derive(Debug)]
pub(super) struct Failure {
    /// When it may be tried again.
    pub(super) retry_at: Moment,
    /// How often it has failed in a row.
    pub(super) times: u32,
    /// What failed, why, and what helps.
    pub(super) text: String,
}

impl Failure {
    /// One more failure of `what`, with a longer pause than before.
    pub(super) fn again(before: Option<&Self>, now: Moment, what: &str, error: &Error) -> Self {
        let times = before.map_or(0, |f| f.times) + 1;
        let pause = (Duration::from_millis(100) * 2u32.pow(times.min(6))).min(BACKOFF_MAX);
        Self { retry_at: now + pause, times, text: format!("{what} failed: {}", in_full(error)) }
    }

    /// Whether it still stands: it waits for its next try, or that has just begun.
    pub(super) fn stands(&self, now: Moment) -> bool {
        now < self.retry_at + FAILURE_GRACE
    }
}

/// An error with its causes and what helps, on one line.
pub(super) fn in_full(error: &Error) -> String {
    let mut text = error.chain();
    for hint in error.hints() {
        text.push_str("; ");
        text.push_str(hint);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_what_helps_and_its_pauses_grow() {
        let error = Error::invalid("the port is in use. port=5432").hint("set postgres.port to a free one");
        let now = Moment(Duration::from_secs(100));
        let mut failure = Failure::again(None, now, "starting in recovery", &error);
        assert_eq!(
            failure.text,
            "starting in recovery failed: the port is in use. port=5432; set postgres.port to a free one"
        );
        assert_eq!(failure.retry_at, now + Duration::from_millis(200));
        for _ in 0..10 {
            failure = Failure::again(Some(&failure), now, "a start", &error);
        }
        assert_eq!((failure.times, failure.retry_at), (11, now + BACKOFF_MAX));
    }

    #[test]
    fn a_failure_that_is_not_tried_again_is_forgotten() {
        let now = Moment(Duration::from_secs(100));
        let failure = Failure::again(None, now, "a start", &Error::internal("no"));
        assert!(failure.stands(failure.retry_at + FAILURE_GRACE - Duration::from_millis(1)));
        assert!(!failure.stands(failure.retry_at + FAILURE_GRACE));
    }
}
