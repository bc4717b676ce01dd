//! Which files of an operator's folder go into a node's bundle: `cluster.toml`, `shared/`, and the node's own folder.
//!
//! Left out are `secrets/`, every `env/` (they go over the executor), and what editors, version control and scripts leave:
//! hidden files, `*~`, `*.swp`, `failover/*.state` and `failover/*.log`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::path;
use super::tar::{ARCHIVE_MAX, FILES_MAX, File};
use crate::settings::{Fault, Faults};
use crate::{Error, NodeName, Result};

/// The largest file, in bytes: these are settings.
const FILE_MAX: u64 = 4 << 20;

/// Reads the files that make a node's bundle.
///
/// # Errors
/// `Invalid`, with all files that cannot be in a bundle: links, devices, odd names, files that are too large.
pub(super) fn read(dir: &Path, node: &NodeName) -> Result<BTreeMap<String, File>> {
    let mut reader = Reader { dir, files: BTreeMap::new(), faults: Vec::new(), bytes: 0 };
    reader.take("cluster.toml")?;
    for folder in ["shared", node.as_str()] {
        reader.folder(folder)?;
    }
    if reader.faults.is_empty() { Ok(reader.files) } else { Err(Faults::new(reader.faults).into_error()) }
}

struct Reader<'a> {
    dir: &'a Path,
    files: BTreeMap<String, File>,
    faults: Vec<Fault>,
    bytes: u64,
}

impl Reader<'_> {
    fn fault(&mut self, path: &str, expected: &str, found: &str, remedy: &str) {
        self.faults.push(Fault {
            file: self.dir.join(path),
            line: None,
            key: String::new(),
            expected: expected.to_owned(),
            found: found.to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    fn folder(&mut self, folder: &str) -> Result<()> {
        let at = self.dir.join(folder);
        let entries = match std::fs::read_dir(&at) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(unreadable(&at, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| unreadable(&at, e))?;
            let Ok(name) = entry.file_name().into_string() else {
                let shown = format!("{folder}/{}", entry.file_name().to_string_lossy());
                self.fault(&shown, "a name in UTF-8", "another one", "rename it");
                continue;
            };
            let path = format!("{folder}/{name}");
            if is_litter(&path, &name) || path::is_kept_out(&path) {
                continue;
            }
            let kind = entry.file_type().map_err(|e| unreadable(&entry.path(), e))?;
            if kind.is_dir() {
                self.folder(&path)?;
            } else if kind.is_file() {
                self.take(&path)?;
            } else {
                let what = if kind.is_symlink() { "a link" } else { "a device, pipe or socket" };
                self.fault(&path, "a file or a folder", what, "put the file itself there, or take it out");
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &str) -> Result<()> {
        let at = self.dir.join(path);
        let meta = std::fs::symlink_metadata(&at).map_err(|e| unreadable(&at, e))?;
        if let Some(why) = path::fault(path) {
            self.fault(path, "a plain path of at most 100 bytes", why, "rename it");
        } else if !meta.is_file() {
            self.fault(path, "a file", "something else", "put the file itself there");
        } else if meta.len() > FILE_MAX {
            let remedy = "take it out: a bundle holds configuration";
            self.fault(path, &format!("at most {FILE_MAX} bytes"), &meta.len().to_string(), remedy);
        } else if self.bytes + meta.len() > ARCHIVE_MAX as u64 / 2 || self.files.len() + 1 >= FILES_MAX {
            return Err(Error::invalid(format!("the folder holds too much for a bundle. dir={}", self.dir.display()))
                .hint("take out what is no configuration"));
        } else {
            let bytes = std::fs::read(&at).map_err(|e| unreadable(&at, e))?;
            self.bytes += bytes.len() as u64;
            self.files.insert(path.to_owned(), File { runs: meta.permissions().mode() & 0o100 != 0, bytes });
        }
        Ok(())
    }
}

/// What nobody means to deliver.
fn is_litter(path: &str, name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str());
    name.starts_with('.')
        || name.ends_with('~')
        || extension == Some("swp")
        || path.contains("/failover/") && matches!(extension, Some("state" | "log"))
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    let path: PathBuf = path.to_owned();
    Error::invalid(format!("this is not readable. path={}", path.display()))
        .because(error)
        .hint("check its owner and mode")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(dir: &Path, path: &str) {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }

    fn n1() -> NodeName {
        NodeName::new("n1").unwrap()
    }

    #[test]
    fn secrets_others_and_litter_stay_out() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "cluster.toml",
            "README.md",
            "secrets/agent.token",
            "n1/env/main",
            "shared/env/wale",
            "shared/a/b.sql",
            "n1/postgres/postgresql.conf",
            "n2/postgres/postgresql.conf",
            "shared/.hidden",
            "shared/.git/HEAD",
            "shared/a/b.sql~",
            "shared/failover/failover.sh",
            "shared/failover/failover.state",
            "n1/failover/x.log",
            "n1/tests/env/not-at-the-top",
        ] {
            write(dir.path(), path);
        }
        let runs = dir.path().join("shared/failover/failover.sh");
        std::fs::set_permissions(&runs, std::fs::Permissions::from_mode(0o775)).unwrap();
        let files = read(dir.path(), &n1()).unwrap();
        let names: Vec<_> = files.iter().map(|(path, file)| format!("{path} {:o}", file.mode())).collect();
        assert_eq!(
            names,
            [
                "cluster.toml 644",
                "n1/postgres/postgresql.conf 644",
                "n1/tests/env/not-at-the-top 644",
                "shared/a/b.sql 644",
                "shared/failover/failover.sh 755",
            ]
        );
    }

    #[test]
    fn what_cannot_be_in_a_bundle_is_told_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "cluster.toml");
        write(dir.path(), &format!("shared/{}", "long/".repeat(20) + "x"));
        symlink("/etc/passwd", dir.path().join("shared/passwd")).unwrap();
        std::fs::File::create(dir.path().join("shared/large")).unwrap().set_len(FILE_MAX + 1).unwrap();
        let text = read(dir.path(), &n1()).unwrap_err().to_string();
        for part in
            ["3 faults", "shared/passwd: expected a file or a folder, found a link", "longer than 100", "4194305"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        std::fs::remove_file(dir.path().join("cluster.toml")).unwrap();
        assert!(read(dir.path(), &n1()).is_err());
    }
}
