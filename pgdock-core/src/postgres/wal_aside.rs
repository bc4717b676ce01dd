//! The files in `pg_wal`: which timeline they are of, its history, and how diverged ones are kept.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lsn::Lsn;
use super::os_user::OsUser;
use super::timeline::{Fork, History, TimelineId};
use crate::node::Incarnation;
use crate::{Error, NodeName, Result};

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

fn parse_history(timeline: TimelineId, text: &str) -> Option<History> {
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

/// What a rewind took away: written beside the WAL as `report.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diverged {
    /// The node that had it.
    pub node: NodeName,
    /// Its identity at that time.
    pub incarnation: Option<Incarnation>,
    /// The cluster that it is of.
    pub system_identifier: u64,
    /// The timeline that it lies on.
    pub timeline: TimelineId,
    /// Where it begins: up to here the primary has the same.
    pub fork: Lsn,
    /// Up to where it is known to reach.
    pub end: Lsn,
    /// When it was put aside.
    pub found_at: jiff::Timestamp,
    /// The segments, whole: the first one begins before the fork.
    pub files: Vec<String>,
    /// The transactions that committed behind the fork, oldest first, at most 1000.
    pub commits: Vec<Commit>,
    /// The relations that were changed, as `tablespace/database/relfilenode`, at most 1000.
    pub relations: BTreeSet<String>,
}

/// A transaction that committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its number.
    pub xid: u64,
    /// Where its commit record begins.
    pub lsn: Lsn,
    /// When it committed, by the clock of its node.
    pub at: String,
}

/// How much of each kind a report lists.
const LISTED_MAX: usize = 1000;

impl Diverged {
    /// Reads off what `pg_waldump` prints which transactions and relations there are.
    pub(crate) fn read_dump(&mut self, dump: &str) {
        for line in dump.lines() {
            let after = |key: &str| line.split_once(key).map(|(_, rest)| rest);
            if let (Some(rest), true) = (after("desc: COMMIT "), self.commits.len() < LISTED_MAX) {
                let number = after("tx:").and_then(|t| t.split(',').next()).and_then(|t| t.trim().parse().ok());
                let lsn = after("lsn: ").and_then(|t| t.split(',').next()).and_then(|t| t.trim().parse().ok());
                let at = rest.split(';').next().unwrap_or_default().trim().to_owned();
                if let (Some(xid), Some(lsn)) = (number, lsn) {
                    self.commits.push(Commit { xid, lsn, at });
                }
            }
            for part in line.split("rel ").skip(1) {
                let name = part.split([' ', ',']).next().unwrap_or_default();
                if name.split('/').count() == 3 && self.relations.len() < LISTED_MAX {
                    self.relations.insert(name.to_owned());
                }
            }
        }
    }
}

/// Copies the WAL from the fork on into a folder of its own below `into`; `None` where there is none.
///
/// # Errors
/// `Internal` when a file cannot be copied.
pub(crate) fn keep(
    data: &Path,
    into: &Path,
    mut report: Diverged,
    segment_bytes: u64,
    owner: &OsUser,
) -> Result<Option<(PathBuf, Diverged)>> {
    if report.end <= report.fork {
        return Ok(None);
    }
    let (mut found, size) = segments(data, Some(segment_bytes))?;
    let (first, last) = (report.fork.0 / size, report.end.0 / size);
    // Files behind the end wait to be used again, and hold nothing of this.
    found.retain(|s| s.timeline == report.timeline && (first..=last).contains(&s.number));
    found.sort_by_key(|s| s.number);
    if found.is_empty() {
        return Ok(None);
    }
    let folder = free_name(into, &format!("tl{}-{}", report.timeline, report.fork.to_string().replace('/', "-")));
    let failed = |path: &Path| {
        let message = format!("cannot keep diverged WAL. path={}", path.display());
        move |e| Error::internal(message).because(e)
    };
    std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed(&folder))?;
    owner.take_path(&folder).map_err(failed(&folder))?;
    for segment in found {
        let name = segment.path.file_name().unwrap_or_default();
        let target = folder.join(name);
        // A link would not do: PostgreSQL writes over segments when it uses them again.
        let copy = || {
            let mut from = File::open(&segment.path)?;
            let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
            owner.take(&to)?;
            std::io::copy(&mut from, &mut to)?;
            to.sync_all()
        };
        copy().map_err(failed(&target))?;
        report.files.push(name.to_string_lossy().into_owned());
    }
    File::open(&folder).and_then(|f| f.sync_all()).map_err(failed(&folder))?;
    File::open(into).and_then(|f| f.sync_all()).map_err(failed(into))?;
    Ok(Some((folder, report)))
}

fn free_name(into: &Path, name: &str) -> PathBuf {
    let mut path = into.join(name);
    let mut n = 1u32;
    while path.symlink_metadata().is_ok() {
        n += 1;
        path = into.join(format!("{name}-{n}"));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dumps_are_read() {
        let mut report = Diverged {
            node: NodeName::new("n1").unwrap(),
            incarnation: None,
            system_identifier: 1,
            timeline: TimelineId(1),
            fork: Lsn(1),
            end: Lsn(2),
            found_at: jiff::Timestamp::UNIX_EPOCH,
            files: Vec::new(),
            commits: Vec::new(),
            relations: BTreeSet::new(),
        };
        report.read_dump(
            "rmgr: Heap        len (rec/tot):     59/    59, tx:        735, lsn: 0/03000148, prev 0/030000D8, desc: INSERT off 2 flags 0x00, blkref #0: rel 1663/5/16384 blk 0\n\
             rmgr: Transaction len (rec/tot):     34/    34, tx:        735, lsn: 0/03000188, prev 0/03000148, desc: COMMIT 2026-11-23 22:00:00.000000 UTC; inval msgs: catcache 7\n",
        );
        assert_eq!(report.relations.iter().collect::<Vec<_>>(), ["1663/5/16384"]);
        let commit = &report.commits[0];
        assert_eq!(
            (commit.xid, commit.lsn, commit.at.as_str()),
            (735, Lsn(0x0300_0188), "2026-11-23 22:00:00.000000 UTC")
        );
    }

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
