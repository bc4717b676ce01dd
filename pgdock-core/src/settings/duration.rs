//! Durations as people write them: `"5s"`, `"200ms"`, `"1m30s"`.

use std::time::Duration;

/// What is accepted, in words.
pub(crate) const EXPECTED: &str = "a duration such as \"200ms\", \"5s\" or \"1m30s\" (units: ms, s, m, min, h, d)";

/// Reads one or more numbers, each with its unit. None where the text is anything else, or beyond 2^64 ms.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(millis)?)?;
        rest = after.trim_start();
    }
    Some(Duration::from_millis(total))
}

/// The shortest text that [`parse`] reads back to the same milliseconds.
pub(crate) fn display(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match millis {
        0 => "0s".to_owned(),
        n if n % 3_600_000 == 0 => format!("{}h", n / 3_600_000),
        n if n % 60_000 == 0 => format!("{}m", n / 60_000),
        n if n % 1000 == 0 => format!("{}s", n / 1000),
        n => format!("{n}ms"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(parse("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parse("200 ms"), Some(Duration::from_millis(200)));
        assert_eq!(parse("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse("10min"), Some(Duration::from_secs(600)));
        for bad in ["", "5", "s", "5 parsecs", "-5s", "1.5s", "5s!", "99999999999999999999s", "999999999999d"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_duration_reads_back(millis in 0..u64::MAX) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&display(duration)), Some(duration));
        }

        #[test]
        fn no_text_breaks_it(text in ".*") {
            let _ = parse(&text);
        }
    }
}
