//! [`FileWitness`]: a document on this machine, for clusters all of whose nodes live on it.
//!
//! Writers take turns by a lock on a file beside the document, so that each may compare and then replace.
//! The kernel drops the lock of a process that dies. A new document is on disk before it takes its place:
//! a crash leaves the old one or the new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{Record, Swap, Version, Witness};
use crate::durable::{self, Staged};
use crate::{Error, Result};

/// How long a call waits for the lock and the disk, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How often a waiting call tries the lock. The kernel can wake a waiter, but not after a bounded time.
const LOCK_RETRY: Duration = Duration::from_millis(2);
/// More than any document: a larger file is somebody else's.
const BYTES_MAX: u64 = 4 << 20;

/// A document in a file.
///
/// Every agent that runs as the file's owner may share it; the file and its lock have mode 0600.
/// The file system must be local: over a network, locks and caches promise less than a witness has to.
#[derive(Debug)]
pub struct FileWitness {
    at: Place,
    timeout: Duration,
    /// Callers in this process queue here, so that only one of them polls the lock.
    turn: Arc<Mutex<()>>,
}

impl FileWitness {
    /// The document at a path, which need not exist yet, nor its folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { at: Place { document: path.into() }, timeout: TIMEOUT, turn: Arc::default() }
    }

    /// How long a call may take, half of it waiting for other writers. Default 2 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Where the document is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at.document
    }

    /// Runs blocking work in its turn. Cancelled, the work still ends by itself, and keeps the turn until then.
    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce(Place, Duration) -> T + Send + 'static) -> Result<T> {
        let late = || Error::unavailable(format!("the witness file did not answer in time. {}", self.at.shown()));
        // A quarter for the turn, a quarter for the lock, the rest for the disk.
        let wait = self.timeout / 4;
        let turn: OwnedMutexGuard<()> =
            tokio::time::timeout(wait, Arc::clone(&self.turn).lock_owned()).await.map_err(|_| late())?;
        let at = self.at.clone();
        let running = tokio::task::spawn_blocking(move || {
            let result = work(at, wait);
            drop(turn);
            result
        });
        match tokio::time::timeout(self.timeout - wait, running).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(died)) => {
                Err(Error::internal("work on the witness file was given up").because(died).outcome_unknown())
            }
            Err(_) => Err(late().outcome_unknown()),
        }
    }
}

impl std::fmt::Display for FileWitness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file:{}", self.at.document.display())
    }
}

#[async_trait]
impl Witness for FileWitness {
    async fn read(&self) -> Result<Option<(Record, Version)>> {
        self.in_turn(|at, limit| {
            if !durable::folder_of(&at.document).is_dir() {
                return Ok(None);
            }
            let _lock = at.lock(FlockOperation::NonBlockingLockShared, limit)?;
            at.load()
        })
        .await?
    }

    async fn compare_and_swap(&self, next: &Record, expected: Option<&Version>) -> Swap {
        if next.nonce.is_empty() {
            return Swap::Ambiguous(Error::internal("a document without a nonce was not written"));
        }
        let (next, expected) = (next.clone(), expected.cloned());
        let done = self.in_turn(move |at, limit| at.swap(&next, expected.as_ref(), limit)).await;
        match done {
            Ok(Ok(swap)) => swap,
            Ok(Err(error)) | Err(error) => Swap::Ambiguous(error),
        }
    }

    fn kind(&self) -> &'static str {
        "file"
    }
}

/// The file of a cluster: a path that ends with a slash is a folder, in which it has one of its own.
pub(super) fn document(path: &Path, cluster: &str) -> PathBuf {
    let is_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if is_folder { path.join(format!("{cluster}.json")) } else { path.to_owned() }
}

/// Removes a document that no cluster owns, and its lock.
pub(super) async fn remove(path: &Path) -> Result<()> {
    for path in [path, &lock_path(path)] {
        match tokio::fs::remove_file(path).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(
                    Error::unavailable(format!("a scratch file was left behind. path={}", path.display())).because(e)
                );
            }
            _ => {}
        }
    }
    Ok(())
}

