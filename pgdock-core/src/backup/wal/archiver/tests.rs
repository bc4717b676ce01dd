use super::*;
use crate::backup::Codec;
use crate::backup_sink::{BackupSink, BackupSinkExt, FaultySink, MemorySink};
use crate::clock::SystemClock;
use crate::postgres::timeline::{Fork, History, TimelineId};

const SEGMENT: usize = 1 << 20;

/// A data directory, the archive, and what its node knows.
struct Node {
    dir: tempfile::TempDir,
    leads: watch::Sender<bool>,
    stopping: watch::Sender<bool>,
    flushed: watch::Sender<Lsn>,
    archiver: Arc<Archiver>,
}

#[derive(Debug)]
struct There(Arc<dyn BackupSink>);

#[async_trait]
impl Open for There {
    async fn open(&self, system: u64) -> Result<WalStore> {
        Ok(WalStore::new(Arc::clone(&self.0), Codec::default(), system))
    }
}

impl Node {
    /// Timeline 1 ended in the middle of segment 3, timeline 2 goes on.
    fn new(sink: Arc<dyn BackupSink>, leads: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("pg_wal/archive_status")).unwrap();
        let (leads, stopping) = (watch::Sender::new(leads), watch::Sender::new(false));
        let flushed = watch::Sender::new(Lsn(9 * SEGMENT as u64 + 5));
        let (led, at) = (leads.subscribe(), flushed.subscribe());
        let situation = move || {
            let forks = vec![Fork { timeline: TimelineId(1), end: Lsn(3 * SEGMENT as u64 + 100) }];
            let history = Some(History { timeline: TimelineId(2), forks });
            let standing = Standing { leads: *led.borrow(), history };
            Situation { standing, system: Some(7), flushed: *at.borrow() }
        };
        let clock = Arc::new(SystemClock);
        let archiver = Archiver::new(dir.path(), There(sink), situation, stopping.subscribe(), clock);
        Self { dir, leads, stopping, flushed, archiver: Arc::new(archiver) }
    }

    /// A file that waits to be archived.
    fn waits(&self, name: &str, content: u8) {
        let length = if name.len() == 24 { SEGMENT } else { 10 };
        std::fs::write(self.dir.path().join("pg_wal").join(name), vec![content; length]).unwrap();
        std::fs::write(self.dir.path().join("pg_wal/archive_status").join(format!("{name}.ready")), "").unwrap();
    }

    async fn asks(&self, name: &str) -> Answer {
        let end = CancellationToken::new();
        let running = self.archiver.run(end.clone());
        let answer = async {
            let answer = self.archiver.push(name).await;
            end.cancel();
            answer
        };
        tokio::join!(running, answer).1
    }
}

async fn names(sink: &Arc<dyn BackupSink>) -> Vec<String> {
    let all = sink.list_all("wal/").await.unwrap();
    all.iter().map(|entry| entry.key.as_str().rsplit('/').next().unwrap().to_owned()).collect()
}

fn memory() -> Arc<dyn BackupSink> {
    Arc::new(MemorySink::default())
}

const FIFTH: &str = "000000020000000000000005";

#[tokio::test]
async fn the_leader_archives_what_waits_and_more_than_it_was_asked_for() {
    let sink = memory();
    let node = Node::new(Arc::clone(&sink), true);
    for name in [FIFTH, "000000020000000000000006", "00000002.history", "000000010000000000000003.partial"] {
        node.waits(name, 1);
    }
    assert_eq!(node.asks(FIFTH).await, Answer::Done);
    let status = node.archiver.status();
    assert!(status.last.is_some() && status.failing.is_none(), "{status:?}");
    assert_eq!(status.backlog_bytes, Some(4 * SEGMENT as u64 + 5), "from segment 5 on");
    for name in ["000000020000000000000006", "00000002.history", "000000010000000000000003.partial"] {
        assert_eq!(node.asks(name).await, Answer::Done);
    }
    assert_eq!(names(&sink).await.len(), 4);
}

