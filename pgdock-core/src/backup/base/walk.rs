//! Which files of a data directory a backup holds: those that PostgreSQL's own `basebackup.c` sends.

use std::collections::HashSet;
use std::fs::{DirEntry, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::backup::manifest::Tablespace;
use crate::{Error, Result};

/// Folders whose content is not needed, or not valid elsewhere: they are restored empty.
const EMPTIED: [&str; 8] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal/archive_status",
];

/// Files that tell of the server that ran, not of its data.
const LEFT_OUT: [&str; 12] = [
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "current_logfiles.tmp",
    "pgdock.incarnation",
    "postgresql.auto.conf.tmp",
    "postmaster.opts",
    "postmaster.pid",
    "recovery.signal",
    "standby.signal",
    "tablespace_map",
    "tablespace_map.old",
];

/// The control file, which is copied last.
pub(crate) const CONTROL: &str = "global/pg_control";

/// Something that belongs to the backup.
#[derive(Debug)]
pub(super) enum Found {
    /// A folder, with its permissions.
    Folder { path: String, mode: u32 },
    /// A file.
    File { path: String, full: PathBuf, size: u64, relation: Option<Relation> },
}

/// What a relation's file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relation {
    /// The number of the segment.
    pub(super) segment: u32,
}

/// The tablespaces outside the data directory.
pub(super) fn tablespaces(data: &Path) -> Result<Vec<Tablespace>> {
    let folder = data.join("pg_tblspc");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|e| unreadable(&folder, e))? {
        let entry = entry.map_err(|e| unreadable(&folder, e))?;
        let Some(oid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        let path = std::fs::read_link(entry.path()).map_err(|e| unreadable(&entry.path(), e))?;
        let path = path.to_str().filter(|p| !p.contains(['\n', '\r', '\\'])).ok_or_else(|| {
            Error::invalid(format!(
                "the path of a tablespace has characters that cannot be restored. path={}",
                path.display()
            ))
        })?;
        found.push(Tablespace { oid, path: path.to_owned() });
    }
    found.sort_by_key(|space| space.oid);
    Ok(found)
}

/// Walks through all that belongs to a backup but the control file: folders before what is in them. The major version of the
/// server says which folders of a tablespace are its own.
pub(super) fn walk(data: &Path, major: u32, each: &mut dyn FnMut(Found) -> Result<()>) -> Result<()> {
    let mut walk = Walk { data, own: format!("PG_{major}_"), each };
    walk.folder("")
}

