use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgdock_core::ErrorKind;
use pgdock_core::executor::conformance::{self, Supports};
use pgdock_core::executor::memory::Reply;
use pgdock_core::executor::{Command, Executor, ExecutorExt, FaultyExecutor, LocalExecutor, MemoryExecutor};

#[tokio::test(flavor = "multi_thread")]
async fn local_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run(&LocalExecutor, dir.path(), Supports::all()).await;
}

#[tokio::test]
async fn memory_conforms() {
    let node = MemoryExecutor::new("n1");
    conformance::run(&node, Path::new("/opt"), Supports::files()).await;
    node.program("pg_ctl", Reply::Hangs).program("initdb", Reply::fails(1, "no room"));
    assert!(!node.output(&Command::new("pg_ctl").timeout(Duration::from_millis(1))).await.unwrap_err().outcome_known());
    assert!(node.run_checked(&Command::new("initdb")).await.unwrap_err().chain().contains("no room"));
    assert_eq!(node.calls().len(), 3);
}

#[tokio::test]
async fn faulty_conforms_where_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let quiet = FaultyExecutor::new(Arc::new(LocalExecutor), 1);
    conformance::run(&quiet, dir.path(), Supports::all()).await;
}

#[tokio::test]
async fn a_lost_answer_is_not_a_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let deaf = FaultyExecutor::new(Arc::new(LocalExecutor), 1).lose_answers(1.0);
    let error = deaf.put_bytes(b"x", &path, 0o600).await.unwrap_err();
    assert!(!error.outcome_known() && path.exists());
    let shut = FaultyExecutor::new(Arc::new(LocalExecutor) as Arc<dyn Executor>, 1).refuse(1.0);
    let error = shut.put_bytes(b"x", &dir.path().join("g"), 0o600).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome_known()), (ErrorKind::Unavailable, true));
    assert!(!dir.path().join("g").exists());
}
