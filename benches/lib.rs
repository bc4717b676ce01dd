//! Measurements on real PostgreSQL: `failover_time` for the gaps that a client sees, `clone` for copies of the leader, `soak`
//! for the safety of many failovers in a row. All print the command that repeats them.

use std::time::Duration;

/// The median, the smallest and the largest of some durations.
#[must_use]
pub fn spread(mut samples: Vec<Duration>) -> Option<(Duration, Duration, Duration)> {
    samples.sort_unstable();
    let (first, last) = (*samples.first()?, *samples.last()?);
    let middle = samples.len() / 2;
    let median =
        if samples.len().is_multiple_of(2) { (samples[middle - 1] + samples[middle]) / 2 } else { samples[middle] };
    Some((median, first, last))
}

/// Milliseconds, for a table.
#[must_use]
pub fn ms(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        let ms = |n| Duration::from_millis(n);
        assert_eq!(spread(vec![ms(5), ms(1), ms(9)]), Some((ms(5), ms(1), ms(9))));
        assert_eq!(spread(vec![ms(4), ms(1), ms(2), ms(9)]), Some((ms(3), ms(1), ms(9))));
        assert_eq!(spread(Vec::new()), None);
    }
}
