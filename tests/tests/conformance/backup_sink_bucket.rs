//! Backups in a bucket of a real S3 server.

use std::sync::Arc;
use std::time::Duration;

use pgdock_core::ErrorKind;
use pgdock_core::backup_sink::{BackupSink, BackupSinkExt, BucketSink, Key, ProbedSink, Put, conformance};
use pgdock_core::clock::SystemClock;
use pgdock_core::witness::bucket::BucketConfig;
use pgdock_testkit::{Answers, Conditions, Faults, Outage, Scope};
use pgdock_tests::stores::TestBucket;
use tokio::io::AsyncReadExt;

/// The smallest part that S3 takes, so that large bodies come in several.
const PART: usize = 5 << 20;

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_conforms() {
    let bucket = TestBucket::new().await;
    conformance::run(Arc::new(bucket.sink())).await;
    conformance::large_bodies_come_through(&(Arc::new(bucket.sink().piece(PART)) as Arc<dyn BackupSink>)).await;
}

/// The network is good, and the store is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_trouble_conforms() {
    let bucket = TestBucket::own().await;
    for lost_answer_is in [Answers::Error, Answers::Cut] {
        bucket.faults(Faults {
            slow_down: 0.03,
            too_many: 0.03,
            lost_requests: 0.03,
            lost_answers: 0.05,
            lost_answer_is,
            create_conflicts: 0.1,
            jitter_ms: 1,
            ..Faults::default()
        });
        let sink: Arc<dyn BackupSink> = Arc::new(bucket.sink().piece(PART));
        if lost_answer_is == Answers::Error {
            conformance::run(sink).await;
        } else {
            conformance::what_was_put_is_got(&sink).await;
            conformance::nothing_is_written_over(&sink).await;
            conformance::one_racer_creates(&sink).await;
            conformance::large_bodies_come_through(&sink).await;
            conformance::deleting_twice_is_harmless(&sink).await;
        }
    }
}

/// A write that landed before its answer was lost is one's own, however it is sent again.
#[tokio::test]
async fn ones_own_write_is_told_from_anothers() {
    let bucket = TestBucket::own().await;
    let sink = bucket.sink();
    let lost = Faults { lost_answers: 0.5, scope: Scope::Writes, ..Faults::default() };
    for i in 0..20 {
        bucket.faults(lost.clone());
        let (mine, other) = (key(&format!("mine/{i}")), key(&format!("other/{i}")));
        let put = sink.put_bytes(&mine, b"content").await;
        bucket.faults(Faults::default());
        match put {
            Ok(put) => assert_eq!(put, Put::Created(7), "{i}"),
            Err(e) => assert!(!e.outcome_known(), "{}", e.chain()),
        }
        assert_eq!(sink.put_bytes(&other, b"contemp").await.unwrap(), Put::Created(7));
        bucket.faults(lost.clone());
        match sink.put_bytes(&other, b"content").await {
            Ok(put) => assert_eq!(put, Put::AlreadyExists, "{i}: it has other content"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Unavailable, "{}", e.chain()),
        }
    }
}

/// Nothing was written, and there is nothing: a conflict of two writes is no object.
#[tokio::test]
async fn a_conflict_of_writes_is_tried_again() {
    let bucket = TestBucket::own().await;
    bucket.faults(Faults { create_conflicts: 1.0, ..Faults::default() });
    let error = bucket.sink().tries(2).put_bytes(&key("a"), b"x").await.unwrap_err();
    assert!(error.outcome_known() && error.kind() != ErrorKind::NeedsOperator, "{}", error.chain());
    bucket.faults(Faults { create_conflicts: 0.5, ..Faults::default() });
    let sink = bucket.sink();
    for i in 0..10 {
        assert_eq!(sink.put_bytes(&key(&format!("{i}")), b"x").await.unwrap(), Put::Created(1));
    }
}

