//! [`ready`]: which files PostgreSQL wants archived, as `pg_wal/archive_status` tells.

use std::path::Path;
use std::time::SystemTime;

use super::file::WalFile;
use crate::{Error, Result};

/// A file that waits to be archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ready {
    /// Which.
    pub file: WalFile,
    /// Since when, by the machine's calendar.
    pub since: Option<SystemTime>,
}

/// The files that wait to be archived, in the order in which they should be. None where there is no data directory.
///
/// # Errors
/// `Internal` when the folder cannot be read.
pub fn ready(data: &Path) -> Result<Vec<(String, Ready)>> {
    let dir = data.join("pg_wal").join("archive_status");
    let failed = |e| Error::internal(format!("cannot list what is to be archived. path={}", dir.display())).because(e);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let Some(name) = entry.file_name().to_str().and_then(|n| n.strip_suffix(".ready")).map(str::to_owned) else {
            continue;
        };
        let Ok(file) = WalFile::parse(&name) else { continue };
        // It may have been archived this moment.
        let since = entry.metadata().ok().and_then(|m| m.modified().ok());
        found.push((name, Ready { file, since }));
    }
    found.sort_by_key(|(_, ready)| ready.file);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_comes_in_order_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ready(dir.path()).unwrap().is_empty(), "there is no data directory");
        let status = dir.path().join("pg_wal/archive_status");
        std::fs::create_dir_all(&status).unwrap();
        for name in [
            "000000020000000000000004.ready",
            "000000010000000000000003.partial.ready",
            "000000010000000000000003.ready",
            "000000010000000000000002.done",
            "00000002.history.ready",
            "core.ready",
        ] {
            std::fs::write(status.join(name), "").unwrap();
        }
        let names: Vec<_> = ready(dir.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        let expected = [
            "00000002.history",
            "000000010000000000000003",
            "000000020000000000000004",
            "000000010000000000000003.partial",
        ];
        assert_eq!(names, expected);
    }
}
