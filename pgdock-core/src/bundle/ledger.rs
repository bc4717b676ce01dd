//! [`Bundles`]: the bundles that are installed on a node, and which of them counts.
//!
//! ```text
//! HOME/bundles/HEX/…           a bundle, as it was unpacked; never changed
//! HOME/bundles/current         a link to the one that counts: the truth
//! HOME/bundles/history.json    what counted before, and what became of it
//! ```
//!
//! A switch writes the history first and then moves the link, which is one step. Entries behind the one that the link
//! names were never switched to, and do not count.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::{Bundle, tar};
use crate::durable::{Staged, create_folder, sync_folder};
use crate::{Error, Result};

/// How many bundles are kept beside the one that counts.
const KEPT: usize = 10;
/// How many entries the history keeps.
const ENTRIES_MAX: usize = 200;

/// A bundle that counted on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// The bundle.
    pub digest: Digest,
    /// The tag that it came under.
    pub tag: Option<String>,
    /// When it was switched to, by the node's calendar.
    pub at: Timestamp,
    /// How it came to count.
    pub how: How,
    /// Whether PostgreSQL has started or reloaded with it.
    pub proven: bool,
    /// Why, for a person, where there is something to tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// It was gone back from.
    #[serde(default)]
    pub undone: bool,
}

/// How a bundle came to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum How {
    /// An operator updated the node.
    Update,
    /// An operator went back to it.
    Rollback,
    /// The agent went back to it: PostgreSQL did not start with the one after it.
    Failure,
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Update => "update",
            Self::Rollback => "rollback",
            Self::Failure => "went back by itself",
        })
    }
}

/// What became of the bundles of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Oldest first; the last one counts.
    pub entries: Vec<Entry>,
}

impl History {
    /// The one that counts.
    #[must_use]
    pub fn current(&self) -> Option<&Entry> {
        self.entries.last()
    }

    /// The one to go back to: the newest one before that PostgreSQL ran with, and that was not gone back from.
    #[must_use]
    pub fn previous(&self) -> Option<&Entry> {
        let current = self.current()?;
        let candidates = self.entries.iter().rev().skip(1);
        let undone =
            |entry: &Entry| self.entries.iter().rev().find(|e| e.digest == entry.digest).is_some_and(|e| e.undone);
        candidates.into_iter().find(|e| e.digest != current.digest && e.proven && !undone(e))
    }

    /// Keeps what came before the link was moved last.
    fn up_to(mut self, current: Option<&Digest>) -> Self {
        let last = self.entries.iter().rposition(|entry| Some(&entry.digest) == current);
        self.entries.truncate(last.map_or(0, |at| at + 1));
        self
    }

    fn add(&mut self, entry: Entry) {
        if entry.how != How::Update {
            // What lies between is left for good.
            for left in self.entries.iter_mut().rev() {
                if left.digest == entry.digest && !left.undone {
                    break;
                }
                left.undone = true;
            }
        }
        self.entries.push(entry);
        let excess = self.entries.len().saturating_sub(ENTRIES_MAX);
        self.entries.drain(..excess);
    }
}

/// The bundles of a node.
#[derive(Clone, Debug)]
pub struct Bundles {
    dir: PathBuf,
}

impl Bundles {
    /// The bundles in a node's home.
    #[must_use]
    pub fn of(home: &Path) -> Self {
        Self { dir: home.join("bundles") }
    }

    /// The folder that counts, whatever it leads to. It may not be there.
    #[must_use]
    pub fn current_dir(&self) -> PathBuf {
        self.dir.join("current")
    }

