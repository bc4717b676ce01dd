//! [`WalFile`]: the name of a file that PostgreSQL hands to its archiver.

use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::{Error, Result};

/// A segment's place: what its file's name says. The order is that of names: by timeline, then by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// The timeline in its name. The first segment of a timeline holds the end of its parent, too.
    pub timeline: TimelineId,
    /// The middle eight digits.
    log: u32,
    /// The last eight digits.
    part: u32,
}

impl Segment {
    /// The segment that holds a position.
    #[must_use]
    pub fn at(timeline: TimelineId, lsn: Lsn, segment_bytes: u64) -> Self {
        Self::numbered(timeline, lsn.0 / segment_bytes, segment_bytes)
    }

    /// The segment with this number, counted from the beginning of all WAL.
    #[must_use]
    pub fn numbered(timeline: TimelineId, number: u64, segment_bytes: u64) -> Self {
        let per_log = (1u64 << 32) / segment_bytes;
        let part = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self { timeline, log: part(number / per_log), part: part(number % per_log) }
    }

    /// Its number, counted from the beginning of all WAL.
    #[must_use]
    pub fn number(self, segment_bytes: u64) -> u64 {
        u64::from(self.log) * ((1u64 << 32) / segment_bytes) + u64::from(self.part)
    }

    /// Where it begins.
    #[must_use]
    pub fn begin(self, segment_bytes: u64) -> Lsn {
        Lsn(self.number(segment_bytes).saturating_mul(segment_bytes))
    }

    /// Where the next one begins.
    #[must_use]
    pub fn end(self, segment_bytes: u64) -> Lsn {
        Lsn(self.begin(segment_bytes).0.saturating_add(segment_bytes))
    }

    /// The one behind it on the same timeline.
    #[must_use]
    pub fn next(self, segment_bytes: u64) -> Self {
        Self::numbered(self.timeline, self.number(segment_bytes) + 1, segment_bytes)
    }
}

impl std::fmt::Display for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:08X}{:08X}{:08X}", self.timeline.0, self.log, self.part))
    }
}

/// What PostgreSQL hands to its archiver, told by the name. In the order in which it is archived: the past of a
/// timeline before what was written on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFile {
    /// `00000002.history`: the past of a timeline.
    History(TimelineId),
    /// `000000010000000000000003`: a whole segment.
    Segment(Segment),
    /// `000000010000000000000003.partial`: the last segment of a timeline that a promotion left in the middle of it.
    Partial(Segment),
    /// `000000010000000000000003.00000028.backup`: where a base backup began and ended. Nothing needs it but people:
    /// backups say that themselves.
    BackupLabel(Segment),
}

impl WalFile {
    /// Reads a name.
    ///
    /// # Errors
    /// `Invalid` when PostgreSQL archives nothing of this name.
    pub fn parse(name: &str) -> Result<Self> {
        let found = || {
            let hex = |text: &str| -> Option<u32> {
                let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
                if text.len() == 8 && digits { u32::from_str_radix(text, 16).ok() } else { None }
            };
            let (stem, rest) = name.split_once('.').map_or((name, None), |(stem, rest)| (stem, Some(rest)));
            if !stem.is_ascii() {
                return None;
            }
            if rest == Some("history") {
                return Some(Self::History(TimelineId(hex(stem)?)));
            }
            if stem.len() != 24 {
                return None;
            }
            let timeline = TimelineId(hex(&stem[..8])?);
            let segment = Segment { timeline, log: hex(&stem[8..16])?, part: hex(&stem[16..])? };
            match rest {
                None => Some(Self::Segment(segment)),
                Some("partial") => Some(Self::Partial(segment)),
                Some(label) if hex(label.strip_suffix(".backup")?).is_some() => Some(Self::BackupLabel(segment)),
                Some(_) => None,
            }
        };
        found().ok_or_else(|| Error::invalid(format!("not the name of a file that PostgreSQL archives. name={name:?}")))
    }

    /// The timeline in its name.
    #[must_use]
    pub fn timeline(self) -> TimelineId {
        match self {
            Self::History(timeline) => timeline,
            Self::Segment(segment) | Self::Partial(segment) | Self::BackupLabel(segment) => segment.timeline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    fn segment(name: &str) -> Segment {
        match WalFile::parse(name).unwrap() {
            WalFile::Segment(segment) => segment,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_those_of_postgresql() {
        for name in ["000000010000000000000003", "0000000A00000001000000FF", "FFFFFFFFFFFFFFFF000000FF"] {
            assert_eq!(segment(name).to_string(), name);
        }
        assert_eq!(WalFile::parse("0000000B.history").unwrap(), WalFile::History(TimelineId(11)));
        let third = segment("000000010000000000000003");
        assert_eq!(WalFile::parse("000000010000000000000003.partial").unwrap(), WalFile::Partial(third));
        assert_eq!(WalFile::parse("000000010000000000000003.00000028.backup").unwrap(), WalFile::BackupLabel(third));
        for bad in [
            "",
            "00000001000000000000000",
            "0000000100000000000000034",
            "00000001000000000000000g",
            "00000001000000000000000a",
            "000000010000000000000003.part",
            "000000010000000000000003.28.backup",
            "+0000001.history",
            "0000001.history",
            "../0000000000000000000001",
            "ää00000100000000000000",
            "RECOVERYXLOG",
        ] {
            assert!(WalFile::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_run_on_over_the_end_of_a_log() {
        let last = segment("0000000100000000000000FF");
        assert_eq!(last.next(SIZE).to_string(), "000000010000000100000000");
        assert_eq!(last.end(SIZE), Lsn(1 << 32));
        assert_eq!(Segment::at(TimelineId(1), Lsn((1 << 32) - 1), SIZE), last);
        // With segments of another size there are as many others in a log.
        assert_eq!(Segment::numbered(TimelineId(1), 4, 1 << 30).to_string(), "000000010000000100000000");
    }

    #[test]
    fn the_past_comes_first_and_segments_by_position() {
        let names =
            ["000000020000000000000003", "000000010000000000000002", "00000002.history", "000000010000000000000003"];
        let mut files: Vec<_> = names.map(|name| WalFile::parse(name).unwrap()).into();
        files.sort();
        let sorted: Vec<_> = files.iter().map(|f| f.timeline().0).collect();
        assert_eq!((files[0], sorted), (WalFile::History(TimelineId(2)), vec![2, 1, 1, 2]));
    }
}