fn lock_path(document: &Path) -> PathBuf {
    let mut name = document.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Where the document is, and the blocking work on it.
#[derive(Clone, Debug)]
struct Place {
    document: PathBuf,
}

impl Place {
    fn shown(&self) -> String {
        format!("path={}", self.document.display())
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        let failed = Error::unavailable(format!("{what}. {}", self.shown()));
        let failed = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failed.hint("make room on that disk"),
            io::ErrorKind::PermissionDenied => {
                failed.hint("every agent must run as the owner of that file and of its folder")
            }
            _ => failed,
        };
        failed.because(error)
    }

    /// Takes the lock, or gives up after `limit`.
    fn lock(&self, how: FlockOperation, limit: Duration) -> Result<File> {
        let path = lock_path(&self.document);
        let cannot = |e| self.failed("the witness file cannot be locked", e);
        let mut waited = Duration::ZERO;
        loop {
            let lock = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(cannot)?;
            give_to_owner_of(&lock, durable::folder_of(&path)).map_err(cannot)?;
            match flock(&lock, how) {
                // Somebody may have removed the file meanwhile; then others lock another one by this name.
                Ok(()) => match (path.metadata(), lock.metadata().map_err(cannot)?) {
                    (Ok(named), held) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => return Ok(lock),
                    _ => {}
                },
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(e) => return Err(cannot(e.into())),
            }
            if waited >= limit {
                return Err(Error::unavailable(format!(
                    "the witness file is locked by another process. {}",
                    self.shown()
                )));
            }
            std::thread::sleep(LOCK_RETRY);
            waited += LOCK_RETRY;
        }
    }

    /// The present document; its folder exists.
    fn load(&self) -> Result<Option<(Record, Version)>> {
        let cannot = |e| self.failed("the witness file cannot be read", e);
        let bytes = match File::open(&self.document) {
            Ok(file) => {
                let length = file.metadata().map_err(cannot)?.len();
                if length > BYTES_MAX {
                    return Err(Error::needs_operator(format!(
                        "the witness file is no document of ours. {}, bytes={length}",
                        self.shown()
                    )));
                }
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut io::Read::take(file, BYTES_MAX), &mut bytes).map_err(cannot)?;
                bytes
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(cannot(e)),
        };
        let record = Record::decode(&bytes).map_err(|e| e.at(self.shown()))?;
        let version = version_of(&record);
        Ok(Some((record, version)))
    }

    fn swap(&self, next: &Record, expected: Option<&Version>, limit: Duration) -> Result<Swap> {
        let cannot = |e| self.failed("the witness file cannot be written; the old document stands", e);
        let folder = durable::folder_of(&self.document);
        if expected.is_none() {
            durable::create_folder(folder, 0o700).map_err(cannot)?;
        } else if !folder.is_dir() {
            return Ok(Swap::Conflict);
        }
        let _lock = self.lock(FlockOperation::NonBlockingLockExclusive, limit)?;
        if self.load()?.as_ref().map(|(_, version)| version) != expected {
            return Ok(Swap::Conflict);
        }
        let staged = Staged::create(&self.document, 0o600).map_err(cannot)?;
        staged.file().write_all(&next.encode()).map_err(cannot)?;
        give_to_owner_of(staged.file(), folder).map_err(cannot)?;
        // What a crash of an earlier writer left goes now; only tidiness depends on it.
        let _ = staged.sweep_beside();
        staged.replace().map_err(|e| {
            if e.perhaps_visible {
                self.failed("the witness file may or may not have changed", e.source).outcome_unknown()
            } else {
                cannot(e.source)
            }
        })?;
        Ok(Swap::Committed(version_of(next)))
    }
}

/// Lets root look at a cluster without locking out agents that run as somebody else.
fn give_to_owner_of(file: &File, folder: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (folder, mine) = (folder.metadata()?, file.metadata()?);
    if (folder.uid(), folder.gid()) != (mine.uid(), mine.gid()) {
        std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid()))?;
    }
    Ok(())
}

/// The nonce alone would do; the numbers are for people who read a log.
fn version_of(record: &Record) -> Version {
    Version(format!("{}-{}-{}", record.term, record.heartbeat, record.nonce))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ErrorKind;
    use crate::witness::probe::scratch_record;

    async fn create(witness: &FileWitness) -> Version {
        match witness.compare_and_swap(&scratch_record(0), None).await {
            Swap::Committed(version) => version,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn makes_its_folder_and_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let witness = FileWitness::new(dir.path().join("a/b/witness.json"));
        assert!(witness.read().await.unwrap().is_none());
        let version = create(&witness).await;
        assert_eq!(witness.read().await.unwrap().unwrap().1, version);
        for (path, mode) in [("a/b", 0o700), ("a/b/witness.json", 0o600), ("a/b/witness.json.lock", 0o600)] {
            assert_eq!(dir.path().join(path).metadata().unwrap().permissions().mode() & 0o777, mode, "{path}");
        }
    }

    #[tokio::test]
    async fn a_document_that_is_not_understood_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness.json");
        let witness = FileWitness::new(&path);
        let version = create(&witness).await;
        let whole = std::fs::read(&path).unwrap();
        let newer = String::from_utf8(whole.clone()).unwrap().replacen("\"format\": 1", "\"format\": 99", 1);
        for spoilt in [&b""[..], &whole[..whole.len() / 2], newer.as_bytes(), b"[]"] {
            std::fs::write(&path, spoilt).unwrap();
            let error = witness.read().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NeedsOperator);
            assert!(error.to_string().contains("witness.json"), "{error}");
            for expected in [None, Some(&version)] {
                let swap = witness.compare_and_swap(&scratch_record(1), expected).await;
                assert!(matches!(&swap, Swap::Ambiguous(e) if e.kind() == ErrorKind::NeedsOperator), "{swap:?}");
                assert_eq!(std::fs::read(&path).unwrap(), spoilt);
            }
        }
    }

    #[tokio::test]
    async fn a_lock_that_is_held_is_waited_for_only_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let witness = FileWitness::new(dir.path().join("witness.json")).timeout(Duration::from_millis(20));
        let version = create(&witness).await;
        let held = witness.at.lock(FlockOperation::NonBlockingLockExclusive, Duration::ZERO).unwrap();
        assert_eq!(witness.read().await.unwrap_err().kind(), ErrorKind::Unavailable);
        let swap = witness.compare_and_swap(&scratch_record(1), Some(&version)).await;
        assert!(matches!(&swap, Swap::Ambiguous(e) if e.outcome_known()), "{swap:?}");
        drop(held);
        assert_eq!(witness.read().await.unwrap().unwrap().1, version);
    }

    #[tokio::test]
    async fn what_a_crash_left_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let witness = FileWitness::new(dir.path().join("witness.json"));
        let stale = dir.path().join(".witness.json.0123456789abcdef.pgdock-tmp");
        std::fs::write(&stale, "half a docu").unwrap();
        create(&witness).await;
        assert!(!stale.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_holds_a_document_for_each_cluster() {
        assert_eq!(document(Path::new("/var/w"), "shop"), Path::new("/var/w"));
        assert_eq!(document(Path::new("/var/w/"), "shop"), Path::new("/var/w/shop.json"));
    }
}
