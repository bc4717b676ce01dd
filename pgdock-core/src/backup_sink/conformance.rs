//! What every [`BackupSink`] must do. Run it on yours, empty:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use pgdock_core::backup_sink::{MemorySink, conformance};
//! # async fn test() {
//! conformance::run(Arc::new(MemorySink::new())).await;
//! # }
//! ```
//!
//! Every function panics with what it saw. Failures of the network are tried again, and what they left open
//! is settled by reading, as the contract says, so that the suite also runs behind a bad one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{BackupSink, BackupSinkExt, Body, Entry, Key, PAGE, Put};
use crate::{ErrorKind, Result};

/// After this many failures in a row a store counts as dead.
const TRIES: usize = 500;
const RACERS: usize = 8;
/// More than stores take in one piece.
const SIZE: u64 = 12 << 20;

/// The whole suite, on a store without objects. It leaves none.
pub async fn run(sink: Arc<dyn BackupSink>) {
    let sink = &sink;
    assert!(listed(sink, "").await.is_empty(), "{sink}: the suite needs an empty store");
    what_was_put_is_got(sink).await;
    nothing_is_written_over(sink).await;
    one_racer_creates(sink).await;
    half_a_body_is_no_object(sink).await;
    a_put_that_is_dropped_is_no_object(sink).await;
    large_bodies_come_through(sink).await;
    lists_are_in_order(sink).await;
    long_lists_come_in_pages(sink).await;
    deleting_twice_is_harmless(sink).await;
    for entry in listed(sink, "").await {
        delete(sink, &entry.key).await;
    }
    assert!(listed(sink, "").await.is_empty(), "{sink}: deleted objects are still listed");
}

/// Content, size and name come back; what was not put is not there.
pub async fn what_was_put_is_got(sink: &Arc<dyn BackupSink>) {
    assert_eq!(got(sink, &key("got/none")).await, None, "{sink}: an object that nobody put");
    for (i, content) in [&b""[..], b"x", b"\0\xff\r\n"].into_iter().enumerate() {
        let key = key(&format!("got/{i}@a+b=c_d-e.f"));
        create(sink, &key, content).await;
        assert_eq!(got(sink, &key).await.as_deref(), Some(content), "{sink}: other content came back");
        let size = content.len() as u64;
        let expected = [Entry { key: key.clone(), size }];
        assert_eq!(listed(sink, key.as_str()).await, expected, "{sink}: what was put is not listed at once");
    }
    // The name of a folder, where there are folders, is no object.
    assert_eq!(got(sink, &key("got")).await, None, "{sink}: a prefix is taken for an object");
}

/// A put where an object exists says so, and changes nothing.
pub async fn nothing_is_written_over(sink: &Arc<dyn BackupSink>) {
    let key = key("once/a");
    create(sink, &key, b"first").await;
    let again = retried(sink, async || sink.put_bytes(&key, b"second").await).await;
    assert_eq!(again, Put::AlreadyExists, "{sink}: an object was put twice");
    assert_eq!(got(sink, &key).await.as_deref(), Some(&b"first"[..]), "{sink}: an object was written over");
}

/// Of many who put one object at once, one does, and the object is his.
pub async fn one_racer_creates(sink: &Arc<dyn BackupSink>) {
    for round in 0..4 {
        let key = key(&format!("race/{round}"));
        let key = &key;
        let racers = (0..RACERS).map(|i| async move {
            let content = format!("racer {i}").repeat(1_000);
            put_settled(sink, key, content.as_bytes()).await
        });
        let won = join_all(racers).await;
        let winners: Vec<_> = won.iter().enumerate().filter(|(_, won)| **won).map(|(i, _)| i).collect();
        assert_eq!(winners.len(), 1, "{sink}: racers {winners:?} all put one object");
        let expected = format!("racer {}", winners[0]).repeat(1_000).into_bytes();
        assert!(got(sink, key).await == Some(expected), "{sink}: it is not the winner's object");
    }
}

