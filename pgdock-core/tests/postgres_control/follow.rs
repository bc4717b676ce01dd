//! Copy, detach, attach, promote, slots.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgdock_core::view::{Names, Postgres};
use pgdock_core::{ErrorKind, Lsn, Role};

use crate::support::{Rig, connect, node, primary, read, standby, until};

const BUDGET: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_detaches_attaches_and_is_promoted() {
    let Some(rig) = Rig::running(2).await else { return };
    let (first, second) = (&rig.nodes[0], &rig.nodes[1]);
    assert_ne!(first.incarnation(), second.incarnation());
    let client = connect(first).await;
    client.batch_execute("CREATE TABLE t (i int); INSERT INTO t VALUES (1)").await.unwrap();

    let detached = second.detach().await.unwrap();
    assert_eq!(detached.timeline.0, 1);
    let seen = standby(second, |_| true).await;
    assert!(seen.detached && seen.upstream.is_none() && seen.end_known);
    // What is written now does not arrive.
    client.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    primary(first, |p| p.senders.is_empty()).await;
    assert_eq!(second.detach().await.unwrap(), detached);

    second.attach(&node(1)).await.unwrap();
    let end = primary(first, |_| true).await.flushed;
    let seen = standby(second, |s| s.receiving && s.replayed >= end).await;
    assert_eq!(seen.upstream, Some(node(1)));
    assert!(seen.flushed > detached.flushed);

    first.fence().await.unwrap();
    second.warm_up().await.unwrap();
    second.detach().await.unwrap();
    second.promote(&Names::none(), None).await.unwrap();
    let seen = primary(second, |_| true).await;
    assert_eq!(seen.timeline.0, 2);
    assert_eq!(seen.history.forks.len(), 1);
    let client = connect(second).await;
    client.batch_execute("INSERT INTO t VALUES (3)").await.unwrap();
    let count: i64 = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(count, 3);
    // The checkpoint that lets others see the new timeline comes by itself.
    until("a checkpoint on timeline 2", || async { (second.control_data().await.ok()?.timeline.0 == 2).then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alter_system_does_not_attach_a_detached_standby() {
    let Some(rig) = Rig::running(2).await else { return };
    let second = &rig.nodes[1];
    let conninfo = read(&second.layout().conf_file("upstream.conf"));
    let conninfo = conninfo.lines().find(|l| l.starts_with("primary_conninfo")).unwrap();
    let auto = second.layout().data.join("postgresql.auto.conf");
    std::fs::write(&auto, format!("{conninfo}\nwork_mem = '5MB'\n")).unwrap();
    second.detach().await.unwrap();
    assert_eq!(read(&auto), "work_mem = '5MB'\n");
    assert!(standby(second, |_| true).await.detached);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_follow_the_members() {
    let Some(rig) = Rig::new(1).await else { return };
    rig.bootstrap().await;
    let first = &rig.nodes[0];
    let client = connect(first).await;
    client.batch_execute("SELECT pg_create_physical_replication_slot('somebody_elses')").await.unwrap();
    let slots = |names: &[&str]| names.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
    for wanted in [slots(&["pgdock_n2", "pgdock_n3"]), slots(&["pgdock_n3", "pgdock_n4"]), slots(&[])] {
        first.sync_slots(&wanted).await.unwrap();
        first.sync_slots(&wanted).await.unwrap();
        assert_eq!(primary(first, |_| true).await.slots, wanted);
    }
    let left: i64 = client.query_one("SELECT count(*) FROM pg_replication_slots", &[]).await.unwrap().get(0);
    assert_eq!(left, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_a_standby_are_moved_on() {
    let Some(rig) = Rig::running(2).await else { return };
    let (first, second) = (&rig.nodes[0], &rig.nodes[1]);
    let wanted = |n3: Lsn| BTreeMap::from([("pgdock_n1".to_owned(), Lsn(0)), ("pgdock_n3".to_owned(), n3)]);
    second.follow_slots(&wanted(Lsn(0))).await.unwrap();
    let made = second.observe().await.unwrap();
    assert!(made.slots.len() == 2 && made.slots["pgdock_n3"] == made.redo && made.redo > Lsn(0), "{made:?}");

    let client = connect(first).await;
    client.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 10000)").await.unwrap();
    let end = primary(first, |_| true).await.flushed;
    standby(second, |s| s.replayed >= end).await;
    // Beyond what was replayed there is nothing to hold back, and nothing goes back.
    for (to, expected) in [(end, end), (made.redo, end), (Lsn(end.0 + (1 << 40)), end)] {
        second.follow_slots(&wanted(to)).await.unwrap();
        let slots = second.observe().await.unwrap().slots;
        assert!(slots["pgdock_n3"] >= expected, "{slots:?}");
        assert_eq!(slots["pgdock_n1"], made.slots["pgdock_n1"]);
    }
    // They are there after a promotion.
    second.detach().await.unwrap();
    second.promote(&Names::none(), None).await.unwrap();
    assert_eq!(primary(second, |_| true).await.slots, wanted(Lsn(0)).into_keys().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_another_cluster_is_refused_and_an_old_directory_is_kept() {
    let Some(rig) = Rig::running(2).await else { return };
    let (source, second) = (rig.config(0), &rig.nodes[1]);
    let copy = |expected| second.copy_from(&source.address, source.port, expected, BUDGET, |_| ());
    assert_eq!(copy(None).await.unwrap_err().kind(), ErrorKind::Conflict, "it runs");
    let before = second.incarnation();
    let identifier = second.observe().await.unwrap().system_identifier.unwrap();
    second.stop(BUDGET, false).await.unwrap();
    let error = copy(Some(identifier ^ 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NeedsOperator);
    assert_eq!(second.incarnation(), before);
    assert!(!second.layout().data_new.exists());
    copy(Some(identifier)).await.unwrap();
    assert_ne!(second.incarnation(), before);
    assert!(second.layout().home.join("data.old-1/PG_VERSION").exists());
    match second.observe().await.unwrap().postgres {
        Postgres::Stopped(_) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_copy_begins_anew() {
    let Some(rig) = Rig::new(2).await else { return };
    rig.bootstrap().await;
    let (source, second) = (rig.config(0), &rig.nodes[1]);
    let (told, heard) = tokio::sync::oneshot::channel();
    let mut told = Some(told);
    let copy = second.copy_from(&source.address, source.port, None, BUDGET, move |_| {
        if let Some(told) = told.take() {
            told.send(()).unwrap();
        }
    });
    tokio::select! {
        biased;
        progress = heard => progress.unwrap(),
        result = copy => panic!("no progress was heard: {result:?}"),
    }
    // Nobody goes on with it, neither here nor there.
    assert_eq!(second.observe().await.unwrap().postgres, Postgres::Empty);
    let client = connect(&rig.nodes[0]).await;
    until("the end of the copy", || async {
        let row = client.query_one("SELECT count(*) FROM pg_stat_replication", &[]).await.ok()?;
        (row.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    assert!(second.layout().data_new.exists());
    rig.join(1, 0).await;
    assert!(!second.layout().data_new.exists());
    // What was a standby never becomes a primary without a timeline of its own.
    second.stop(BUDGET, false).await.unwrap();
    assert_eq!(second.start(Role::Primary, None).await.unwrap_err().kind(), ErrorKind::NeedsOperator);
}
