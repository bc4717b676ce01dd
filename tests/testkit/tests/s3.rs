//! What tests that use the S3 server rely on: conditions hold, and each fault does what it says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutResult, RetryConfig, UpdateVersion};
use pgdock_testkit::faults::Counts;
use pgdock_testkit::{Answers, Conditions, Control, Faults, Keys, Outage, S3Server, Scope, control};

struct Test {
    server: S3Server,
    store: Arc<AmazonS3>,
    dir: tempfile::TempDir,
}

impl Test {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let server = S3Server::start(SocketAddr::from(([127, 0, 0, 1], 0)), dir.path(), Keys::default()).await.unwrap();
        server.make_bucket("bucket").unwrap();
        let store = AmazonS3Builder::new()
            .with_endpoint(server.endpoint())
            .with_region("us-east-1")
            .with_bucket_name("bucket")
            .with_access_key_id(&server.keys().access)
            .with_secret_access_key(&server.keys().secret)
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_secs(60)))
            .build()
            .unwrap();
        Self { server, store: Arc::new(store), dir }
    }

    async fn put(&self, key: &str, body: &str, mode: PutMode) -> Result<PutResult, Error> {
        self.store.put_opts(&Path::from(key), body.to_owned().into(), mode.into()).await
    }

    async fn create(&self, key: &str) -> UpdateVersion {
        self.put(key, "created", PutMode::Create).await.unwrap().into()
    }

    async fn get(&self, key: &str) -> Option<String> {
        match self.store.get(&Path::from(key)).await {
            Ok(answer) => Some(String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap()),
            Err(Error::NotFound { .. }) => None,
            Err(e) => panic!("{e:?}"),
        }
    }

    fn faults(&self, faults: Faults) {
        self.server.faults().set(faults);
    }
}

#[tokio::test]
async fn conditions_hold() {
    let test = Test::start().await;
    let first = test.create("a/b").await;
    assert!(matches!(test.put("a/b", "again", PutMode::Create).await, Err(Error::AlreadyExists { .. })));
    let second = test.put("a/b", "second", PutMode::Update(first.clone())).await.unwrap();
    let stale = test.put("a/b", "stale", PutMode::Update(first)).await;
    assert!(matches!(stale, Err(Error::Precondition { .. })), "{stale:?}");
    assert_eq!(test.get("a/b").await.unwrap(), "second");
    assert_eq!(test.store.head(&Path::from("a/b")).await.unwrap().e_tag, second.e_tag);
    let wrong = AmazonS3Builder::new().with_endpoint(test.server.endpoint()).with_allow_http(true);
    let wrong = wrong.with_bucket_name("bucket").with_access_key_id("pgdock-test").with_secret_access_key("wrong");
    let refused = wrong.build().unwrap().get(&Path::from("a/b")).await;
    assert!(matches!(refused, Err(Error::PermissionDenied { .. })), "{refused:?}");
}

