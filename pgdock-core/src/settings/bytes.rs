//! Sizes as PostgreSQL writes them: `"64kB"`, `"16MB"`. Its units are powers of 1024.

/// What is accepted, in words.
pub(crate) const EXPECTED: &str =
    "a size such as \"64kB\" or \"16MiB\" (units: B, kB, MB, GB, TB and KiB, MiB, GiB, TiB, all powers of 1024)";

/// Reads a number with its unit into bytes. None where the text is anything else, or 2^64 and more.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let power = match unit.trim_start() {
        "B" => 0,
        "kB" | "KiB" | "kiB" => 1,
        "MB" | "MiB" => 2,
        "GB" | "GiB" => 3,
        "TB" | "TiB" => 4,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1024_u64.pow(power))
}

/// The shortest text that [`parse`] reads back to the same number.
pub(crate) fn display(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value != 0 && value.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_those_of_postgresql() {
        assert_eq!(parse("16MB"), Some(16 << 20));
        assert_eq!(parse("16 MiB"), Some(16 << 20));
        assert_eq!(parse("64kB"), Some(64 << 10));
        assert_eq!(parse("12B"), Some(12));
        for bad in ["", "16", "16mb", "MB", "-1MB", "1.5GB", "99999999TB"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_size_reads_back(bytes: u64) {
            prop_assert_eq!(parse(&display(bytes)), Some(bytes));
        }
    }
}
