//! The files in `pg_wal`: which timeline they are of, and its history.

use std::path::{Path, PathBuf};

use super::lsn::Lsn;
use super::timeline::{Fork, History, TimelineId};
use crate::{Error, Result};

/// The past of a timeline, from its `.history` file. The first timeline has none.
///
/// # Errors
/// `Internal` when the file is missing or not understood.
pub fn read_history(data: &Path, timeline: TimelineId) -> Result<History> {
    if timeline.0 <= 1 {
        return Ok(History::new(timeline));
    }
    let path = data.join(format!("pg_wal/{:08X}.history", timeline.0));
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Error::internal(format!("cannot read a timeline's history. path={}", path.display())).because(e)
    })?;
    parse_history(timeline, &text)
        .ok_or_else(|| Error::internal(format!("cannot understand a timeline's history. path={}", path.display())))
}

/// Reads the text of a `.history` file; `None` where it is none.
pub(crate) fn parse_history(timeline: TimelineId, text: &str) -> Option<History> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let forks = lines
        .map(|line| {
            let mut words = line.split_whitespace();
            Some(Fork { timeline: TimelineId(words.next()?.parse().ok()?), end: words.next()?.parse().ok()? })
        })
        .collect::<Option<_>>()?;
    Some(History { timeline, forks })
}

/// A WAL segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) timeline: TimelineId,
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
}

/// The WAL segments of a data directory, in no order, and the size of each, in bytes.
pub(crate) fn segments(data: &Path, segment_bytes: Option<u64>) -> Result<(Vec<Segment>, u64)> {
    let dir = data.join("pg_wal");
    let failed = |e| Error::internal(format!("cannot list WAL segments. path={}", dir.display())).because(e);
    let mut names = Vec::new();
    let mut size = segment_bytes;
    for entry in std::fs::read_dir(&dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // A partial one is the copy that a promotion leaves of the last segment of the old timeline.
        if name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            if size.is_none() {
                // All are of the same size, also those that wait to be used again.
                size = entry.metadata().ok().map(|m| m.len());
            }
            names.push((name, entry.path()));
        }
    }
    let size = size.filter(|s| s.is_power_of_two() && *s <= 1 << 30).unwrap_or(16 << 20);
    let per_id = (1u64 << 32) / size;
    let part = |name: &str, at: usize| u32::from_str_radix(&name[at..at + 8], 16).unwrap_or_default();
    let segments = names
        .into_iter()
        .map(|(name, path)| Segment {
            timeline: TimelineId(part(&name, 0)),
            number: u64::from(part(&name, 8)) * per_id + u64::from(part(&name, 16)),
            path,
        })
        .collect();
    Ok((segments, size))
}

/// The timeline of the WAL that ends at `end`: the newest one that has a segment there and whose history does
/// not say that this position belongs to an ancestor. `None` where no segment holds it.
///
/// # Errors
/// `Internal` when the files cannot be read.
pub(crate) fn timeline_at(data: &Path, end: Lsn, segment_bytes: Option<u64>) -> Result<Option<TimelineId>> {
    let (segments, size) = segments(data, segment_bytes)?;
    let number = end.0.saturating_sub(1) / size;
    let newest = segments.iter().filter(|s| s.number == number).map(|s| s.timeline.0).max();
    let Some(newest) = newest.map(TimelineId) else { return Ok(None) };
    // A receiver begins a new timeline at the beginning of a segment, so the file alone does not tell.
    let Ok(history) = read_history(data, newest) else { return Ok(Some(newest)) };
    Ok(Some(history.forks.iter().find(|fork| end <= fork.end).map_or(newest, |fork| fork.timeline)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pg_wal")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join("pg_wal").join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn histories_are_read() {
        let dir = data(&[("00000003.history", "1\t0/3000000\tno recovery target\n\n2\t0/5000148\tx\n")]);
        let history = read_history(dir.path(), TimelineId(3)).unwrap();
        assert_eq!(history.end_of(TimelineId(2)), Some(Lsn(0x0500_0148)));
        assert_eq!(history.forks.len(), 2);
        assert!(read_history(dir.path(), TimelineId(1)).unwrap().forks.is_empty());
        assert!(read_history(dir.path(), TimelineId(4)).unwrap_err().to_string().contains("00000004"));
    }

    #[test]
    fn a_segment_of_two_timelines_is_told_apart_by_the_history() {
        let dir = data(&[
            ("000000010000000000000003", ""),
            ("000000020000000000000003", ""),
            ("000000020000000000000004", ""),
            ("00000002.history", "1\t0/3000148\tno recovery target\n"),
        ]);
        let at = |lsn: &str| timeline_at(dir.path(), lsn.parse().unwrap(), Some(16 << 20)).unwrap().map(|t| t.0);
        assert_eq!(at("0/3000100"), Some(1));
        assert_eq!(at("0/3000148"), Some(1));
        assert_eq!(at("0/3000150"), Some(2));
        assert_eq!(at("0/5000000"), Some(2), "the end of a segment belongs to it");
        assert_eq!(at("0/6000000"), None);
    }
}
