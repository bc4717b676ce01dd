//! [`MemorySink`]: objects in memory, for tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{BackupSink, Body, Entry, Key, PAGE, Put};
use crate::{Error, Result};

/// Objects in memory. All who hold the same [`Arc`](std::sync::Arc) share them.
#[derive(Debug, Default)]
pub struct MemorySink(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    unreachable: bool,
    objects: BTreeMap<Key, Bytes>,
}

impl MemorySink {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it answers. While it does not, nothing is stored or deleted.
    pub fn set_reachable(&self, reachable: bool) {
        self.state().unreachable = !reachable;
    }

    /// Changes the content of an object, as a failing disk does. Says whether there was one.
    pub fn spoil(&self, key: &Key, content: impl Into<Bytes>) -> bool {
        self.state().objects.get_mut(key).map(|object| *object = content.into()).is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reachable(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.unreachable {
            return Err(Error::unavailable("the backup store is set to be unreachable"));
        }
        Ok(state)
    }
}

impl std::fmt::Display for MemorySink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("memory:")
    }
}

#[async_trait]
impl BackupSink for MemorySink {
    async fn put(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Put> {
        drop(self.reachable()?);
        let mut content = Vec::new();
        body.read_to_end(&mut content)
            .await
            .map_err(|e| Error::unavailable(format!("the source of an object failed. key={key}")).because(e))?;
        let mut state = self.reachable()?;
        if state.objects.contains_key(key) {
            return Ok(Put::AlreadyExists);
        }
        let size = content.len() as u64;
        state.objects.insert(key.clone(), content.into());
        Ok(Put::Created(size))
    }

    async fn get(&self, key: &Key) -> Result<Option<(u64, Body)>> {
        let content = self.reachable()?.objects.get(key).cloned();
        Ok(content.map(|content| (content.len() as u64, Box::pin(std::io::Cursor::new(content)) as Body)))
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Entry>> {
        let state = self.reachable()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = state.objects.range::<Key, _>((from, Bound::Unbounded));
        let found = found.filter(|(key, _)| key.as_str().starts_with(prefix)).take(PAGE);
        Ok(found.map(|(key, content)| Entry { key: key.clone(), size: content.len() as u64 }).collect())
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.reachable()?.objects.remove(key);
        Ok(())
    }
}
