//! [`DirSink`]: a folder of this machine, or one that is mounted.

use std::collections::BinaryHeap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{BackupSink, Body, Entry, Key, PAGE, Put};
use crate::durable::{self, Staged};
use crate::{Error, Result};

const CHUNK: usize = 256 << 10;

/// Objects as files, with mode 0600, in folders that follow their names.
#[derive(Clone, Debug)]
pub struct DirSink {
    root: PathBuf,
}

impl DirSink {
    /// A folder, which is made with the first object.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        let message = format!("{what}. root={}", self.root.display());
        let failed = Error::unavailable(message.clone());
        match error.kind() {
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                Error::invalid(message).hint("there are objects below that name, or one above it")
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failed.hint("make room on that disk"),
            io::ErrorKind::PermissionDenied => failed.hint("the agent must own that folder"),
            _ => failed,
        }
        .because(error)
    }
}

impl std::fmt::Display for DirSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file:{}", self.root.display())
    }
}

#[async_trait]
impl BackupSink for DirSink {
    async fn put(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Put> {
        let cannot = |e| self.failed(&format!("an object cannot be written. key={key}"), e);
        let path = self.path(key);
        let staged = blocking(move || {
            if path.is_file() {
                return Ok(None);
            }
            if path.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            durable::create_folder(durable::folder_of(&path), 0o700)?;
            let staged = Staged::create(&path, 0o600)?;
            // What a crash left behind goes now; only tidiness depends on it.
            let _ = staged.sweep_beside();
            Ok(Some(staged))
        });
        let Some(mut staged) = staged.await.map_err(cannot)? else { return Ok(Put::AlreadyExists) };
        let mut size = 0;
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = body
                .read(&mut buffer)
                .await
                .map_err(|e| Error::unavailable(format!("the source of an object failed. key={key}")).because(e))?;
            if read == 0 {
                break;
            }
            size += read as u64;
            (staged, buffer) = blocking(move || {
                staged.file().write_all(&buffer[..read])?;
                Ok((staged, buffer))
            })
            .await
            .map_err(cannot)?;
        }
        match blocking(move || Ok(staged.create_new())).await.map_err(cannot)? {
            Ok(true) => Ok(Put::Created(size)),
            Ok(false) => Ok(Put::AlreadyExists),
            Err(e) if e.perhaps_visible => Err(cannot(e.source).outcome_unknown()),
            Err(e) => Err(cannot(e.source)),
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<(u64, Body)>> {
        let cannot = |e| self.failed(&format!("an object cannot be read. key={key}"), e);
        let file = match tokio::fs::File::open(self.path(key)).await {
            Ok(file) => file,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(cannot(e)),
        };
        let metadata = file.metadata().await.map_err(cannot)?;
        Ok(metadata.is_file().then(|| (metadata.len(), Box::pin(file) as Body)))
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Entry>> {
        let (root, prefix, after) = (self.root.clone(), prefix.to_owned(), after.cloned());
        blocking(move || page(&root, &prefix, after.as_ref()))
            .await
            .map_err(|e| self.failed("the objects cannot be listed", e))
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        // The folders stay: another put may be about to use one.
        let deleted = blocking(move || match std::fs::remove_file(&path) {
            Ok(()) => durable::sync_folder(durable::folder_of(&path)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
            Err(_) if path.is_dir() => Ok(()),
            Err(e) => Err(e),
        });
        deleted.await.map_err(|e| self.failed(&format!("an object cannot be deleted. key={key}"), e).outcome_unknown())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|died| Err(io::Error::other(died)))
}

/// The first objects after `after`, kept in a heap of a page's size while all folders that the prefix
/// touches are walked.
fn page(root: &Path, prefix: &str, after: Option<&Key>) -> io::Result<Vec<Entry>> {
    let mut first = BinaryHeap::new();
    let start = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    // A prefix that is no part of a key has no objects, and must not lead out of the folder.
    if !start.is_empty() && Key::new(start).is_err() {
        return Ok(Vec::new());
    }
    let mut folders = vec![start.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(root.join(&folder)) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            // Staged files and whatever else somebody has put here have names that are no keys.
            let Ok(key) = Key::new(name) else { continue };
            if kind.is_dir() {
                let inside = format!("{key}/");
                if inside.starts_with(prefix) || prefix.starts_with(&inside) {
                    folders.push(key.into());
                }
            } else if kind.is_file() && key.as_str().starts_with(prefix) && after.is_none_or(|after| key > *after) {
                let size = match entry.metadata() {
                    Ok(metadata) => metadata.len(),
                    // Deleted this moment.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                };
                first.push(Entry { key, size });
                if first.len() > PAGE {
                    first.pop();
                }
            }
        }
    }
    Ok(first.into_sorted_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_sink::BackupSinkExt;

    #[tokio::test]
    async fn a_crashed_put_leaves_nothing_that_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::new(dir.path());
        let key: Key = "wal/1".parse().unwrap();
        let _ = sink.put_bytes(&key, b"x").await.unwrap();
        let stale = dir.path().join("wal/.2.0123456789abcdef.pgdock-tmp");
        std::fs::write(&stale, "half").unwrap();
        assert_eq!(sink.list_all("").await.unwrap().len(), 1);
        let _ = sink.put_bytes(&"wal/3".parse().unwrap(), b"x").await.unwrap();
        assert!(!stale.exists());
    }

    #[tokio::test]
    async fn a_name_below_another_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::new(dir.path());
        let _ = sink.put_bytes(&"a/b".parse().unwrap(), b"x").await.unwrap();
        for key in ["a", "a/b/c", "a/b/c/d"] {
            let error = sink.put_bytes(&key.parse().unwrap(), b"y").await.unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{key}: {}", error.chain());
        }
        assert_eq!(sink.list_all("").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_prefix_does_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        let sink = DirSink::new(dir.path().join("sink"));
        let _ = sink.put_bytes(&"a".parse().unwrap(), b"x").await.unwrap();
        for prefix in ["../", "/", "a/../../", "../out"] {
            assert!(sink.list_all(prefix).await.unwrap().is_empty(), "{prefix}");
        }
    }
}
