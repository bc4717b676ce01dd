//! [`ProbedSink`]: a store that is put to the proof before anything rests on it.
//!
//! Backups rest on one condition: of all who create an object one does, and it is never written over. Some stores
//! ignore the condition, some look first and write afterwards. With such a store an old primary could replace the
//! WAL of the new one, so it is refused before the first object is put.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::io::AsyncRead;
use tokio::sync::OnceCell;

use super::{BackupSink, BackupSinkExt as _, Body, Entry, Key, Put};
use crate::clock::Clock;
use crate::{Error, ErrorKind, Result};

/// How many try to create one object at once.
const RACERS: usize = 8;
/// How often they do.
const RACES: usize = 2;
/// What the names of objects begin with that stores are tried with: one that is older than a day is nobody's.
pub const PREFIX: &str = "probe/";
/// More than any of these objects.
const BYTES_MAX: u64 = 4 << 10;

/// Probes a store once, before the first object is put; what reads, lists and deletes needs no proof, and perhaps
/// may not write. A store that did not answer is probed again with the next object.
#[derive(Debug)]
pub struct ProbedSink {
    inner: Arc<dyn BackupSink>,
    clock: Arc<dyn Clock>,
    proven: OnceCell<()>,
}

impl ProbedSink {
    /// Around a store. The clock dates the objects that it is tried with.
    #[must_use]
    pub fn new(inner: Arc<dyn BackupSink>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock, proven: OnceCell::new() }
    }
}

impl std::fmt::Display for ProbedSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl BackupSink for ProbedSink {
    async fn put(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Put> {
        self.proven.get_or_try_init(|| probe(self.inner.as_ref(), self.clock.as_ref())).await?;
        self.inner.put(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Option<(u64, Body)>> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Entry>> {
        self.inner.list(prefix, after).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}

/// Tries by an object of its own whether a store keeps the contract of [`BackupSink`], then deletes it.
///
/// # Errors
/// `NeedsOperator` when it does not; what it answered, such as `Unavailable`, when it could not be tried.
pub async fn probe(sink: &dyn BackupSink, clock: &dyn Clock) -> Result<()> {
    for _ in 0..RACES {
        let stamp = clock.wall().strftime("%Y%m%dT%H%M%SZ");
        let key = Key::new(format!("{PREFIX}{stamp}-{}", &crate::dice::unique()[..16]))?;
        let tried = race(sink, &key).await;
        // What cannot be deleted does no harm: it goes with the next `expire`.
        let deleted = sink.delete(&key).await;
        tried?;
        deleted?;
        if sink.get_bytes(&key, BYTES_MAX).await?.is_some() || !sink.list_all(key.as_str()).await?.is_empty() {
            return Err(broke(sink, "shows an object that was deleted"));
        }
    }
    Ok(())
}

async fn race(sink: &dyn BackupSink, key: &Key) -> Result<()> {
    let contents: Vec<String> = (0..RACERS).map(|i| format!("racer {i} of {key}\n")).collect();
    let puts = join_all(contents.iter().map(|content| sink.put_bytes(key, content.as_bytes()))).await;
    let mut won = Vec::new();
    for (content, put) in contents.iter().zip(puts) {
        match put {
            Ok(Put::Created(_)) => won.push(content),
            Ok(Put::AlreadyExists) => {}
            // A store that says itself that it cannot do it needs no further proof.
            Err(e) if e.kind() == ErrorKind::NeedsOperator => return Err(e),
            Err(e) => return Err(e.before_sending()),
        }
    }
    match won[..] {
        [_] => {}
        [] => return Err(broke(sink, "let nobody create an object")),
        _ => return Err(broke(sink, &format!("let {} of {RACERS} create one object", won.len()))),
    }
    let shows = async |what: &str| match sink.get_bytes(key, BYTES_MAX).await? {
        Some(found) if found == won[0].as_bytes() => Ok(()),
        Some(_) => Err(broke(sink, what)),
        None => Err(broke(sink, "lost an object that it had taken")),
    };
    shows("answers another object than the one that was created").await?;
    if sink.put_bytes(key, b"once more\n").await.map_err(Error::before_sending)? != Put::AlreadyExists {
        return Err(broke(sink, "created an object over one that exists"));
    }
    shows("changed an object though it refused to").await?;
    let expected = [Entry { key: key.clone(), size: won[0].len() as u64 }];
    if sink.list_all(key.as_str()).await? != expected {
        return Err(broke(sink, "does not list an object that it has"));
    }
    Ok(())
}

fn broke(sink: &dyn BackupSink, what: &str) -> Error {
    Error::needs_operator(format!("the store cannot hold backups: it {what}. store={sink}"))
        .hint("an old primary could replace the WAL of the new one; use another store, or another version of it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_sink::{FaultySink, MemorySink};
    use crate::clock::ManualClock;

    /// Takes every object, as a store does that ignores conditions.
    #[derive(Debug)]
    struct Careless(MemorySink);

    impl std::fmt::Display for Careless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("careless:")
        }
    }

    #[async_trait]
    impl BackupSink for Careless {
        async fn put(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Put> {
            self.0.delete(key).await?;
            self.0.put(key, body).await
        }
        async fn get(&self, key: &Key) -> Result<Option<(u64, Body)>> {
            self.0.get(key).await
        }
        async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Entry>> {
            self.0.list(prefix, after).await
        }
        async fn delete(&self, key: &Key) -> Result<()> {
            self.0.delete(key).await
        }
    }

    fn probed(inner: impl BackupSink) -> ProbedSink {
        ProbedSink::new(Arc::new(inner), Arc::new(ManualClock::default()))
    }

    #[tokio::test]
    async fn a_good_store_is_probed_once_and_nothing_is_left() {
        let inner = Arc::new(MemorySink::new());
        let sink = ProbedSink::new(inner.clone(), Arc::new(ManualClock::default()));
        let key: Key = "a".parse().unwrap();
        assert_eq!(sink.put_bytes(&key, b"x").await.unwrap(), Put::Created(1));
        assert_eq!(inner.list_all("").await.unwrap().len(), 1);
        assert!(sink.proven.initialized());
    }

    #[tokio::test]
    async fn a_store_that_ignores_conditions_is_refused_and_still_read() {
        let sink = probed(Careless(MemorySink::new()));
        let key: Key = "a".parse().unwrap();
        for _ in 0..2 {
            let error = sink.put_bytes(&key, b"x").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NeedsOperator, "{error}");
            assert!(error.to_string().contains("let 8 of 8 create one object. store=careless:"), "{error}");
        }
        assert!(sink.list_all("").await.unwrap().is_empty(), "nothing was put, and nothing is left");
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_neither_refused_nor_believed() {
        let inner = Arc::new(MemorySink::new());
        inner.set_reachable(false);
        let sink = ProbedSink::new(inner.clone(), Arc::new(ManualClock::default()));
        let key: Key = "a".parse().unwrap();
        assert_eq!(sink.put_bytes(&key, b"x").await.unwrap_err().kind(), ErrorKind::Unavailable);
        inner.set_reachable(true);
        assert_eq!(sink.put_bytes(&key, b"x").await.unwrap(), Put::Created(1));
        let lossy = probed(FaultySink::new(Arc::new(MemorySink::new()), 1).lose_answers(0.5));
        for _ in 0..50 {
            if let Err(error) = sink_put(&lossy).await {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
            }
        }
    }

    async fn sink_put(sink: &ProbedSink) -> Result<Put> {
        sink.put_bytes(&"b".parse().unwrap(), b"x").await
    }
}
