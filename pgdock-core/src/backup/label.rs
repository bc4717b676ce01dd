//! [`Label`]: the name of a base backup.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// When a backup began, to the second, and a number that nobody else has drawn: `20261130T231500Z-9f01c2aa`.
///
/// The order of labels is that of their beginnings, whatever timelines they lie on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// The length of a label in characters.
const LENGTH: usize = 16 + 1 + 8;

impl Label {
    /// For a backup that begins at that time.
    #[must_use]
    pub fn new(begins: Timestamp, number: u32) -> Self {
        Self(format!("{}-{number:08x}", compact(begins)))
    }

    /// With a number that is drawn.
    #[must_use]
    pub fn draw(begins: Timestamp) -> Self {
        Self::new(begins, crate::dice::draw())
    }

    /// When the backup began.
    #[must_use]
    pub fn begins(&self) -> Timestamp {
        // Seen to be a time when the label was made.
        parse_compact(&self.0[..16]).unwrap_or_default()
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A time as objects' names have it: to the second, in UTC, such as `20261130T231500Z`.
#[must_use]
pub fn compact(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Reads what [`compact`] prints.
#[must_use]
pub fn parse_compact(text: &str) -> Option<Timestamp> {
    let plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || b == b'T' || b == b'Z');
    let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok().filter(|_| plain)?;
    let time = civil.to_zoned(TimeZone::UTC).ok()?.timestamp();
    // There is one text for each time.
    (compact(time) == text).then_some(time)
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for Label {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let number = |n: &str| n.len() == 8 && n.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let parts = text.split_once('-').filter(|(time, n)| parse_compact(time).is_some() && number(n));
        match parts {
            Some(_) if text.len() == LENGTH => Ok(Self(text.to_owned())),
            _ => Err(Error::invalid(format!("not the label of a backup. label={text:?}"))
                .hint("`pgdock backup list` shows them, such as 20261130T231500Z-9f01c2aa")),
        }
    }
}

impl TryFrom<String> for Label {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_both_ways() {
        let begins: Timestamp = "2026-11-30T23:15:00.75Z".parse().unwrap();
        let label = Label::new(begins, 0x9f01_c2aa);
        assert_eq!(label.as_str(), "20261130T231500Z-9f01c2aa");
        assert_eq!(label.as_str().parse::<Label>().unwrap(), label);
        assert_eq!(label.begins().as_second(), begins.as_second());
        assert!(label < Label::new("2026-11-30T23:15:01Z".parse().unwrap(), 0));
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for bad in [
            "",
            "20261130T231500Z",
            "20261130T231500Z-9f01c2a",
            "20261130T231500Z-9F01C2AA",
            "20261131T231500Z-9f01c2aa",
            "20261130T231500+-9f01c2aa",
            "../../../x",
        ] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }
}
