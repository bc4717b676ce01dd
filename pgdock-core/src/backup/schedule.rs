//! [`Schedule`]: when something is done, as cron has it, in UTC; and whether it is due.
//!
//! All of this is arithmetic: whoever asks brings the time and what was done before.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use crate::fnv::fnv1a;
use crate::{Error, Result};

/// How much later a run may be dated than the present: clocks of machines differ. One dated later still was made
/// under a clock that was wrong, and says nothing.
const AHEAD_MAX: Duration = Duration::from_secs(3_600);
/// How long to wait after a run that failed: twice as long after each further one, up to the second of these.
const RETRY: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(7_200));

/// Five fields as in crontab(5), in UTC, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
#[derive(Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// What there is to run, and when.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// When, without the jitter.
    pub schedule: &'a Schedule,
    /// By how much a run may be later, so that the clusters that share a store do not all begin at once.
    pub jitter: Duration,
    /// Whose run it is: what the jitter is drawn from, so that it is the same every day.
    pub name: &'a str,
}

/// A run that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// When it was begun.
    pub begun: Timestamp,
    /// Whether it came to its end.
    pub good: bool,
}

/// What [`Plan::due`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is time.
    Now,
    /// It is not time yet, but will be then.
    At(Timestamp),
    /// It will never be time again, such as for a 30th of February.
    Never,
}

impl Schedule {
    /// Reads the five fields.
    ///
    /// # Errors
    /// `Invalid` where they are not that, or where no time ever fits.
    pub fn new(text: &str) -> Result<Self> {
        let wrong = |why: String| {
            Error::invalid(format!("not a schedule: {why}. schedule={text:?}"))
                .hint("write five fields as in crontab(5), in UTC, such as \"0 3 * * *\", or @daily")
        };
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|e| wrong(e.to_string().trim_end_matches('.').to_lowercase()))?;
        let schedule = Self { text: text.trim().to_owned(), cron };
        // A whole cycle of the calendar's leap years comes after it.
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(wrong("no day is like that".to_owned())),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first time after another one.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_zoned(TimeZone::UTC).datetime();
        let next = self.cron.find_next_occurrence(&after, false).ok()?;
        next.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    }

    /// The last time up to another one.
    #[must_use]
    pub fn last(&self, until: Timestamp) -> Option<Timestamp> {
        let until = until.to_zoned(TimeZone::UTC).datetime();
        let last = self.cron.find_previous_occurrence(&until, true).ok()?;
        last.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.text)
    }
}

impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Schedule").field(&self.text).finish()
    }
}

impl Plan<'_> {
    /// By how much each run of this name is later than its schedule.
    #[must_use]
    pub fn offset(&self) -> Duration {
        let seconds = self.jitter.as_secs();
        if seconds == 0 { Duration::ZERO } else { Duration::from_secs(fnv1a(self.name) % (seconds + 1)) }
    }

    /// Whether a run is due, where none is under way.
    ///
    /// It is where none that is good was begun since the last time that the schedule names: so one that was missed,
    /// as nobody was there, is made up for once, and the very first is due at once. After a run that failed it is
    /// due again soon, with growing pauses.
    pub fn due(&self, runs: impl IntoIterator<Item = Run>, now: Timestamp) -> Due {
        let offset = span(self.offset());
        let Ok(shifted) = now.checked_sub(offset) else { return Due::Never };
        let last = self.schedule.last(shifted).and_then(|at| at.checked_add(offset).ok());
        let runs: Vec<Run> = runs.into_iter().filter(|run| run.begun.duration_since(now) <= ahead_max()).collect();
        let good = runs.iter().filter(|run| run.good).map(|run| run.begun).max();
        if let Some(good) = good
            && last.is_none_or(|last| good >= last)
        {
            let next = self.schedule.next(shifted).and_then(|at| at.checked_add(offset).ok());
            return next.map_or(Due::Never, Due::At);
        }
        let failed: Vec<Timestamp> =
            runs.iter().filter(|run| !run.good && good.is_none_or(|good| run.begun > good)).map(|r| r.begun).collect();
        let Some(failed_last) = failed.iter().max() else { return Due::Now };
        let doublings = u32::try_from(failed.len() - 1).unwrap_or(u32::MAX).min(16);
        let pause = RETRY.0.saturating_mul(1 << doublings).min(RETRY.1);
        match failed_last.checked_add(span(pause)) {
            Ok(again) if again > now => Due::At(again),
            _ => Due::Now,
        }
    }
}

fn span(duration: Duration) -> jiff::Span {
    i64::try_from(duration.as_secs()).unwrap_or(i64::from(i32::MAX)).seconds()
}

