//! [`BackupSink`]: where backups and WAL are kept: objects by name, written once.

use std::pin::Pin;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{Error, Result};

#[cfg(feature = "bucket")]
pub mod bucket;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod dir;
pub mod faulty;
pub mod memory;
mod open;
pub mod probe;
pub mod url;

#[cfg(feature = "bucket")]
pub use bucket::BucketSink;
pub use dir::DirSink;
pub use faulty::FaultySink;
pub use memory::MemorySink;
pub use open::open;
pub use probe::ProbedSink;
pub use url::BackupUrl;

/// The most objects that one call of [`BackupSink::list`] answers.
pub const PAGE: usize = 1_000;

/// The name of an object: up to 512 characters of `A-Z a-z 0-9 . _ - + = @`, in parts divided by `/`.
///
/// No part is empty or begins with a dot. So a key is safe as a path, in a URL and in every known store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

impl Key {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// `Invalid` when it is empty, too long, or could be misread somewhere.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+=@".contains(c);
        let part =
            |part: &str| !part.is_empty() && part.len() <= 200 && !part.starts_with('.') && part.chars().all(allowed);
        if name.len() <= 512 && name.split('/').all(part) {
            Ok(Self(name))
        } else {
            Err(Error::invalid(format!("not a name for a backup object. key={name:?}")))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Key {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl std::str::FromStr for Key {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

/// How a put ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Put {
    /// The object is there now, with this many bytes.
    Created(u64),
    /// An object of that name was there before, and still is: unchanged, and perhaps different. Where an
    /// earlier try of one's own may have landed, compare the content.
    AlreadyExists,
}

/// An object, without its content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// How many bytes it has.
    pub size: u64,
}

/// The content of an object, read piece by piece.
pub type Body = Pin<Box<dyn AsyncRead + Send>>;

/// Where backups and WAL are kept.
///
/// # Contract
/// - An object appears whole or not at all, and only once it is durable. It is never changed, only deleted:
///   `put` creates, and of several at once for one key exactly one does.
/// - Where `put` fails, or is dropped, no part of an object is seen under any key. If the outcome is unknown
///   the object may be there, whole.
/// - What `put` has created is seen at once by `get` and `list`; what `delete` has deleted is not.
/// - Bodies are passed on as they come: an implementation holds a bounded part of one in memory.
/// - `delete` is idempotent.
/// - Nobody puts both `a` and `a/b`: a store of files and folders refuses the second as `Invalid`.
#[async_trait]
pub trait BackupSink: std::fmt::Debug + std::fmt::Display + Send + Sync + 'static {
    /// Creates an object with what `body` gives, unless one of that name exists.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer or has no room, or when `body` fails; `Invalid` for a key
    /// below another object.
    async fn put(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Put>;

    /// The size and the content of an object; `None` where there is none. Reading may fail half way: compare
    /// the size.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    async fn get(&self, key: &Key) -> Result<Option<(u64, Body)>>;

    /// The objects whose names begin with `prefix`, by the order of bytes: the first [`PAGE`] of those after
    /// `after`. Fewer than that, perhaps none, mean the end.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Entry>>;

    /// Deletes an object, if there is one.
    ///
    /// # Errors
    /// `Unavailable` when the store does not answer.
    async fn delete(&self, key: &Key) -> Result<()>;
}

fn _object_safe(_: &dyn BackupSink) {}

/// Comfort for every [`BackupSink`].
#[async_trait]
pub trait BackupSinkExt: BackupSink {
    /// Creates an object from bytes. See [`BackupSink::put`].
    ///
    /// # Errors
    /// As [`BackupSink::put`].
    async fn put_bytes(&self, key: &Key, bytes: &[u8]) -> Result<Put> {
        let mut body = bytes;
        self.put(key, &mut body).await
    }

    /// The whole content of a small object; `None` where there is none.
    ///
    /// # Errors
    /// As [`BackupSink::get`]; `Invalid` when it is larger than `max` bytes.
    async fn get_bytes(&self, key: &Key, max: u64) -> Result<Option<Vec<u8>>> {
        let Some((size, body)) = self.get(key).await? else { return Ok(None) };
        if size > max {
            return Err(Error::invalid(format!(
                "the object is larger than expected. key={key}, size={size}, max={max}"
            )));
        }
        let mut bytes = Vec::new();
        let read = body.take(max).read_to_end(&mut bytes).await;
        match read {
            Ok(read) if read as u64 == size => Ok(Some(bytes)),
            Ok(read) => Err(Error::unavailable(format!("an object broke off. key={key}, size={size}, read={read}"))),
            Err(e) => Err(Error::unavailable(format!("an object cannot be read. key={key}")).because(e)),
        }
    }

    /// Every object whose name begins with `prefix`, in order. For prefixes under which there are few.
    ///
    /// # Errors
    /// As [`BackupSink::list`].
    async fn list_all(&self, prefix: &str) -> Result<Vec<Entry>> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let page = self.list(prefix, all.last().map(|entry| &entry.key)).await?;
            let full = page.len() >= PAGE;
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }
}

impl<S: BackupSink + ?Sized> BackupSinkExt for S {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_cannot_leave_their_place() {
        for good in
            ["a", "wal/00000001/000000010000000000000001.zst", "base/2026-11-23T10.00.00Z/manifest.json", "a@b+c=d_e"]
        {
            assert_eq!(Key::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".a", "a/.b", "a b", "a\\b", "ä", "a\0b", &"a".repeat(201)]
        {
            assert!(Key::new(bad).is_err(), "{bad}");
        }
    }
}
