use std::sync::Arc;
use std::time::Duration;

use pgdock_core::ErrorKind;
use pgdock_core::backup_sink::{
    BackupSink, BackupSinkExt, Body, DirSink, Entry, FaultySink, Key, MemorySink, Put, conformance,
};
use tokio::io::{AsyncRead, AsyncReadExt};

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conformance::run(Arc::new(MemorySink::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(Arc::new(DirSink::new(dir.path().join("made/by/the/first/put")))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_conforms_once_answers_are_settled() {
    for seed in 0..4 {
        let faulty = FaultySink::new(Arc::new(MemorySink::new()), seed).refuse(0.1).lose_answers(0.1).break_off(0.1);
        conformance::run(Arc::new(faulty.delay(0.1, Duration::from_millis(1)))).await;
    }
}

#[tokio::test]
async fn a_store_that_is_down_says_so() {
    let sink = MemorySink::new();
    let key: Key = "a".parse().unwrap();
    assert_eq!(sink.put_bytes(&key, b"x").await.unwrap(), Put::Created(1));
    sink.set_reachable(false);
    assert_eq!(sink.get_bytes(&key, 9).await.unwrap_err().kind(), ErrorKind::Unavailable);
    sink.set_reachable(true);
    assert!(sink.spoil(&key, "spoilt"));
    assert_eq!(sink.get_bytes(&key, 9).await.unwrap().unwrap(), b"spoilt");
    assert_eq!(sink.get_bytes(&key, 5).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// Breaks the contract in one way.
#[derive(Debug)]
struct Wrong {
    inner: MemorySink,
    how: How,
}

#[derive(Clone, Copy, Debug)]
enum How {
    WritesOver,
    KeepsHalves,
    ListsOutOfOrder,
    DeletesPrefixes,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.how)
    }
}

#[async_trait::async_trait]
impl BackupSink for Wrong {
    async fn put(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin)) -> pgdock_core::Result<Put> {
        match self.how {
            How::WritesOver => {
                self.inner.delete(key).await?;
                self.inner.put(key, body).await
            }
            How::KeepsHalves => {
                let mut half = Vec::new();
                let _ = body.read_to_end(&mut half).await;
                self.inner.put_bytes(key, &half).await
            }
            _ => self.inner.put(key, body).await,
        }
    }

    async fn get(&self, key: &Key) -> pgdock_core::Result<Option<(u64, Body)>> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> pgdock_core::Result<Vec<Entry>> {
        let mut list = self.inner.list(prefix, after).await?;
        if matches!(self.how, How::ListsOutOfOrder) {
            list.reverse();
        }
        Ok(list)
    }

    async fn delete(&self, key: &Key) -> pgdock_core::Result<()> {
        if matches!(self.how, How::DeletesPrefixes) {
            for entry in self.inner.list_all(key.as_str()).await? {
                self.inner.delete(&entry.key).await?;
            }
        }
        self.inner.delete(key).await
    }
}

/// The suite itself must be able to fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_store_does_not_conform() {
    for how in [How::WritesOver, How::KeepsHalves, How::ListsOutOfOrder, How::DeletesPrefixes] {
        let runtime = tokio::runtime::Handle::current();
        let suite = tokio::task::spawn_blocking(move || {
            runtime.block_on(conformance::run(Arc::new(Wrong { inner: MemorySink::new(), how })));
        });
        assert!(suite.await.is_err_and(|e| e.is_panic()), "{how:?} went unnoticed");
    }
}
