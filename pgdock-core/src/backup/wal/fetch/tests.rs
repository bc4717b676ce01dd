use super::*;
use crate::backup::Codec;
use crate::backup_sink::{BackupSink, FaultySink, MemorySink};
use crate::postgres::timeline::TimelineId;

const SEGMENT: usize = 1 << 20;

fn segment(n: u64) -> String {
    Segment::numbered(TimelineId(2), n, SEGMENT as u64).to_string()
}

async fn archive(of: std::ops::Range<u64>) -> Arc<dyn BackupSink> {
    let sink: Arc<dyn BackupSink> = Arc::new(MemorySink::default());
    let store = on(Arc::clone(&sink));
    for n in of {
        let content = vec![u8::try_from(n).unwrap(); SEGMENT];
        let _ = store.put_bytes(TimelineId(2), &segment(n), content).await.unwrap();
    }
    let _ = store.put_bytes(TimelineId(2), "00000002.history", b"1\t0/3000148\tx\n".to_vec()).await.unwrap();
    sink
}

fn on(sink: Arc<dyn BackupSink>) -> WalStore {
    WalStore::new(sink, Codec::default(), 7)
}

#[tokio::test]
async fn segments_and_histories_come_and_the_end_is_told() {
    let fetcher = Fetcher::new(on(archive(3..9).await));
    for n in 3..9 {
        let content = fetcher.fetch(&segment(n)).await.unwrap().unwrap();
        assert!(content.len() == SEGMENT && content.iter().all(|b| u64::from(*b) == n));
    }
    assert_eq!(fetcher.fetch(&segment(9)).await.unwrap(), None);
    assert!(fetcher.fetch("00000002.history").await.unwrap().is_some());
    assert_eq!(fetcher.fetch("00000003.history").await.unwrap(), None);
    assert!(fetcher.fetch("../../x").await.is_err());
}

#[tokio::test]
async fn what_arrives_after_it_was_looked_for_ahead_is_found() {
    let sink = archive(3..4).await;
    let fetcher = Fetcher::new(on(Arc::clone(&sink)));
    assert!(fetcher.fetch(&segment(3)).await.unwrap().is_some());
    assert_eq!(fetcher.fetch(&segment(4)).await.unwrap(), None);
    let _ = on(sink).put_bytes(TimelineId(2), &segment(4), vec![4; SEGMENT]).await.unwrap();
    assert!(fetcher.fetch(&segment(4)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_timeline_that_was_cut_off_is_given_to_its_end() {
    let sink = archive(3..4).await;
    let _ = on(Arc::clone(&sink))
        .put_bytes(TimelineId(2), &format!("{}.partial", segment(4)), vec![9; SEGMENT])
        .await
        .unwrap();
    assert_eq!(Fetcher::new(on(sink)).fetch(&segment(4)).await.unwrap(), Some(vec![9; SEGMENT]));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_not_the_end() {
    let sink = archive(3..9).await;
    let down = Fetcher::new(on(Arc::new(FaultySink::new(Arc::clone(&sink), 1).refuse(1.0))));
    for name in [segment(3), segment(9), "00000003.history".to_owned()] {
        assert_eq!(down.fetch(&name).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let bad = Fetcher::new(on(Arc::new(FaultySink::new(sink, 1).refuse(0.4).lose_answers(0.3).break_off(0.3))));
    for n in 3..9 {
        assert!(bad.fetch(&segment(n)).await.unwrap().is_some_and(|c| c[7] == u8::try_from(n).unwrap()));
    }
    assert_eq!(bad.fetch(&segment(9)).await.unwrap(), None);
}

#[tokio::test]
async fn without_an_agent_the_next_ones_wait_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("RECOVERYXLOG");
    let sink = archive(3..9).await;
    for n in 3..9 {
        assert!(fetch_to(&on(Arc::clone(&sink)), &segment(n), &to).await.unwrap());
        assert_eq!(std::fs::read(&to).unwrap()[7], u8::try_from(n).unwrap());
        let spooled = std::fs::read_dir(dir.path().join(SPOOL)).unwrap().count();
        assert!(spooled > 0 || n == 8, "nothing was fetched ahead of segment {n}");
    }
    assert!(!fetch_to(&on(sink), &segment(9), &to).await.unwrap());
    assert!(!dir.path().join(SPOOL).exists(), "it leaves nothing behind");
}

#[tokio::test]
async fn a_segment_that_is_there_in_pieces_is_given_as_far_as_it_goes() {
    let sink = archive(3..4).await;
    let store = on(Arc::clone(&sink));
    let mut content = vec![7; 5000];
    content[32..36].copy_from_slice(&u32::try_from(SEGMENT).unwrap().to_ne_bytes());
    let pieces = [(0, 100), (100, 4000), (4000, 4900), (4950, 5000)];
    for (from, to) in pieces {
        let name = format!("{}+{from:08X}", segment(4));
        let _ = store.put_bytes(TimelineId(2), &name, content[from..to].to_vec()).await.unwrap();
    }
    let fetcher = Fetcher::new(store.clone());
    assert!(fetcher.fetch(&segment(3)).await.unwrap().is_some());
    let found = fetcher.fetch(&segment(4)).await.unwrap().unwrap();
    assert_eq!((&found[..4900], found.len()), (&content[..4900], SEGMENT), "up to the gap");
    assert!(found[4900..].iter().all(|b| *b == 0));
    assert_eq!(fetcher.fetch(&segment(5)).await.unwrap(), None);
    // Once the whole segment is there, that counts.
    let _ = store.put_bytes(TimelineId(2), &segment(4), vec![9; SEGMENT]).await.unwrap();
    assert_eq!(fetcher.fetch(&segment(4)).await.unwrap(), Some(vec![9; SEGMENT]));
}

#[tokio::test]
async fn the_search_for_the_newest_timeline_goes_on_over_a_number_that_nobody_used() {
    let sink = archive(3..4).await;
    let store = on(Arc::clone(&sink));
    let fetcher = Fetcher::new(store.clone());
    assert_eq!(fetcher.fetch("00000003.history").await.unwrap(), None, "2 is the newest");
    let of_five = b"2\t0/4000148\tx\n".to_vec();
    let _ = store.put_bytes(TimelineId(5), "00000005.history", of_five.clone()).await.unwrap();
    for unused in ["00000003.history", "00000004.history"] {
        let text = fetcher.fetch(unused).await.unwrap().unwrap();
        assert!(text.starts_with(b"#") && text.ends_with(b"\n"), "PostgreSQL reads no line in it");
    }
    assert_eq!(fetcher.fetch("00000005.history").await.unwrap(), Some(of_five));
    assert_eq!(fetcher.fetch("00000006.history").await.unwrap(), None);
}
