//! [`Lsn`]: a position in the WAL.

use serde::{Deserialize, Serialize};

/// A position in the write-ahead log, in bytes (PostgreSQL documentation, section 8.20, `pg_lsn`).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

/// Why a text is no [`Lsn`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a WAL position such as 0/3000148, found `{0}`")]
pub struct InvalidLsn(pub String);

impl Lsn {
    /// How many bytes `self` is ahead of `other`; zero if it is behind.
    #[must_use]
    pub fn ahead_of(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl std::fmt::Display for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff))
    }
}

impl std::fmt::Debug for Lsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for Lsn {
    type Err = InvalidLsn;
    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let invalid = || InvalidLsn(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(invalid)?;
        if high.is_empty() || high.len() > 8 || low.is_empty() || low.len() > 8 {
            return Err(invalid());
        }
        let part = |s: &str| {
            // `from_str_radix` takes a sign, PostgreSQL does not.
            if s.starts_with('+') { None } else { u64::from_str_radix(s, 16).ok() }
        };
        Ok(Self(part(high).ok_or_else(invalid)? << 32 | part(low).ok_or_else(invalid)?))
    }
}

impl TryFrom<String> for Lsn {
    type Error = InvalidLsn;
    fn try_from(text: String) -> Result<Self, InvalidLsn> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_both_ways() {
        for text in ["0/0", "0/3000148", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        for bad in ["", "/", "0", "0/", "/0", "0/+1", "0/100000000", "x/1", "0/1/2"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }
}