/// What each answer means, in the end.
#[tokio::test]
async fn each_answer_means_something() {
    let bucket = TestBucket::own().await;
    let sink = bucket.sink().tries(2).timeout(Duration::from_millis(500));
    let none = Faults::default;
    let cases = [
        (Faults { slow_down: 1.0, ..none() }, ErrorKind::Unavailable, "status=503, code=SlowDown"),
        (Faults { too_many: 1.0, ..none() }, ErrorKind::Unavailable, "status=429"),
        (Faults { lost_requests: 1.0, ..none() }, ErrorKind::Unavailable, "status=500"),
        (Faults { outage: Outage::Cut, ..none() }, ErrorKind::Unavailable, "did not answer"),
        (Faults { outage: Outage::Silent, ..none() }, ErrorKind::Unavailable, "no answer within"),
    ];
    for (faults, kind, says) in cases {
        bucket.faults(faults.clone());
        for error in [
            sink.put_bytes(&key("a"), b"x").await.unwrap_err(),
            sink.get(&key("a")).await.err().expect("an error"),
            sink.list("", None).await.unwrap_err(),
            sink.delete(&key("a")).await.unwrap_err(),
        ] {
            let text = error.chain();
            assert!(error.kind() == kind && text.contains(says), "{faults:?}: {text}");
            assert!(text.contains("store=s3://witness/conformance/"), "{faults:?}: {text}");
        }
    }
    bucket.faults(Faults { conditions: Conditions::Unsupported, ..none() });
    let error = sink.put_bytes(&key("a"), b"x").await.unwrap_err();
    assert!(error.kind() == ErrorKind::NeedsOperator && error.outcome_known(), "{}", error.chain());
    // A store that is slow for a moment is waited for.
    bucket.faults(Faults { slow_down: 0.5, ..none() });
    let patient = bucket.sink();
    for i in 0..10 {
        assert_eq!(patient.put_bytes(&key(&format!("b/{i}")), b"x").await.unwrap(), Put::Created(1));
    }
    assert_eq!(patient.list_all("b/").await.unwrap().len(), 10);
}

#[tokio::test]
async fn a_wrong_place_is_not_an_empty_one() {
    let bucket = TestBucket::own().await;
    let at = |change: &dyn Fn(&mut BucketConfig)| {
        let mut config = bucket.config();
        change(&mut config);
        BucketSink::new(config, "p").unwrap().tries(1)
    };
    let wrong = [
        (at(&|c| c.bucket = "no-such-bucket".into()), "there is no such bucket"),
        (at(&|c| drop(c.credentials.insert("AWS_SECRET_ACCESS_KEY".into(), "hunter2".into()))), "credentials"),
        (at(&|c| c.endpoint = c.endpoint.take().map(|e| e + "/no-s3-here")), "no such bucket, or no such store"),
    ];
    for (sink, says) in wrong {
        let listed = sink.list("", None).await.unwrap_err();
        let got = sink.get(&key("a")).await.err().expect("an error");
        for error in [listed, got, sink.put_bytes(&key("a"), b"x").await.unwrap_err()] {
            assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(says), "{}", error.chain());
            assert!(!error.hints().is_empty() && !error.chain().contains("hunter2"), "{}", error.chain());
        }
    }
    assert!(BucketSink::new(bucket.config(), "a//b").is_err());
    assert!(BucketSink::new(bucket.config(), "").is_err());
}

#[tokio::test]
async fn a_store_that_breaks_its_word_is_refused() {
    let bucket = TestBucket::own().await;
    let probed = || ProbedSink::new(Arc::new(bucket.sink()), Arc::new(SystemClock));
    for (conditions, says) in [
        (Conditions::Ignored, "create one object"),
        (Conditions::Unsupported, "it has no conditional writes"),
        (Conditions::CheckedThenSet, "create one object"),
    ] {
        bucket.faults(Faults { conditions, ..Faults::default() });
        let sink = probed();
        let error = sink.put_bytes(&key("a"), b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsOperator, "{conditions:?}: {}", error.chain());
        assert!(error.to_string().contains(says), "{conditions:?}: {error}");
        assert!(sink.list_all("").await.unwrap().is_empty(), "{conditions:?}: something is left");
    }
    bucket.faults(Faults::default());
    let sink = probed();
    assert_eq!(sink.put_bytes(&key("a"), b"x").await.unwrap(), Put::Created(1));
    let before = bucket.server().faults().counts().writes;
    let _ = sink.put_bytes(&key("b"), b"x").await.unwrap();
    assert_eq!(bucket.server().faults().counts().writes - before, 1, "it is probed once, and a put is one request");
}

/// A body whose connection breaks is read on from there.
#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_where_it_broke_off() {
    let bucket = TestBucket::own().await;
    let sink = bucket.sink();
    let content: Vec<u8> = (0..8_u32 << 20).map(|i| (i ^ (i >> 8)) as u8).collect();
    let _ = sink.put_bytes(&key("a"), &content).await.unwrap();
    bucket.faults(Faults { cut_bodies: 0.7, ..Faults::default() });
    for _ in 0..5 {
        let (size, mut body) = sink.get(&key("a")).await.unwrap().unwrap();
        let mut read = Vec::new();
        body.read_to_end(&mut read).await.unwrap();
        assert_eq!(size, content.len() as u64);
        assert!(read == content, "other content came back: {} bytes", read.len());
    }
    // One that always breaks off says so, and gives no more than the beginning.
    bucket.faults(Faults { cut_bodies: 1.0, outage: Outage::None, ..Faults::default() });
    let (_, mut body) = sink.get(&key("a")).await.unwrap().unwrap();
    let mut read = Vec::new();
    let ended = body.read_to_end(&mut read).await;
    assert!(ended.is_err() || read == content);
    assert!(content.starts_with(&read));
}
