//! [`BucketSink`]: objects in a bucket of S3 and its kin, Google or Azure.
//!
//! ```text
//! put  ── up to one piece ──▶ PUT If-None-Match: *                              one request
//!      └─ larger ──▶ parts of one size ──▶ .parts/NONCE ──▶ copy if absent ──▶ delete .parts/NONCE
//! ```
//!
//! A request that failed for a moment is sent again, a few times. A write of one's own whose answer was lost is
//! then found as one that was there before: the content tells.

mod ask;
mod body;
mod put;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use http::StatusCode;
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStoreExt as _};
use tokio::io::AsyncRead;

use super::{BackupSink, Body, Entry, Key, PAGE, Put};
use crate::bucket::wire::{Fate, Note};
use crate::bucket::{BucketConfig, Client, Provider, Whose, is_key_missing};
use crate::{Error, Result};

/// The largest object that is sent in one request, and the size of the parts of larger ones. A segment of WAL that
/// cannot be compressed fits.
const PIECE: usize = 20 << 20;
/// How often a request is sent at most.
const TRIES: u32 = 6;
/// How long a request may take that carries next to nothing.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Below the prefix of the objects; no key begins with a dot.
const PARTS: &str = ".parts";

const WHOSE: Whose = Whose {
    name: "the backups",
    key: "store",
    section: "[backup]",
    docs: "docs/backups.md",
    slower: "lower `processes` under [backup]",
    unfit: "the store cannot hold backups",
    large: true,
};

/// Objects below one prefix of a bucket.
#[derive(Clone, Debug)]
pub struct BucketSink {
    client: Client,
    provider: Provider,
    bucket: String,
    root: String,
    piece: usize,
    tries: u32,
    timeout: Duration,
}

impl BucketSink {
    /// The objects of a bucket whose names begin with `root` and a slash. Nothing is sent.
    ///
    /// # Errors
    /// `Invalid` where the configuration is not complete, or `root` cannot be part of a name.
    pub fn new(config: BucketConfig, root: &str) -> Result<Self> {
        Path::parse(root)
            .ok()
            .filter(|path| !path.as_ref().is_empty() && path.as_ref() == root)
            .ok_or_else(|| Error::invalid(format!("not what names of objects can begin with. prefix={root}")))?;
        let (provider, bucket) = (config.provider, config.bucket.clone());
        let client = config.client(&WHOSE)?;
        Ok(Self { client, provider, bucket, root: root.to_owned(), piece: PIECE, tries: TRIES, timeout: TIMEOUT })
    }

    /// The largest object that is sent in one request, and the size of the parts of larger ones. Default 20 MiB;
    /// S3 wants 5 MiB at least.
    #[must_use]
    pub fn piece(mut self, bytes: usize) -> Self {
        self.piece = bytes.max(1);
        self
    }

    /// How often a request is sent at most. Default 6, with pauses of 5 s in all.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries.max(1);
        self
    }

    /// How long a request may take that carries next to nothing; one with a body may take longer by what that
    /// takes at 256 kB/s. Default 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    fn path(&self, key: &Key) -> Path {
        Path::from_iter(self.root.split('/').chain(key.as_str().split('/')))
    }

    /// Size and ETag of an object.
    async fn look(&self, path: &Path) -> Result<Option<u64>> {
        let objects = &self.client.objects;
        let found = self
            .asked(self.timeout, |note| {
                let options = GetOptions { head: true, extensions: carrying(note), ..GetOptions::default() };
                objects.get_opts(path, options)
            })
            .await;
        match found {
            Ok(found) => Ok(Some(found.meta.size)),
            // There is no body that would tell what is missing.
            Err(failed) if failed.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            Err(failed) => Err(self.error(failed)),
        }
    }
}

fn carrying(note: Note) -> object_store::Extensions {
    let mut extensions = object_store::Extensions::new();
    extensions.insert(note);
    extensions
}

impl std::fmt::Display for BucketSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}/{}", self.provider.scheme(), self.bucket, self.root)
    }
}

#[async_trait]
impl BackupSink for BucketSink {
    async fn put(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Put> {
        self.put_body(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Option<(u64, Body)>> {
        body::get(self, key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Entry>> {
        let prefix = format!("{}/{prefix}", self.root);
        let mut entries: Vec<Entry> = Vec::new();
        let mut token = None;
        loop {
            let (pages, prefix, token_now) = (&self.client.pages, prefix.as_str(), token.take());
            let page = self
                .asked(self.timeout, |note| {
                    let options = PaginatedListOptions {
                        offset: after.map(|key| format!("{}/{key}", self.root)),
                        max_keys: Some(PAGE),
                        page_token: token_now.clone(),
                        extensions: carrying(note),
                        ..PaginatedListOptions::default()
                    };
                    pages.list_paginated(Some(prefix), options)
                })
                .await
                .map_err(|failed| self.error(failed))?;
            for object in page.result.objects {
                let name = object.location.as_ref().strip_prefix(&self.root).and_then(|name| name.strip_prefix('/'));
                // Parts of what is being put, and whatever else somebody has put here, have names that are no keys.
                let Some(Ok(key)) = name.map(Key::new) else { continue };
                let last = entries.last().map(|entry| &entry.key).or(after);
                if last.is_some_and(|last| key <= *last) {
                    return Err(Error::needs_operator(format!(
                        "the store cannot hold backups: it does not list names in order. store={self}, key={key}"
                    ))
                    .hint("use another store; of Amazon's, a general purpose bucket, no directory bucket"));
                }
                entries.push(Entry { key, size: object.size });
                if entries.len() == PAGE {
                    return Ok(entries);
                }
            }
            token = page.page_token;
            if token.is_none() {
                return Ok(entries);
            }
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        let (objects, path) = (&self.client.objects, &path);
        let deleted = self.asked(self.timeout, |_| objects.delete(path).boxed()).await;
        match deleted {
            Ok(()) => Ok(()),
            Err(failed) => match &failed.fate {
                Fate::Answered(answer) if answer.status == StatusCode::NOT_FOUND && is_key_missing(answer) => Ok(()),
                _ => Err(self.error(failed)),
            },
        }
    }
}
