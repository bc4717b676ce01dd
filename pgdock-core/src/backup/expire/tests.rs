use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::io::AsyncRead;

use super::*;
use crate::backup::manifest::tests::sample;
use crate::backup::{Codec, Manifest, object, retention};
use crate::backup_sink::{BackupSinkExt as _, Body, FaultySink, MemorySink, Put};
use crate::settings::Keep;
use crate::{Error, Lsn, TimelineId};

const SEGMENT: u64 = 16 << 20;
const DAY: i64 = 86_400;
const BEGIN: i64 = 1_790_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(BEGIN + 10 * DAY).unwrap()
}

fn keep(count: u32) -> Keep {
    Keep { count: Some(count), ..Keep::default() }
}

fn wal_key(timeline: u32, number: u64, rest: &str) -> Key {
    let file = format!("{timeline:08X}{:08X}{:08X}{rest}", number / 256, number % 256);
    Name::Wal { system: 7_575_757_575_757_575_757, timeline: TimelineId(timeline), file }.key().unwrap()
}

/// Eight daily backups on two timelines with all their WAL, leftovers of an interrupted one, and an old probe. Says
/// which objects each backup needs.
async fn fill(sink: &MemorySink) -> BTreeMap<Label, BTreeSet<Key>> {
    let codec = Codec::default();
    let put = async |name: &Name, content: &[u8]| {
        let key = name.key().unwrap();
        let _ = object::store(sink, &codec, &key, &object::encode(&codec, &key, content).unwrap()).await.unwrap();
        key
    };
    let manifests: Vec<Manifest> = (0..8_i64)
        .map(|i| {
            let start = (10 + 10 * i.cast_unsigned()) * SEGMENT + 40;
            sample(BEGIN + i * DAY, if i < 4 { 1 } else { 2 }, start, start + SEGMENT)
        })
        .collect();
    for number in 1..100 {
        let timeline = if number < 50 { 1 } else { 2 };
        let _ = sink.put_bytes(&wal_key(timeline, number, ""), b"wal").await.unwrap();
    }
    let _ = sink.put_bytes(&wal_key(1, 49, ".partial"), b"wal").await.unwrap();
    for history in ["wal/07575757575757575757/00000002/00000002.history", "probe/20200101T000000Z-x", "readme"] {
        let _ = sink.put_bytes(&history.parse().unwrap(), b"x").await.unwrap();
    }
    let mut needs = BTreeMap::new();
    for manifest in &manifests {
        let label = manifest.label.clone();
        let mut own = BTreeSet::new();
        for name in [
            Name::Begun(label.clone()),
            Name::Data(label.clone(), 0),
            Name::Data(label.clone(), 1),
            Name::Index(label.clone(), 0),
        ] {
            own.insert(put(&name, b"content").await);
        }
        own.insert(put(&Name::Manifest(label.clone()), &manifest.to_bytes().unwrap()).await);
        let first = manifest.start.0 / SEGMENT;
        own.extend((first..100).map(|n| wal_key(if n < 50 { 1 } else { 2 }, n, "")));
        needs.insert(label, own);
    }
    let abandoned = Label::new(Timestamp::from_second(BEGIN + 2 * DAY + 7).unwrap(), 1);
    put(&Name::Begun(abandoned.clone()), b"x").await;
    put(&Name::Data(abandoned, 0), b"x").await;
    needs
}

/// Another store with the same objects.
async fn copy(of: &MemorySink) -> MemorySink {
    let sink = MemorySink::new();
    for key in keys(of).await {
        let bytes = of.get_bytes(&key, 1 << 20).await.unwrap().unwrap();
        let _ = sink.put_bytes(&key, &bytes).await.unwrap();
    }
    sink
}

fn repository(sink: Arc<dyn BackupSink>) -> Repository {
    Repository { sink, codec: Codec::default(), cluster: "main".into() }
}

async fn keys(sink: &MemorySink) -> BTreeSet<Key> {
    sink.list_all("").await.unwrap().into_iter().map(|entry| entry.key).collect()
}

/// Every backup that is listed has all that it needs.
async fn all_listed_are_whole(sink: &MemorySink, needs: &BTreeMap<Label, BTreeSet<Key>>) -> usize {
    let there = keys(sink).await;
    let catalog = Catalog::load(sink, &Codec::default()).await.unwrap();
    for backup in &catalog.backups {
        let missing: Vec<_> = needs[&backup.manifest.label].difference(&there).collect();
        assert!(missing.is_empty(), "{} is listed and lacks {missing:?}", backup.manifest.label);
    }
    catalog.backups.len()
}

async fn run(sink: Arc<dyn BackupSink>, rules: &Keep) -> Result<Deleted> {
    let repository = repository(sink);
    let plan = retention::plan(&stock(&repository, None).await?, rules, now());
    expire(repository.sink.as_ref(), &plan, now()).await
}