struct Walk<'a> {
    data: &'a Path,
    own: String,
    each: &'a mut dyn FnMut(Found) -> Result<()>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &str) -> Result<()> {
        let full = self.data.join(folder);
        let databases = holds_relations(folder);
        let unlogged = if databases { unlogged(&full)? } else { HashSet::new() };
        let mut below = Vec::new();
        self.entries(&full, &mut |walk, entry, name| {
            let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
            // Another server may have its tablespace in the same folder.
            if folder.strip_prefix("pg_tblspc/").is_some_and(|space| !space.contains('/'))
                && !name.starts_with(&walk.own)
            {
                return Ok(());
            }
            // A tablespace is a link to its folder; links elsewhere are not followed, as PostgreSQL does not either.
            let kind = entry.file_type().map_err(|e| unreadable(&entry.path(), e))?;
            let linked = kind.is_symlink() && (folder == "pg_tblspc" || path == "pg_wal");
            let metadata = if linked { std::fs::metadata(entry.path()) } else { entry.metadata() };
            let metadata = match metadata {
                Ok(metadata) => metadata,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(unreadable(&entry.path(), e)),
            };
            if metadata.is_dir() {
                below.push((path, metadata));
            } else if metadata.is_file() {
                walk.file(folder, name, path, &metadata, databases.then_some(&unlogged))?;
            }
            Ok(())
        })?;
        // A relation's files are many, folders are few: only these are held in memory, and not while the folder is open.
        below.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, metadata) in below {
            if path.rsplit('/').next().is_some_and(|name| name.starts_with("pgsql_tmp")) {
                continue;
            }
            (self.each)(Found::Folder { path: path.clone(), mode: metadata.permissions().mode() & 0o777 })?;
            if path == "pg_wal" {
                for inside in ["pg_wal/archive_status", "pg_wal/summaries"] {
                    if self.data.join(inside).is_dir() {
                        (self.each)(Found::Folder { path: inside.to_owned(), mode: 0o700 })?;
                    }
                }
            } else if !EMPTIED.contains(&path.as_str()) {
                self.folder(&path)?;
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        folder: &str,
        name: &str,
        path: String,
        metadata: &Metadata,
        unlogged: Option<&HashSet<String>>,
    ) -> Result<()> {
        let left_out = name.starts_with("pgsql_tmp")
            || name.starts_with("pg_internal.init")
            || crate::durable::is_staged(name.as_ref())
            || folder.is_empty() && LEFT_OUT.contains(&name)
            || path == CONTROL;
        if left_out {
            return Ok(());
        }
        let file = relation_file(name).filter(|_| unlogged.is_some() || folder == "global");
        if let (Some(file), Some(unlogged)) = (&file, unlogged)
            && (file.temporary || file.fork != Some("init") && unlogged.contains(file.number))
        {
            return Ok(());
        }
        let relation = file.map(|file| Relation { segment: file.segment });
        let full = self.data.join(&path);
        (self.each)(Found::File { path, full, size: metadata.len(), relation })
    }

    fn entries(&mut self, full: &Path, each: &mut dyn FnMut(&mut Self, DirEntry, &str) -> Result<()>) -> Result<()> {
        let entries = match std::fs::read_dir(full) {
            Ok(entries) => entries,
            // A database that was dropped a moment ago.
            Err(e) if e.kind() == io::ErrorKind::NotFound && full != self.data => return Ok(()),
            Err(e) => return Err(unreadable(full, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| unreadable(full, e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                let message = format!("a file's name is not text. path={}", entry.path().display());
                return Err(
                    Error::invalid(message).hint("it is none of PostgreSQL's: move it out of the data directory")
                );
            };
            each(self, entry, name)?;
        }
        Ok(())
    }
}

/// Whether a folder is that of a database.
fn holds_relations(folder: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match folder.split('/').collect::<Vec<_>>()[..] {
        ["base", database] | ["pg_tblspc", _, _, database] => number(database),
        _ => false,
    }
}

/// The relations of a folder that recovery empties: those that have a fork `init`.
fn unlogged(folder: &Path) -> Result<HashSet<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(e) => return Err(unreadable(folder, e)),
    };
    let mut found = HashSet::new();
    for entry in entries {
        let name = entry.map_err(|e| unreadable(folder, e))?.file_name();
        let file = name.to_str().and_then(relation_file).filter(|file| file.fork == Some("init") && !file.temporary);
        found.extend(file.map(|file| file.number.to_owned()));
    }
    Ok(found)
}

/// What the name of a relation's file tells: `16384`, `16384_fsm`, `16384.1`, `t3_16384`.
#[derive(Debug, PartialEq, Eq)]
struct RelationFile<'a> {
    temporary: bool,
    number: &'a str,
    fork: Option<&'a str>,
    segment: u32,
}