#[tokio::test]
async fn what_diverged_is_given_up_and_not_stored() {
    let sink = memory();
    let node = Node::new(Arc::clone(&sink), true);
    node.waits("000000010000000000000004", 1);
    assert_eq!(node.asks("000000010000000000000004").await, Answer::Done);
    assert_eq!(names(&sink).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_standby_keeps_what_is_not_archived_and_archives_it_when_it_leads() {
    let sink = memory();
    let node = Node::new(Arc::clone(&sink), false);
    node.waits(FIFTH, 1);
    assert!(matches!(node.asks(FIFTH).await, Answer::NotYet(_)));
    assert_eq!(names(&sink).await, [""; 0], "a standby stores nothing");
    assert_eq!(node.archiver.status().backlog_bytes, None);
    node.leads.send_replace(true);
    assert_eq!(node.asks(FIFTH).await, Answer::Done);
    // So another standby may give it up.
    let other = Node::new(Arc::clone(&sink), false);
    other.waits(FIFTH, 1);
    assert_eq!(other.asks(FIFTH).await, Answer::Done);
}

#[tokio::test(start_paused = true)]
async fn other_content_is_refused_and_stays() {
    let sink = memory();
    let (first, second) = (Node::new(Arc::clone(&sink), true), Node::new(Arc::clone(&sink), true));
    first.waits(FIFTH, 1);
    assert_eq!(first.asks(FIFTH).await, Answer::Done);
    second.waits(FIFTH, 2);
    assert!(matches!(second.asks(FIFTH).await, Answer::NotYet(why) if why.contains("other content")));
    assert!(second.archiver.is_contradicted() && second.archiver.problems()[0].contains("not overwritten"));
    let store = There(Arc::clone(&sink)).open(7).await.unwrap();
    assert_eq!(store.get(TimelineId(2), FIFTH).await.unwrap(), Some(vec![1; SEGMENT]));
    // The end that a promotion cut off a timeline is read by no recovery, and holds up nobody.
    first.waits("000000010000000000000003.partial", 1);
    assert_eq!(first.asks("000000010000000000000003.partial").await, Answer::Done);
    second.waits("000000010000000000000003.partial", 2);
    assert_eq!(second.asks("000000010000000000000003.partial").await, Answer::Done);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_nothing() {
    let hung: Arc<dyn BackupSink> = Arc::new(FaultySink::new(memory(), 1).delay(1.0, Duration::from_secs(100_000)));
    let node = Node::new(hung, true);
    node.waits(FIFTH, 1);
    let (answer, ()) = tokio::join!(node.asks(FIFTH), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        node.stopping.send_replace(true);
    });
    assert_eq!(answer, Answer::Stopping);
    assert_eq!(node.asks(FIFTH).await, Answer::Stopping, "also whoever comes later");
    // Without a stop there is an answer in time, too.
    node.stopping.send_replace(false);
    assert!(matches!(node.asks(FIFTH).await, Answer::NotYet(_)));
}

#[tokio::test(start_paused = true)]
async fn behind_a_bad_network_everything_arrives_once() {
    let sink = memory();
    let faulty = FaultySink::new(Arc::clone(&sink), 3).refuse(0.3).lose_answers(0.3).break_off(0.2);
    let node = Node::new(Arc::new(faulty), true);
    let all: Vec<_> = (5..15).map(|n| format!("0000000200000000000000{n:02X}")).collect();
    for name in &all {
        node.waits(name, 1);
    }
    for name in &all {
        let mut tries = 0;
        while node.asks(name).await != Answer::Done {
            tries += 1;
            assert!(tries < 20, "{name}: {:?}", node.archiver.status());
        }
    }
    assert_eq!(names(&sink).await, all);
    assert!(node.archiver.problems().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_flushed_is_stored_piece_by_piece_until_the_segment_is_whole() {
    let sink = memory();
    let node = Node::new(Arc::clone(&sink), true);
    let (ninth, tenth) = ("000000020000000000000009", "00000002000000000000000A");
    let content: Vec<u8> = (0..SEGMENT).map(|n| (n % 251) as u8).collect();
    std::fs::write(node.dir.path().join("pg_wal").join(ninth), &content).unwrap();
    let store = There(Arc::clone(&sink)).open(7).await.unwrap();
    let begin = 9 * SEGMENT as u64;
    let every = Duration::from_secs(1);
    let segment = crate::backup::wal::Segment::at(TimelineId(2), Lsn(begin), SEGMENT as u64);
    let held = async || stream::assemble(&store, segment).await.unwrap().unwrap_or_default().len();
    // Two lives of the agent, one after the other.
    for flushed in [[100, 5000], [5000, 70_000]] {
        let end = CancellationToken::new();
        let (archiver, until) = (Arc::clone(&node.archiver), end.clone());
        let running = tokio::spawn(async move { archiver.stream(every, until).await });
        for at in flushed {
            node.flushed.send_replace(Lsn(begin + at as u64));
            tokio::time::sleep(every * 3).await;
            assert_eq!(held().await, at);
        }
        end.cancel();
        running.await.unwrap();
    }
    assert_eq!(names(&sink).await.len(), 3, "nothing is stored where nothing was written");
    assert_eq!(stream::assemble(&store, segment).await.unwrap().unwrap(), content[..70_000]);
    // The next segment begins; the pieces go once this one is there as a whole.
    std::fs::write(node.dir.path().join("pg_wal").join(tenth), &content).unwrap();
    std::fs::write(node.dir.path().join("pg_wal/archive_status").join(format!("{ninth}.ready")), "").unwrap();
    node.flushed.send_replace(Lsn(begin + SEGMENT as u64 + 10));
    let end = CancellationToken::new();
    let (archiver, until) = (Arc::clone(&node.archiver), end.clone());
    let running = tokio::spawn(async move { archiver.stream(every, until).await });
    tokio::time::sleep(every * 3).await;
    assert_eq!(names(&sink).await.len(), 4, "they stay as long as they are needed");
    assert_eq!(node.asks(ninth).await, Answer::Done);
    tokio::time::sleep(every * 3).await;
    assert_eq!(names(&sink).await, [ninth, "00000002000000000000000A+00000000"]);
    // A standby stores nothing.
    node.leads.send_replace(false);
    node.flushed.send_replace(Lsn(begin + SEGMENT as u64 + 500));
    tokio::time::sleep(every * 3).await;
    assert_eq!(names(&sink).await.len(), 2);
    end.cancel();
    running.await.unwrap();
}
