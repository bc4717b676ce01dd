use std::sync::Arc;
use std::time::Duration;

use pgdock_core::ErrorKind;
use pgdock_core::clock::SystemClock;
use pgdock_core::executor::{Command, ExecutorExt, LocalExecutor};
use pgdock_core::settings::WitnessSettings;
use pgdock_core::witness::memory::Lie;
use pgdock_core::witness::probe::Verdict;
use pgdock_core::witness::{
    self, FaultyWitness, FileWitness, MemoryWitness, Record, Scratch, Swap, Witness, WitnessUrl, conformance, probe,
};

fn memory() -> Arc<dyn Witness> {
    Arc::new(MemoryWitness::new())
}

fn faulty(inner: Arc<dyn Witness>, seed: u64) -> Arc<dyn Witness> {
    let faults = FaultyWitness::new(inner, seed).lose_requests(0.1).lose_answers(0.15).land_late(0.15, 6);
    Arc::new(faults.delay(0.2, Duration::from_millis(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conformance::run(async || vec![memory()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_conforms_by_one_handle() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(async || {
        let path = dir.path().join(witness::fresh_nonce()).join("witness.json");
        vec![Arc::new(FileWitness::new(path)) as Arc<dyn Witness>]
    })
    .await;
}

/// As several agents on one machine: each has opened the file for itself.
#[tokio::test(flavor = "multi_thread")]
async fn file_conforms_by_several_handles() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(async || {
        let path = dir.path().join(witness::fresh_nonce()).join("witness.json");
        (0..3).map(|_| Arc::new(FileWitness::new(&path)) as Arc<dyn Witness>).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_conforms_once_answers_are_settled() {
    for seed in 0..8 {
        conformance::run(async || vec![faulty(memory(), seed)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_writers_lose_nothing_on_a_bad_network() {
    for seed in 0..4 {
        let memory = Arc::new(MemoryWitness::new());
        let handles = vec![faulty(Arc::clone(&memory) as _, seed)];
        conformance::concurrent_writers_lose_nothing(&handles, 64, 4).await;
        let history = memory.history();
        // One document after another, none skipped or written over.
        for (i, (record, _)) in history.iter().enumerate() {
            assert_eq!(record.heartbeat, i as u64, "seed={seed}");
        }
        assert!(history.len() > 64 * 4, "seed={seed}: faults must have cost some writes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_store_passes_the_probe() {
    let dir = tempfile::tempdir().unwrap();
    let file = FileWitness::new(dir.path().join("w"));
    for honest in [&MemoryWitness::new() as &dyn Witness, &file] {
        let report = probe(honest, &SystemClock).await;
        assert!(report.passed(), "{report:?}");
        assert!(report.checks.len() >= 9, "{report:?}");
        report.into_result().unwrap();
    }
}

#[tokio::test]
async fn a_store_that_lies_is_refused() {
    for lie in Lie::ALL {
        let report = probe(&MemoryWitness::lying(lie), &SystemClock).await;
        assert!(!report.passed(), "{lie:?} went unnoticed");
        let error = report.into_result().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NeedsOperator, "{lie:?}: {error}");
        assert!(error.to_string().contains("store=memory:"), "{error}");
    }
}

/// The suite itself must be able to fail.
#[tokio::test]
async fn a_store_that_lies_does_not_conform() {
    for lie in Lie::ALL {
        let runtime = tokio::runtime::Handle::current();
        let suite = tokio::task::spawn_blocking(move || {
            let fresh = async || vec![Arc::new(MemoryWitness::lying(lie)) as Arc<dyn Witness>];
            runtime.block_on(conformance::run(fresh));
        });
        assert!(suite.await.is_err_and(|e| e.is_panic()), "{lie:?} went unnoticed");
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_called_a_liar() {
    let silent = MemoryWitness::new();
    silent.set_reachable(false);
    let report = probe(&silent, &SystemClock).await;
    assert!(matches!(report.checks[0].verdict, Verdict::Unknown(_)), "{report:?}");
    assert_eq!(report.into_result().unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_probe_touches_neither_the_clusters_document_nor_leaves_one() {
    let dir = tempfile::tempdir().unwrap();
    let settings = WitnessSettings::new(WitnessUrl::parse("file:w/", dir.path()).unwrap(), dir.path());
    let real = witness::open(&settings, "shop").unwrap();
    let scratch: Scratch = witness::open_scratch(&settings, "shop").await.unwrap();
    let report = scratch.probe(&SystemClock).await;
    assert!(report.passed() && report.left_behind.is_none(), "{report:?}");
    assert!(real.read().await.unwrap().is_none());
    assert_eq!(std::fs::read_dir(dir.path().join("w")).unwrap().filter(|e| !is_lock(e)).count(), 0);
}

fn is_lock(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().unwrap().file_name().to_string_lossy() == "shop.json.lock"
}

/// A process that may not make any file larger than nothing meets what a full disk looks like.
#[tokio::test]
async fn a_disk_without_room_leaves_the_old_document() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("witness.json");
    conformance::creates_once(&vec![Arc::new(FileWitness::new(&path)) as Arc<dyn Witness>]).await;
    let this = std::env::current_exe().unwrap().display().to_string();
    let limited = Command::shell(r#"trap '' XFSZ; ulimit -f 0; exec "$@""#)
        .args(["sh", &this, "--exact", "witness::without_room", "--ignored", "--nocapture"])
        .env("WITNESS_FILE", path.display().to_string());
    let output = LocalExecutor.run_checked(&limited).await.unwrap_or_else(|e| panic!("{}", e.chain()));
    assert!(output.text().contains("1 passed"), "{}", output.text());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "the document and its lock");
}

/// The other process of the test above.
#[tokio::test]
#[ignore = "runs in a process that may write nothing"]
async fn without_room() {
    let witness = FileWitness::new(std::env::var("WITNESS_FILE").unwrap());
    let (before, version) = witness.read().await.unwrap().unwrap();
    let next = Record { nonce: witness::fresh_nonce(), ..before.successor() };
    match witness.compare_and_swap(&next, Some(&version)).await {
        Swap::Ambiguous(error) => {
            assert!(error.outcome_known() && error.to_string().contains("the old document stands"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(witness.read().await.unwrap(), Some((before, version)));
}