    /// The folder of a bundle.
    #[must_use]
    pub fn dir_of(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// The bundle that counts.
    ///
    /// # Errors
    /// `Invalid` when the link leads to no bundle.
    pub fn current(&self) -> Result<Option<Digest>> {
        let link = self.current_dir();
        match std::fs::read_link(&link) {
            Ok(to) => Digest::parse(&format!("sha256:{}", to.display())).map(Some).map_err(|e| {
                Error::invalid(format!("this link leads to no bundle. link={}", link.display()))
                    .because(e)
                    .hint("remove it, and update the node")
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::invalid(format!("this is no link to a bundle. path={}", link.display())).because(e)),
        }
    }

    /// What counted when.
    ///
    /// # Errors
    /// `Invalid` when the file cannot be read.
    pub fn history(&self) -> Result<History> {
        let path = self.dir.join("history.json");
        let history: History = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::invalid(format!("the history of bundles cannot be read. file={}", path.display()))
                    .because(e)
                    .hint("move it away: only the way back is lost with it")
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => History::default(),
            Err(e) => {
                return Err(Error::invalid(format!("the history of bundles cannot be read. file={}", path.display()))
                    .because(e));
            }
        };
        Ok(history.up_to(self.current()?.as_ref()))
    }

    /// Takes the turn: one installs or switches at a time. For as long as the file is kept.
    pub(super) fn lock(&self) -> Result<File> {
        let failed = |e: std::io::Error| Error::internal(format!("cannot lock. dir={}", self.dir.display())).because(e);
        if !self.dir.is_dir() {
            create_folder(&self.dir, 0o755).map_err(failed)?;
            // Whatever the caller's umask: settings are tried by PostgreSQL's own user.
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&self.dir, open).map_err(failed)?;
        }
        let lock =
            File::options().create(true).truncate(false).write(true).open(self.dir.join("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(lock)
    }

    /// Unpacks a bundle into a folder of its own, beside its place. Whoever is interrupted leaves nothing that counts.
    pub(super) fn unpack(&self, bundle: &Bundle) -> Result<PathBuf> {
        let dir = self.dir.join(format!("{}.new", bundle.digest().hex()));
        let failed = |e: std::io::Error| {
            let full = matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
            let error = Error::unavailable(format!("the bundle cannot be unpacked. dir={}", dir.display())).because(e);
            if full { error.hint("make room on that disk; the node still has the bundle before") } else { error }
        };
        let work = || -> std::io::Result<()> {
            remove(&dir)?;
            create_folder(&dir, 0o755)?;
            put(&dir.join(tar::LIST), &bundle.list(), 0o644)?;
            for (path, file) in bundle.files.iter() {
                let at = dir.join(path);
                if let Some(above) = at.parent() {
                    create_folder(above, 0o755)?;
                }
                put(&at, &file.bytes, file.mode())?;
            }
            sync_all_folders(&dir)
        };
        work().map_err(|e| {
            let _ = remove(&dir);
            failed(e)
        })?;
        Ok(dir)
    }

    /// Puts an unpacked bundle in its place.
    pub(super) fn settle(&self, unpacked: &Path, digest: &Digest) -> Result<()> {
        let place = self.dir_of(digest);
        let work = || -> std::io::Result<()> {
            if place.symlink_metadata().is_ok() {
                // Somebody changed the one that is there, or the node lost power amid its writing.
                let aside = self.dir.join(format!("{}.changed", digest.hex()));
                remove(&aside)?;
                std::fs::rename(&place, &aside)?;
            }
            std::fs::rename(unpacked, &place)?;
            sync_folder(&self.dir)
        };
        work().map_err(|e| {
            Error::internal(format!("the bundle cannot be put in place. dir={}", place.display())).because(e)
        })
    }

    /// Has a bundle that is installed count from now on.
    ///
    /// # Errors
    /// `Invalid` when it is not installed, `Internal` when it cannot be written. Then the one before still counts.
    pub fn switch(
        &self,
        digest: &Digest,
        tag: Option<String>,
        how: How,
        note: Option<String>,
        at: Timestamp,
    ) -> Result<()> {
        let _turn = self.lock()?;
        if !self.dir_of(digest).join(tar::LIST).is_file() {
            return Err(Error::invalid(format!("this bundle is not installed. digest={digest}")));
        }
        let mut history = self.history()?;
        let known = history.entries.iter().rev().find(|entry| entry.digest == *digest);
        let tag = tag.or_else(|| known.and_then(|entry| entry.tag.clone()));
        let proven = how != How::Update && known.is_some_and(|entry| entry.proven);
        history.add(Entry { digest: digest.clone(), tag, at, how, proven, note, undone: false });
        self.write(&history)?;
        let work = || -> std::io::Result<()> {
            let link = self.dir.join("current.new");
            remove(&link)?;
            symlink(digest.hex(), &link)?;
            std::fs::rename(&link, self.current_dir())?;
            sync_folder(&self.dir)
        };
        work().map_err(|e| Error::internal(format!("cannot switch to a bundle. digest={digest}")).because(e))?;
        self.prune(&history);
        Ok(())
    }

    /// Notes that PostgreSQL runs with the bundle that counts.
    ///
    /// # Errors
    /// `Internal` when it cannot be written.
    pub fn prove(&self, digest: &Digest) -> Result<()> {
        let _turn = self.lock()?;
        let mut history = self.history()?;
        match history.entries.last_mut() {
            Some(entry) if entry.digest == *digest && !entry.proven => entry.proven = true,
            _ => return Ok(()),
        }
        self.write(&history)
    }

    fn write(&self, history: &History) -> Result<()> {
        let path = self.dir.join("history.json");
        let bytes = serde_json::to_vec_pretty(history)
            .map_err(|e| Error::internal("the history of bundles cannot be written").because(e))?;
        put(&path, &bytes, 0o644)
            .map_err(|e| Error::internal(format!("cannot write. file={}", path.display())).because(e))
    }

    /// Removes bundles that nobody goes back to any more, and what was left of interrupted installs.
    fn prune(&self, history: &History) {
        let mut kept: Vec<&str> = Vec::new();
        for entry in history.entries.iter().rev() {
            if kept.len() <= KEPT && !kept.contains(&entry.digest.hex()) {
                kept.push(entry.digest.hex());
            }
        }
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let hex = name.split('.').next().unwrap_or_default();
            let is_bundle = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
            if is_bundle && !kept.contains(&name.as_ref()) {
                // What cannot be removed now is tried again after the next switch.
                let _ = remove(&entry.path());
            }
        }
    }
}

/// Removes whatever has this name, if anything has.
fn remove(path: &Path) -> std::io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let staged = Staged::create(path, mode)?;
    staged.file().write_all(bytes)?;
    staged.replace().map_err(|e| e.source)
}