fn relation_file(name: &str) -> Option<RelationFile<'_>> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (rest, temporary) = match name.strip_prefix('t').and_then(|rest| rest.split_once('_')) {
        Some((backend, rest)) if digits(backend) => (rest, true),
        _ => (name, false),
    };
    let (rest, segment) = match rest.split_once('.') {
        Some((rest, segment)) if digits(segment) => (rest, segment.parse().ok()?),
        Some(_) => return None,
        None => (rest, 0),
    };
    let (number, fork) = match rest.split_once('_') {
        Some((number, fork @ ("fsm" | "vm" | "init"))) => (number, Some(fork)),
        Some(_) => return None,
        None => (rest, None),
    };
    digits(number).then_some(RelationFile { temporary, number, fork, segment })
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    let message = format!("a part of the data directory cannot be read. path={}", path.display());
    let failed = if error.kind() == io::ErrorKind::PermissionDenied {
        Error::invalid(message)
    } else {
        Error::unavailable(message)
    };
    failed.because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_relations() {
        let file = |temporary, number, fork, segment| Some(RelationFile { temporary, number, fork, segment });
        assert_eq!(relation_file("16384"), file(false, "16384", None, 0));
        assert_eq!(relation_file("16384_fsm.2"), file(false, "16384", Some("fsm"), 2));
        assert_eq!(relation_file("t3_16384.1"), file(true, "16384", None, 1));
        for other in ["PG_VERSION", "pg_filenode.map", "16384_other", "16384.x", "t_1", "", "1_init_2"] {
            assert_eq!(relation_file(other), None, "{other}");
        }
    }

    #[test]
    fn what_belongs_to_a_backup() {
        let dir = tempfile::tempdir().unwrap();
        let (data, elsewhere) = (dir.path().join("data"), dir.path().join("space"));
        let make = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        for path in [
            "data/PG_VERSION",
            "data/postmaster.pid",
            "data/backup_label",
            "data/postgresql.auto.conf",
            "data/pgdock.incarnation",
            "data/global/pg_control",
            "data/global/1260",
            "data/global/pg_internal.init",
            "data/base/1/1259",
            "data/base/1/1259_fsm",
            "data/base/1/pg_internal.init.77",
            "data/base/5/20000",
            "data/base/5/20000_init",
            "data/base/5/20000_vm",
            "data/base/5/20000.1",
            "data/base/5/t4_30000",
            "data/base/5/20001",
            "data/base/pgsql_tmp/pgsql_tmp1.0",
            "data/pg_wal/000000010000000000000001",
            "data/pg_wal/archive_status/x.ready",
            "data/pg_wal/summaries/y",
            "data/pg_replslot/a/state",
            "data/pg_notify/0000",
            "data/pg_stat_tmp/z",
            "data/pg_xact/0000",
            "data/pg_tblspc/x",
            "space/PG_15_202209061/5/20002",
            "space/PG_15_202209061/5/20003_init",
            "space/PG_15_202209061/5/20003",
            "space/PG_14_202107181/5/20002",
        ] {
            make(path);
        }
        std::os::unix::fs::symlink(&elsewhere, data.join("pg_tblspc/40000")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", data.join("link")).unwrap();
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        walk(&data, 15, &mut |found| {
            match found {
                Found::Folder { path, .. } => folders.push(path),
                Found::File { path, relation, .. } => {
                    assert!(
                        path.rsplit_once('/').is_none_or(|(above, _)| folders.iter().any(|f| f == above)),
                        "{path}"
                    );
                    files.push((path, relation.map(|r| r.segment)));
                }
            }
            Ok(())
        })
        .unwrap();
        files.sort();
        let expected = [
            ("PG_VERSION", None),
            ("base/1/1259", Some(0)),
            ("base/1/1259_fsm", Some(0)),
            ("base/5/20000_init", Some(0)),
            ("base/5/20001", Some(0)),
            ("global/1260", Some(0)),
            ("pg_tblspc/40000/PG_15_202209061/5/20002", Some(0)),
            ("pg_tblspc/40000/PG_15_202209061/5/20003_init", Some(0)),
            ("pg_tblspc/x", None),
            ("pg_xact/0000", None),
            ("postgresql.auto.conf", None),
        ];
        assert_eq!(files, expected.map(|(path, segment)| (path.to_owned(), segment)));
        for emptied in
            ["pg_wal", "pg_wal/archive_status", "pg_wal/summaries", "pg_replslot", "pg_notify", "pg_stat_tmp"]
        {
            assert!(folders.iter().any(|f| f == emptied), "{emptied}");
        }
        assert!(!folders.iter().any(|f| f.contains("pgsql_tmp") || f.contains("pg_replslot/") || f.contains("PG_14")));
        let spaces = tablespaces(&data).unwrap();
        assert_eq!(spaces, [Tablespace { oid: 40000, path: elsewhere.to_str().unwrap().to_owned() }]);
    }
}