/// A body that breaks off leaves nothing, and the next try succeeds.
pub async fn half_a_body_is_no_object(sink: &Arc<dyn BackupSink>) {
    let key = key("half/a");
    let put = sink.put(&key, &mut Endless { left: 100_000, fails: true }).await;
    assert!(put.is_err(), "{sink}: half a body was taken for a whole one");
    assert_eq!(got(sink, &key).await, None, "{sink}: half an object is there");
    assert!(listed(sink, "half/").await.is_empty(), "{sink}: half an object is listed");
    create(sink, &key, b"whole").await;
}

/// A put whose caller goes away leaves nothing, or the whole object.
pub async fn a_put_that_is_dropped_is_no_object(sink: &Arc<dyn BackupSink>) {
    struct Stuck;
    impl AsyncRead for Stuck {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
            Poll::Pending
        }
    }
    let key = key("dropped/a");
    let mut body = (&b"begun"[..]).chain(Stuck);
    let given_up = sink.put(&key, &mut body).now_or_never();
    assert!(!matches!(given_up, Some(Ok(_))), "{sink}: a body without an end was taken for a whole one");
    assert_eq!(got(sink, &key).await, None, "{sink}: a part of an object is there");
    create(sink, &key, b"whole").await;
    let names: Vec<_> = listed(sink, "dropped/").await.into_iter().map(|entry| entry.key).collect();
    assert_eq!(names, [key], "{sink}: something else was left");
}

/// A body larger than any buffer, made as it is read, comes back the same.
pub async fn large_bodies_come_through(sink: &Arc<dyn BackupSink>) {
    let key = key("large/a");
    let put = retried(sink, async || sink.put(&key, &mut Endless { left: SIZE, fails: false }).await).await;
    // Where an answer was lost before, the object is there already.
    assert!(matches!(put, Put::Created(SIZE) | Put::AlreadyExists), "{sink}: {put:?}");
    let read = retried(sink, async || {
        let (size, body) = sink.get(&key).await?.expect("it was put");
        assert_eq!(size, SIZE, "{sink}: it has another size");
        count(body).await
    })
    .await;
    assert_eq!(read, SIZE, "{sink}: a large body came back shorter or longer");
    delete(sink, &key).await;
}

/// By prefix, which need not end at a slash, and in the order of bytes.
pub async fn lists_are_in_order(sink: &Arc<dyn BackupSink>) {
    let names = ["list/B", "list/a-b", "list/a.x", "list/a/b", "list/a/c/d", "list/a0", "list/b", "listing"];
    for name in names.iter().rev() {
        create(sink, &key(name), name.as_bytes()).await;
    }
    let cases = [
        ("list", &names[..]),
        ("list/", &names[..7]),
        ("list/a", &names[1..6]),
        ("list/a/", &names[3..5]),
        ("list/a/c", &names[4..5]),
        ("list/z", &[]),
        ("list/a/c/d/e", &[]),
    ];
    for (prefix, expected) in cases {
        let found = listed(sink, prefix).await;
        let found: Vec<_> = found.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(found, expected, "{sink}: the objects under {prefix:?}");
    }
    let rest = retried(sink, async || sink.list("list/", Some(&key("list/a/b"))).await).await;
    let rest: Vec<_> = rest.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(rest, names[4..7], "{sink}: the objects after one");
    let rest = retried(sink, async || sink.list("list/", Some(&key("list/a/bb"))).await).await;
    assert_eq!(rest.len(), 3, "{sink}: the objects after a name that does not exist");
}

/// More objects than a page holds are all found, once each.
pub async fn long_lists_come_in_pages(sink: &Arc<dyn BackupSink>) {
    let keys: Vec<_> = (0..PAGE + 3).map(|i| key(&format!("pages/{}/{i:05}", i / 400))).collect();
    for some in keys.chunks(64) {
        join_all(some.iter().map(|key| create(sink, key, b""))).await;
    }
    let first = retried(sink, async || sink.list("pages/", None).await).await;
    assert_eq!(first.len(), PAGE, "{sink}: the first page is not full");
    let found: Vec<_> = listed(sink, "pages/").await.into_iter().map(|entry| entry.key).collect();
    assert!(found == keys, "{sink}: {} of {} objects are listed", found.len(), keys.len());
    for some in keys.chunks(64) {
        join_all(some.iter().map(|key| delete(sink, key))).await;
    }
    assert!(listed(sink, "pages/").await.is_empty(), "{sink}: deleted objects are still listed");
}