/// Each adds one to a number, and tries again where another was faster.
#[tokio::test(flavor = "multi_thread")]
async fn no_increment_is_lost() {
    let test = Arc::new(Test::start().await);
    test.put("n", "0 -", PutMode::Create).await.unwrap();
    let writers = (0..64).map(|i| {
        let test = Arc::clone(&test);
        tokio::spawn(async move {
            loop {
                let answer = test.store.get(&Path::from("n")).await.unwrap();
                let version = UpdateVersion { e_tag: answer.meta.e_tag.clone(), version: None };
                let text = String::from_utf8(answer.bytes().await.unwrap().to_vec()).unwrap();
                let count: u32 = text.split_once(' ').unwrap().0.parse().unwrap();
                match test.put("n", &format!("{} {i}", count + 1), PutMode::Update(version)).await {
                    Ok(_) => break,
                    Err(Error::Precondition { .. }) => {}
                    Err(e) => panic!("{e:?}"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert!(test.get("n").await.unwrap().starts_with("64 "));
}

#[tokio::test]
async fn refusals_do_nothing() {
    let test = Test::start().await;
    let refusals = [
        Faults { slow_down: 1.0, ..Faults::default() },
        Faults { too_many: 1.0, ..Faults::default() },
        Faults { lost_requests: 1.0, ..Faults::default() },
        Faults { create_conflicts: 1.0, ..Faults::default() },
        Faults { conditions: Conditions::Unsupported, ..Faults::default() },
    ];
    for (faults, status) in refusals.into_iter().zip(["503", "429", "500", "409", "501"]) {
        test.faults(Faults { scope: Scope::Writes, ..faults.clone() });
        let refused = test.put("k", "x", PutMode::Create).await.unwrap_err();
        assert!(format!("{refused:?}").contains(&format!("status: {status}")), "{faults:?}: {refused:?}");
        assert_eq!(test.get("k").await, None, "{faults:?}");
    }
    test.faults(Faults { slow_down: 1.0, scope: Scope::Reads, ..Faults::default() });
    test.create("k").await;
    assert!(test.store.get(&Path::from("k")).await.is_err());
}

#[tokio::test]
async fn a_lost_answer_is_a_write_that_landed() {
    let test = Test::start().await;
    for (i, lost_answer_is) in [Answers::Error, Answers::Cut, Answers::Silent].into_iter().enumerate() {
        test.faults(Faults { lost_answers: 1.0, lost_answer_is, scope: Scope::Writes, ..Faults::default() });
        let key = format!("k{i}");
        let put = test.put(&key, "landed", PutMode::Create);
        match lost_answer_is {
            Answers::Silent => {
                // It stays silent for ever: given up as soon as the object is seen.
                let landed = async { while test.get(&key).await.is_none() {} };
                tokio::select! { _ = put => panic!("an answer came"), () = landed => {} }
            }
            _ => assert!(put.await.is_err()),
        }
        assert_eq!(test.get(&key).await.unwrap(), "landed");
    }
}

#[tokio::test]
async fn a_request_that_arrived_is_carried_out_without_its_client() {
    let test = Test::start().await;
    test.faults(Faults { latency_ms: 300, ..Faults::default() });
    let before = test.server.faults().counts().writes;
    let put = test.put("late", "x", PutMode::Create);
    let arrived = async {
        while test.server.faults().counts().writes == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! { _ = put => panic!("it did not wait"), () = arrived => {} }
    test.faults(Faults::default());
    while test.get("late").await.is_none() {}
}

#[tokio::test]
async fn conditions_are_broken_on_demand() {
    let test = Test::start().await;
    let version = test.create("k").await;
    test.put("k", "second", PutMode::Update(version.clone())).await.unwrap();
    test.faults(Faults { conditions: Conditions::Ignored, ..Faults::default() });
    test.put("k", "created over", PutMode::Create).await.unwrap();
    let last = test.put("k", "stale", PutMode::Update(version.clone())).await.unwrap();

    test.faults(Faults { conditions: Conditions::CheckedThenSet, ..Faults::default() });
    for stale in [PutMode::Create, PutMode::Update(version)] {
        assert!(test.put("k", "alone", stale).await.is_err(), "a condition that does not hold is seen");
    }
    let present = PutMode::Update(last.into());
    let (one, other) = tokio::join!(test.put("k", "1", present.clone()), test.put("k", "2", present));
    assert!(one.is_ok() && other.is_ok(), "both racers pass: {one:?} {other:?}");
    let (one, other) = tokio::join!(test.put("n", "1", PutMode::Create), test.put("n", "2", PutMode::Create));
    assert!(one.is_ok() && other.is_ok(), "both racers pass: {one:?} {other:?}");
}

#[tokio::test]
async fn an_outage_begins_and_ends() {
    let test = Test::start().await;
    test.create("k").await;
    test.faults(Faults { outage: Outage::Cut, ..Faults::default() });
    assert!(test.store.get(&Path::from("k")).await.is_err());
    test.faults(Faults::default());
    assert!(test.get("k").await.is_some());
    test.faults(Faults { outage: Outage::Silent, ..Faults::default() });
    let waited = tokio::time::timeout(Duration::from_millis(300), test.get("k")).await;
    assert!(waited.is_err(), "a silent server answered");
    test.faults(Faults::default());
    assert!(test.get("k").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_sets_faults_through_the_socket() {
    let test = Test::start().await;
    let path = test.dir.path().join("control");
    let serving = tokio::spawn({
        let (path, switch) = (path.clone(), Arc::clone(test.server.faults()));
        async move { control::serve(&path, switch).await }
    });
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let control = Control::new(path);
    test.create("k").await;
    test.get("k").await;
    let asked = {
        let control = control.clone();
        tokio::task::spawn_blocking(move || {
            let faults = Faults { conditions: Conditions::Unsupported, latency_ms: 1, ..Faults::default() };
            (control.state().unwrap(), control.set(&faults).unwrap(), faults)
        })
    };
    let (before, after, faults) = asked.await.unwrap();
    assert_eq!((before.faults, before.counts), (Faults::default(), Counts { reads: 1, writes: 1 }));
    assert_eq!(after.faults, faults);
    assert!(test.put("n", "x", PutMode::Create).await.is_err());
    assert!(!serving.is_finished());
}
