//! The bucket witness on a real S3 server.

use std::sync::Arc;
use std::time::Duration;

use pgdock_core::ErrorKind;
use pgdock_core::clock::SystemClock;
use pgdock_core::witness::bucket::{BucketConfig, BucketWitness};
use pgdock_core::witness::probe::scratch_record;
use pgdock_core::witness::{FaultyWitness, Swap, Version, Witness, conformance, probe};
use pgdock_testkit::{Answers, Conditions, Faults, Outage, Scope};
use pgdock_tests::stores::TestBucket;

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_conforms_by_one_handle() {
    let bucket = TestBucket::new().await;
    conformance::run(async || bucket.fresh(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_conforms_by_several_handles() {
    let bucket = TestBucket::new().await;
    conformance::run(async || bucket.fresh(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_conforms_behind_a_bad_network() {
    let bucket = TestBucket::new().await;
    conformance::run(async || {
        let inner = bucket.fresh(1).remove(0);
        let faulty = FaultyWitness::new(inner, 1).lose_requests(0.05).lose_answers(0.1).land_late(0.1, 4);
        vec![Arc::new(faulty.delay(0.1, Duration::from_millis(1))) as Arc<dyn Witness>]
    })
    .await;
}

/// Here the network is good, and the store is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_trouble_conforms_once_answers_are_settled() {
    let bucket = TestBucket::own().await;
    for lost_answer_is in [Answers::Error, Answers::Cut] {
        bucket.faults(Faults {
            slow_down: 0.05,
            too_many: 0.05,
            lost_requests: 0.05,
            lost_answers: 0.1,
            lost_answer_is,
            create_conflicts: 0.3,
            jitter_ms: 1,
            ..Faults::default()
        });
        conformance::run(async || bucket.fresh(2)).await;
    }
}

async fn create(witness: &BucketWitness) -> Version {
    match witness.compare_and_swap(&scratch_record(0), None).await {
        Swap::Committed(version) => version,
        other => panic!("{other:?}"),
    }
}

fn ambiguous(swap: Swap) -> pgdock_core::Error {
    match swap {
        Swap::Ambiguous(error) => error,
        other => panic!("{other:?}"),
    }
}

/// What the store answers, what that means, and that nothing was sent twice.
#[tokio::test]
async fn each_answer_means_something() {
    let bucket = TestBucket::own().await;
    let witness = bucket.witness("w").timeout(Duration::from_millis(500));
    let mut version = create(&witness).await;
    let lost = |lost_answer_is| Faults { lost_answers: 1.0, lost_answer_is, scope: Scope::Writes, ..Faults::default() };
    let none = Faults::default;
    let cases = [
        (Faults { slow_down: 1.0, ..none() }, ErrorKind::Unavailable, false, "status=503, code=SlowDown"),
        (Faults { too_many: 1.0, ..none() }, ErrorKind::Unavailable, true, "status=429"),
        (Faults { lost_requests: 1.0, ..none() }, ErrorKind::Unavailable, false, "status=500"),
        (lost(Answers::Error), ErrorKind::Unavailable, false, "status=500"),
        (lost(Answers::Cut), ErrorKind::Unavailable, false, "did not answer"),
        (lost(Answers::Silent), ErrorKind::Unavailable, false, "no answer within"),
        (Faults { conditions: Conditions::Unsupported, ..none() }, ErrorKind::NeedsOperator, true, "status=501"),
        (Faults { outage: Outage::Cut, ..none() }, ErrorKind::Unavailable, false, "did not answer"),
        (Faults { outage: Outage::Silent, ..none() }, ErrorKind::Unavailable, false, "no answer within"),
    ];
    for (faults, kind, outcome_known, says) in cases {
        bucket.faults(faults.clone());
        let before = bucket.server().faults().counts().writes;
        let error = ambiguous(witness.compare_and_swap(&scratch_record(1), Some(&version)).await);
        let text = error.chain();
        assert_eq!((error.kind(), error.outcome_known()), (kind, outcome_known), "{faults:?}: {text}");
        assert!(text.contains(says) && text.contains("s3://witness/w"), "{faults:?}: {text}");
        let sent = bucket.server().faults().counts().writes - before;
        let arrives = faults.outage == Outage::None;
        assert_eq!(sent, u64::from(arrives), "{faults:?}: a swap is sent once");
        bucket.faults(none());
        version = witness.read().await.unwrap().unwrap().1;
    }
    // Whoever reads is told as much.
    bucket.faults(Faults { slow_down: 1.0, ..none() });
    assert_eq!(witness.read().await.unwrap_err().kind(), ErrorKind::Unavailable);
    bucket.faults(Faults { create_conflicts: 1.0, ..none() });
    let error = ambiguous(bucket.witness("other").compare_and_swap(&scratch_record(0), None).await);
    assert!(error.outcome_known(), "{}", error.chain());
}

/// Only "there is no such object" means that there is no document.
#[tokio::test]
async fn a_wrong_place_is_not_an_empty_one() {
    let bucket = TestBucket::own().await;
    let at = |change: &dyn Fn(&mut BucketConfig)| {
        let mut config = bucket.config();
        change(&mut config);
        BucketWitness::new(config, "w").unwrap()
    };
    let wrong = [
        (at(&|c| c.bucket = "no-such-bucket".into()), "there is no such bucket"),
        (at(&|c| drop(c.credentials.insert("AWS_SECRET_ACCESS_KEY".into(), "hunter2".into()))), "credentials"),
        (at(&|c| c.endpoint = c.endpoint.take().map(|e| e + "/no-s3-here")), "no such bucket, or no such store"),
    ];
    for (witness, says) in wrong {
        let error = witness.read().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains(says), "{}", error.chain());
        assert!(!error.hints().is_empty() && !error.chain().contains("hunter2"), "{}", error.chain());
        let error = ambiguous(witness.compare_and_swap(&scratch_record(0), None).await);
        assert!(error.kind() == ErrorKind::Invalid && error.outcome_known(), "{}", error.chain());
        assert!(!format!("{witness:?}").contains("hunter2"));
    }
    assert!(bucket.witness("w").read().await.unwrap().is_none());
    let nobody = at(&|c| c.endpoint = Some("http://127.0.0.1:1".into()));
    let error = ambiguous(nobody.compare_and_swap(&scratch_record(0), None).await);
    assert_eq!((error.kind(), error.outcome_known()), (ErrorKind::Unavailable, true), "{}", error.chain());
    assert!(error.chain().contains("refused"), "{}", error.chain());
    let https = at(&|c| c.tls.allow_plain = false);
    assert!(https.read().await.is_err(), "without TLS only where that is allowed");
}

#[tokio::test]
async fn a_store_that_breaks_its_word_is_refused() {
    let bucket = TestBucket::own().await;
    let broken = [
        (Conditions::Ignored, "let 8 of 8 racers win"),
        (Conditions::Unsupported, "it has no conditional writes"),
        (Conditions::CheckedThenSet, "racers win"),
    ];
    for (conditions, says) in broken {
        bucket.faults(Faults { conditions, ..Faults::default() });
        let witness = bucket.witness(&format!("{conditions:?}"));
        let error = probe(&witness, &SystemClock).await.into_result().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsOperator, "{conditions:?}: {}", error.chain());
        assert!(error.to_string().contains(says), "{conditions:?}: {error}");
    }
    bucket.faults(Faults::default());
    let report = probe(&bucket.witness("honest"), &SystemClock).await;
    assert!(report.passed(), "{report:?}");
}
