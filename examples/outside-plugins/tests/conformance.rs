//! The suites that pgdock ships, run on plugins that it knows nothing of.

use std::sync::Arc;

use outside_plugins::{Gently, ZoneFile};
use pgdock_core::executor::{self, Command, ExecutorExt as _};
use pgdock_core::failover_ip::{self, FaultyFailoverIp, Target};
use pgdock_core::{NodeName, Term};

fn target(i: u8) -> Target {
    Target {
        cluster: "shop".into(),
        node: NodeName::new(format!("n{i}")).expect("a name"),
        address: format!("10.0.0.{i}"),
        term: Term(7),
    }
}

#[tokio::test]
async fn a_failover_ip_conforms() {
    let dir = tempfile::tempdir().expect("a folder");
    let ip = ZoneFile::new(dir.path().join("db.zone"), "db.example.com.");
    failover_ip::conformance::run(&ip, &target(1), &target(2)).await;
}

#[tokio::test]
async fn a_failover_ip_conforms_behind_a_bad_network() {
    for seed in 0..10 {
        let dir = tempfile::tempdir().expect("a folder");
        let ip = Arc::new(ZoneFile::new(dir.path().join("db.zone"), "db.example.com."));
        let ip = FaultyFailoverIp::new(ip, seed).refuse(0.2).lose_answers(0.3);
        failover_ip::conformance::run(&ip, &target(1), &target(2)).await;
    }
}

#[tokio::test]
async fn an_executor_conforms() {
    let dir = tempfile::tempdir().expect("a folder");
    let executor = Gently::new(10);
    executor::conformance::run(&executor, dir.path(), executor::conformance::Supports::all()).await;
    let niceness = executor.output(&Command::new("nice")).await.expect("nice is there").text();
    assert!(niceness.trim().parse::<u8>().is_ok_and(|n| n >= 10), "{niceness}");
}