fn sync_all_folders(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all_folders(&entry.path())?;
        }
    }
    sync_folder(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn bundles() -> (tempfile::TempDir, Bundles) {
        let home = tempfile::tempdir().unwrap();
        let bundles = Bundles::of(home.path());
        (home, bundles)
    }

    fn installed(bundles: &Bundles, n: u8) {
        let dir = bundles.dir_of(&digest(n));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("bundle.json"), "").unwrap();
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn going_back_goes_further_back_each_time() {
        let (_home, bundles) = bundles();
        assert_eq!(bundles.current().unwrap(), None);
        for i in 0..4 {
            installed(&bundles, i);
            bundles.switch(&digest(i), Some(format!("n1v{i}")), How::Update, None, at(i.into())).unwrap();
            // The third one never worked.
            if i != 2 {
                bundles.prove(&digest(i)).unwrap();
            }
        }
        let back = |want: u8| {
            let history = bundles.history().unwrap();
            let to = history.previous().unwrap().digest.clone();
            assert_eq!(to, digest(want));
            bundles.switch(&to, None, How::Rollback, None, at(9)).unwrap();
            assert_eq!(bundles.current().unwrap(), Some(to));
        };
        back(1);
        back(0);
        let history = bundles.history().unwrap();
        assert_eq!(history.previous(), None);
        assert_eq!(history.current().unwrap().tag.as_deref(), Some("n1v0"));
        assert!(history.current().unwrap().proven);
        // Updated to once more, one that was left counts again.
        bundles.switch(&digest(3), None, How::Update, None, at(10)).unwrap();
        bundles.prove(&digest(3)).unwrap();
        back(0);
    }

    #[test]
    fn a_switch_that_was_interrupted_did_not_happen() {
        let (_home, bundles) = bundles();
        installed(&bundles, 0);
        bundles.switch(&digest(0), None, How::Update, None, at(0)).unwrap();
        let mut history = bundles.history().unwrap();
        let entry = Entry { digest: digest(1), ..history.entries[0].clone() };
        history.add(entry);
        bundles.write(&history).unwrap();
        assert_eq!(bundles.history().unwrap().entries.len(), 1);
        assert_eq!(bundles.current().unwrap(), Some(digest(0)));
        assert!(bundles.switch(&digest(7), None, How::Update, None, at(1)).is_err(), "it is not installed");
        assert_eq!(bundles.current().unwrap(), Some(digest(0)));
    }

    #[test]
    fn old_ones_are_removed_and_the_way_back_is_not() {
        let (home, bundles) = bundles();
        installed(&bundles, 0);
        std::fs::create_dir(home.path().join("bundles").join(format!("{}.new", digest(0).hex()))).unwrap();
        for i in 0..20 {
            installed(&bundles, i);
            bundles.switch(&digest(i), None, How::Update, None, at(i.into())).unwrap();
            bundles.prove(&digest(i)).unwrap();
        }
        let left = std::fs::read_dir(home.path().join("bundles")).unwrap().count();
        assert_eq!(left, KEPT + 1 + 3, "and the link, the history, the lock");
        assert!(bundles.dir_of(&digest(18)).exists());
        assert!(!bundles.dir_of(&digest(1)).exists());
    }
}