#[tokio::test]
async fn what_is_not_needed_goes_and_the_rest_stays() {
    let sink = Arc::new(MemorySink::new());
    let needs = fill(&sink).await;
    let before = keys(&sink).await;
    let repository = repository(sink.clone());
    let plan = retention::plan(&stock(&repository, None).await.unwrap(), &keep(3), now());
    let foreseen = survey(sink.as_ref(), &plan, now()).await.unwrap();
    assert_eq!(keys(&sink).await, before, "a survey changes nothing");
    let deleted = expire(sink.as_ref(), &plan, now()).await.unwrap();
    assert_eq!((deleted.backups, deleted.leftovers), (5, 1));
    // The oldest one kept begins in segment 60: 1 to 49 of timeline 1, one of them partial, and 50 to 59.
    assert_eq!(deleted.wal_files, 49 + 1 + 10);
    assert_eq!(deleted.objects, 60 + 5 * 5 + 2 + 1);
    assert_eq!((foreseen.objects, foreseen.wal_files), (deleted.objects, deleted.wal_files));
    assert_eq!(all_listed_are_whole(&sink, &needs).await, 3);
    let left = keys(&sink).await;
    for kept in ["readme", "wal/07575757575757575757/00000002/00000002.history"] {
        assert!(left.contains(&kept.parse().unwrap()), "{kept}");
    }
    assert!(!left.iter().any(|key| key.as_str().starts_with("probe/")));
    assert_eq!(run(sink.clone(), &keep(3)).await.unwrap(), Deleted::default(), "a second time there is nothing to do");
}

/// Fails for good after so many calls.
#[derive(Debug)]
struct Dying {
    inner: Arc<MemorySink>,
    left: AtomicU64,
}

impl Dying {
    fn step(&self) -> Result<()> {
        let lives = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        lives.map(drop).map_err(|_| Error::unavailable("the process was killed"))
    }
}

impl std::fmt::Display for Dying {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dying:")
    }
}

#[async_trait]
impl BackupSink for Dying {
    async fn put(&self, key: &Key, body: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Put> {
        self.step()?;
        self.inner.put(key, body).await
    }
    async fn get(&self, key: &Key) -> Result<Option<(u64, Body)>> {
        self.step()?;
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Vec<Entry>> {
        self.step()?;
        self.inner.list(prefix, after).await
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.step()?;
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn interrupted_at_every_step_it_leaves_no_unusable_backup() {
    let whole = Arc::new(MemorySink::new());
    fill(&whole).await;
    run(whole.clone(), &keep(3)).await.unwrap();
    let expected = keys(&whole).await;
    let filled = MemorySink::new();
    let needs = fill(&filled).await;
    let mut steps = 0;
    loop {
        let sink = Arc::new(copy(&filled).await);
        let ended = run(Arc::new(Dying { inner: sink.clone(), left: AtomicU64::new(steps) }), &keep(3)).await;
        assert!(all_listed_are_whole(&sink, &needs).await >= 3, "after {steps} steps");
        // Whoever comes next finishes it.
        run(sink.clone(), &keep(3)).await.unwrap();
        assert_eq!(keys(&sink).await, expected, "after {steps} steps");
        if ended.is_ok() {
            break;
        }
        steps += 1;
    }
    assert!(steps > 100, "{steps}");
}

#[tokio::test]
async fn behind_a_bad_network_it_gets_there() {
    let sink = Arc::new(MemorySink::new());
    let needs = fill(&sink).await;
    for seed in 0..1_000 {
        let faulty = FaultySink::new(sink.clone(), seed).refuse(0.03).lose_answers(0.03);
        let done = run(Arc::new(faulty), &keep(2)).await;
        assert!(all_listed_are_whole(&sink, &needs).await >= 2);
        if done.is_ok() {
            return;
        }
    }
    panic!("it never ended");
}

#[tokio::test]
async fn long_timelines_are_passed_by() {
    let sink = Arc::new(MemorySink::new());
    for number in 0..2_500 {
        let _ = sink.put_bytes(&wal_key(1, number, ""), b"x").await.unwrap();
    }
    for number in 2_400..2_500 {
        let _ = sink.put_bytes(&wal_key(2, number, ""), b"x").await.unwrap();
    }
    let manifest = sample(BEGIN, 1, 2_450 * SEGMENT, 2_451 * SEGMENT);
    let key = Name::Manifest(manifest.label.clone()).key().unwrap();
    let object = object::encode(&Codec::default(), &key, &manifest.to_bytes().unwrap()).unwrap();
    let _ = object::store(sink.as_ref(), &Codec::default(), &key, &object).await.unwrap();
    assert_eq!(run(sink.clone(), &keep(1)).await.unwrap().wal_files, 2_450 + 50);
    // Nothing to delete: one page of each timeline is looked at.
    let few = sample(BEGIN, 1, 0, SEGMENT);
    let limit = retention::plan(
        &Stock {
            backups: vec![Candidate {
                label: few.label,
                system: few.system_identifier,
                timeline: TimelineId(1),
                start: Lsn(0),
                segment_bytes: SEGMENT,
                damaged: false,
            }],
            ..Stock::default()
        },
        &keep(1),
        now(),
    );
    let dying = Dying { inner: sink, left: AtomicU64::new(4) };
    assert_eq!(expire(&dying, &limit, now()).await.unwrap(), Deleted::default());
}