/// What is deleted is gone, may be deleted again, and may be put again.
pub async fn deleting_twice_is_harmless(sink: &Arc<dyn BackupSink>) {
    let (one, other) = (key("delete/a"), key("delete/a-b"));
    create(sink, &one, b"old").await;
    create(sink, &other, b"other").await;
    for _ in 0..2 {
        delete(sink, &one).await;
        assert_eq!(got(sink, &one).await, None, "{sink}: a deleted object is there");
        assert_eq!(got(sink, &other).await.as_deref(), Some(&b"other"[..]), "{sink}: another one was deleted");
    }
    delete(sink, &key("delete")).await;
    assert!(got(sink, &other).await.is_some(), "{sink}: a prefix was deleted with all under it");
    create(sink, &one, b"new").await;
    assert_eq!(got(sink, &one).await.as_deref(), Some(&b"new"[..]), "{sink}: an old object came back");
}

/// Bytes that can be told apart by their place.
struct Endless {
    left: u64,
    fails: bool,
}

impl Endless {
    fn byte(left: u64) -> u8 {
        (left.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
    }
}

impl AsyncRead for Endless {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.left == 0 && self.fails {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        while self.left > 0 && to.remaining() > 0 {
            to.put_slice(&[Self::byte(self.left)]);
            self.left -= 1;
        }
        Poll::Ready(Ok(()))
    }
}

async fn count(mut body: Body) -> Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut expected = None;
    let mut read = 0;
    loop {
        let n = body.read(&mut buffer).await.map_err(|e| crate::Error::unavailable("it broke off").because(e))?;
        if n == 0 {
            return Ok(read);
        }
        let left = expected.get_or_insert(SIZE);
        for byte in &buffer[..n] {
            assert_eq!(*byte, Endless::byte(*left), "a large body was changed at byte {read}");
            *left = u64::saturating_sub(*left, 1);
            read += 1;
        }
    }
}

async fn create(sink: &Arc<dyn BackupSink>, key: &Key, content: &[u8]) {
    assert!(put_settled(sink, key, content).await, "{sink}: there is an object already. key={key}");
}

/// Puts until it is known whether the object is one's own. The content tells.
async fn put_settled(sink: &Arc<dyn BackupSink>, key: &Key, content: &[u8]) -> bool {
    let mut unsettled = false;
    for _ in 0..TRIES {
        match sink.put_bytes(key, content).await {
            Ok(Put::Created(size)) => {
                assert_eq!(size, content.len() as u64, "{sink}: another size was stored");
                return true;
            }
            Ok(Put::AlreadyExists) => return unsettled && got(sink, key).await.as_deref() == Some(content),
            Err(error) => unsettled |= !error.outcome_known(),
        }
    }
    panic!("{sink}: cannot put an object in {TRIES} tries");
}

async fn got(sink: &Arc<dyn BackupSink>, key: &Key) -> Option<Vec<u8>> {
    retried(sink, async || sink.get_bytes(key, 64 << 20).await).await
}

async fn listed(sink: &Arc<dyn BackupSink>, prefix: &str) -> Vec<Entry> {
    retried(sink, async || sink.list_all(prefix).await).await
}

async fn delete(sink: &Arc<dyn BackupSink>, key: &Key) {
    retried(sink, async || sink.delete(key).await).await;
}

async fn retried<T>(sink: &Arc<dyn BackupSink>, call: impl AsyncFn() -> Result<T>) -> T {
    let mut last = None;
    for _ in 0..TRIES {
        match call().await {
            Ok(value) => return value,
            Err(error) if error.kind() == ErrorKind::Unavailable => last = Some(error),
            Err(error) => panic!("{sink}: {}", error.chain()),
        }
    }
    panic!("{sink}: does not answer: {}", last.map(|e| e.chain()).unwrap_or_default());
}

fn key(name: &str) -> Key {
    Key::new(name).expect("a valid key")
}