fn ahead_max() -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(AHEAD_MAX.as_secs() as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn good(begun: &str) -> Run {
        Run { begun: at(begun), good: true }
    }

    fn failed(begun: &str) -> Run {
        Run { begun: at(begun), good: false }
    }

    fn daily() -> Schedule {
        Schedule::new("0 3 * * *").unwrap()
    }

    fn plan(schedule: &Schedule) -> Plan<'_> {
        Plan { schedule, jitter: Duration::ZERO, name: "main" }
    }

    #[test]
    fn five_fields_and_names_are_read() {
        for (text, next) in [
            ("0 3 * * *", "2026-11-23T03:00:00Z"),
            (" 30 3 * * * ", "2026-11-23T03:30:00Z"),
            ("*/15 * * * *", "2026-11-23T00:15:00Z"),
            ("0 5 * * 0", "2026-11-29T05:00:00Z"),
            ("0 5 * * SUN", "2026-11-29T05:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            ("@daily", "2026-11-24T00:00:00Z"),
            ("@hourly", "2026-11-23T01:00:00Z"),
        ] {
            let schedule = Schedule::new(text).unwrap();
            assert_eq!(schedule.next(at("2026-11-23T00:00:00Z")), Some(at(next)), "{text}");
            assert_eq!(schedule.last(at(next)), Some(at(next)), "{text}");
            assert_eq!(Schedule::new(schedule.as_str()).unwrap(), schedule);
        }
        for bad in ["", "0 3 * *", "0 0 3 * * *", "60 3 * * *", "daily", "@every 5m", "0 0 30 2 *", "x"] {
            let error = Schedule::new(bad).unwrap_err();
            assert!(error.to_string().contains("schedule="), "{bad}: {error}");
        }
    }

    #[test]
    fn the_first_is_due_at_once_and_a_missed_one_is_made_up_for_once() {
        let schedule = daily();
        let plan = plan(&schedule);
        let now = at("2026-11-23T12:00:00Z");
        let tomorrow = Due::At(at("2026-11-24T03:00:00Z"));
        assert_eq!(plan.due([], now), Due::Now);
        assert_eq!(plan.due([good("2026-11-20T03:00:01Z")], now), Due::Now);
        assert_eq!(plan.due([good("2026-11-20T03:00:01Z"), good("2026-11-23T11:00:00Z")], now), tomorrow);
        assert_eq!(plan.due([good("2026-11-23T03:00:00Z")], now), tomorrow);
        assert_eq!(plan.due([good("2026-11-23T02:59:59Z")], now), Due::Now, "it was not the planned one");
    }

    #[test]
    fn a_failed_one_is_due_again_with_growing_pauses() {
        let schedule = daily();
        let plan = plan(&schedule);
        let before = good("2026-11-22T03:00:00Z");
        let first = failed("2026-11-23T03:00:00Z");
        assert_eq!(plan.due([before, first], at("2026-11-23T03:04:59Z")), Due::At(at("2026-11-23T03:05:00Z")));
        assert_eq!(plan.due([before, first], at("2026-11-23T03:05:00Z")), Due::Now);
        let second = failed("2026-11-23T03:05:00Z");
        assert_eq!(plan.due([before, first, second], at("2026-11-23T03:06:00Z")), Due::At(at("2026-11-23T03:15:00Z")));
        let many = (0..50).map(|_| failed("2026-11-23T04:00:00Z"));
        assert_eq!(plan.due(many, at("2026-11-23T04:00:01Z")), Due::At(at("2026-11-23T06:00:00Z")));
        assert_eq!(
            plan.due([first, good("2026-11-23T03:10:00Z")], at("2026-11-23T03:11:00Z")),
            Due::At(at("2026-11-24T03:00:00Z"))
        );
    }

    #[test]
    fn a_run_from_the_future_stops_nothing() {
        let schedule = daily();
        let plan = plan(&schedule);
        let now = at("2026-11-23T12:00:00Z");
        assert_eq!(plan.due([good("2027-11-23T12:00:00Z")], now), Due::Now);
        assert_eq!(plan.due([failed("2027-11-23T12:00:00Z")], now), Due::Now);
        // A clock that is a little ahead is believed.
        assert_eq!(plan.due([good("2026-11-23T12:00:09Z")], now), Due::At(at("2026-11-24T03:00:00Z")));
    }

    proptest! {
        #[test]
        fn jitter_is_stable_and_bounded(name in "[a-z]{1,12}", minutes in 0..600_u64, day in 0..400_i64) {
            let schedule = daily();
            let jitter = Duration::from_secs(minutes * 60);
            let plan = Plan { schedule: &schedule, jitter, name: &name };
            prop_assert!(plan.offset() <= jitter);
            let now = at("2026-01-01T12:00:00Z").checked_add((day * 24).hours()).unwrap();
            let begun = now.checked_sub(1.second()).unwrap();
            // From one run it is a day to the next, whatever the name, and at that moment it is due.
            let Due::At(next) = plan.due([Run { begun, good: true }], now) else {
                return Err(TestCaseError::fail("it is not planned"));
            };
            prop_assert_eq!(plan.due([Run { begun, good: true }], next), Due::Now);
            let before = next.checked_sub(1.second()).unwrap();
            prop_assert_eq!(plan.due([Run { begun, good: true }], before), Due::At(next));
            let Due::At(later) = plan.due([Run { begun: next, good: true }], next) else {
                return Err(TestCaseError::fail("it is not planned"));
            };
            prop_assert_eq!(later.duration_since(next).as_secs(), 86_400);
        }
    }
}
