//! An old primary that went its own way comes back.

use std::time::Duration;

use pgdock_core::postgres::diverged::Diverged;
use pgdock_core::view::{Names, Postgres};
use pgdock_core::{ErrorKind, Role};

use crate::support::{Rig, connect, node, primary, read, standby, until};

const BUDGET: Duration = Duration::from_secs(60);

/// Two primaries of one past: the first has rows that the second lacks, and ended as told.
async fn diverge(rig: &Rig, crash: bool) {
    let (first, second) = (&rig.nodes[0], &rig.nodes[1]);
    let client = connect(first).await;
    client.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    let end = primary(first, |_| true).await.flushed;
    standby(second, |s| s.replayed >= end).await;
    second.detach().await.unwrap();
    client.batch_execute("INSERT INTO t SELECT generate_series(1, 1000)").await.unwrap();
    second.promote(&Names::none(), None).await.unwrap();
    connect(second).await.batch_execute("INSERT INTO t VALUES (-1)").await.unwrap();
    until("a checkpoint on timeline 2", || async { (second.control_data().await.ok()?.timeline.0 == 2).then_some(()) })
        .await;
    second.sync_slots(&[node(1).slot()].into()).await.unwrap();
    if crash {
        first.fence().await.unwrap();
    }
}

async fn rejoin(rig: &Rig) {
    let (first, second) = (&rig.nodes[0], &rig.nodes[1]);
    let source = rig.config(1);
    let seen = primary(second, |_| true).await;
    let fork = seen.history.forks[0].end;
    let before = first.incarnation();
    // One that was interrupted has set aside what is taken away, and everything is as it was.
    first.set_aside(fork).await.unwrap();
    assert!(matches!(first.observe().await.unwrap().postgres, Postgres::Stopped(_)));
    first.rewind_from(&source.address, source.port, fork, BUDGET).await.unwrap();
    assert!(first.incarnation() != before && first.incarnation() != second.incarnation());
    // It may lack what the primary wrote while it was rewound, and takes no connections before it has that.
    first.start(Role::Standby, Some(&node(2))).await.unwrap();
    let end = primary(second, |_| true).await.flushed;
    let seen = standby(first, |s| s.receiving && s.replayed >= end).await;
    assert_eq!(seen.timeline.0, 2);
    let row = connect(first).await.query_one("SELECT count(*), min(i) FROM t", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i32>(1)), (1, -1));

    // What was taken away is kept, and named.
    let mut kept = std::fs::read_dir(&first.layout().diverged).unwrap();
    let folder = kept.next().unwrap().unwrap().path();
    let report: Diverged = serde_json::from_str(&read(&folder.join("report.json"))).unwrap();
    assert_eq!((report.timeline.0, report.fork, report.incarnation), (1, fork, before));
    assert!(report.end > fork && !report.files.is_empty());
    assert_eq!(report.incomplete, None);
    let changes = report.changes.clone().unwrap();
    assert_eq!(changes.transactions as usize, changes.commits.len());
    let rows: Vec<_> = changes.rows.values().filter(|rows| rows.inserted == 1000).collect();
    assert!(changes.transactions > 0 && rows.len() == 1, "{report:?}");
    // By name, where the table is still there.
    let [kept] = &first.diverged().list().unwrap()[..] else { panic!("one was expected") };
    let shown = first.diverged().show(&kept.id).await.unwrap();
    let table = shown.relations.iter().find(|r| r.name.as_deref() == Some("public.t")).unwrap();
    assert_eq!((table.rows, table.database.as_deref()), (*rows[0], Some("postgres")));
    for file in &report.files {
        assert!(folder.join(file).metadata().unwrap().len() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diverged_primary_that_crashed_is_rewound() {
    let Some(rig) = Rig::running(2).await else { return };
    diverge(&rig, true).await;
    rejoin(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diverged_primary_that_runs_is_stopped_and_rewound() {
    let Some(rig) = Rig::running(2).await else { return };
    diverge(&rig, false).await;
    rejoin(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rewind_never_starts() {
    let Some(rig) = Rig::running(2).await else { return };
    diverge(&rig, true).await;
    let (first, source) = (&rig.nodes[0], rig.config(1));
    let fork = primary(&rig.nodes[1], |_| true).await.history.forks[0].end;
    // The primary vanishes just before.
    rig.nodes[1].fence().await.unwrap();
    first.rewind_from(&source.address, source.port, fork, BUDGET).await.unwrap_err();
    assert!(matches!(first.observe().await.unwrap().postgres, Postgres::Unusable { .. }));
    assert_eq!(first.start(Role::Standby, None).await.unwrap_err().kind(), ErrorKind::NotReady);
    rig.nodes[1].start(Role::Primary, None).await.unwrap();
    primary(&rig.nodes[1], |_| true).await;
    rig.join(0, 1).await;
    assert!(first.layout().home.join("data.old-1").exists());
}
