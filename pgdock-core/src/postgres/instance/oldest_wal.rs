//! Where the WAL begins that is still on disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::Instance;
use crate::postgres::wal_aside;
use crate::{Lsn, Result};

/// How often it is looked for.
const EVERY: Duration = Duration::from_secs(1);

impl Instance {
    /// Where the WAL begins that is on disk without a gap up to its end, as of a moment ago. Never waits.
    #[must_use]
    pub fn oldest_wal(&self) -> Option<Lsn> {
        self.lately_on_disk(|m| &mut m.oldest_wal, EVERY, |this| begins(&this.inner.layout.data).ok()).flatten()
    }
}

/// Segments are numbered alike on all timelines; those that wait to be used again come behind the end.
fn begins(data: &Path) -> Result<Option<Lsn>> {
    let (segments, size) = wal_aside::segments(data, None)?;
    let numbers: BTreeSet<u64> = segments.iter().map(|s| s.number).collect();
    let newest = numbers.last().copied();
    let oldest = newest.map(|newest| {
        let gaps = numbers.iter().rev().zip((0..=newest).rev()).take_while(|(found, expected)| **found == *expected);
        gaps.map(|(found, _)| *found).last().unwrap_or(newest)
    });
    Ok(oldest.map(|number| Lsn(number * size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_behind_the_last_gap() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        std::fs::create_dir(&wal).unwrap();
        assert_eq!(begins(dir.path()).unwrap(), None);
        for name in [
            "000000010000000000000003",
            "000000010000000000000005",
            "000000020000000000000006",
            "000000020000000000000007",
        ] {
            std::fs::File::create(wal.join(name)).unwrap().set_len(16 << 20).unwrap();
        }
        std::fs::write(wal.join("00000002.history"), "").unwrap();
        assert_eq!(begins(dir.path()).unwrap(), Some(Lsn(5 * (16 << 20))));
    }
}
