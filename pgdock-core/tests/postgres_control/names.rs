//! `synchronous_standby_names` and barriers.

use std::time::Duration;

use pgdock_core::view::Names;
use pgdock_core::{ErrorKind, Role};

use crate::support::{Rig, app, connect, names, node, primary, read, standby, until};

/// Waits until a backend waits for a standby.
async fn somebody_waits(client: &tokio_postgres::Client) {
    until("a commit that waits", || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        (client.query_one(sql, &[]).await.ok()?.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_settle_and_commits_wait() {
    let Some(rig) = Rig::running(3).await else { return };
    let [first, second, third] = &rig.nodes[..] else { unreachable!() };
    let seen = primary(first, |p| p.senders.len() == 2).await;
    assert!(seen.names_settled);

    let mut barrier = None;
    for wanted in [names(1, &[second]), names(2, &[second, third]), names(1, &[second, third]), names(1, &[third])] {
        first.set_names(&wanted).await.unwrap();
        let seen = primary(first, |_| true).await;
        assert_eq!((&seen.names, seen.names_settled), (&wanted, true));
        let lsn = first.take_barrier(barrier.is_none()).await.unwrap();
        assert!(barrier < Some(lsn));
        barrier = Some(lsn);
        primary(first, |p| p.senders.values().all(|s| s.flushed >= lsn)).await;
    }
    // The sync standby gone, a commit waits, while pgdock's own work goes on.
    third.stop(Duration::from_secs(20), false).await.unwrap();
    let client = connect(first).await;
    let writer = connect(first).await;
    let write = tokio::spawn(async move { writer.batch_execute("CREATE TABLE t (i int)").await });
    somebody_waits(&client).await;
    first.ensure_roles().await.unwrap();
    first.take_barrier(false).await.unwrap();
    first.set_names(&Names::none()).await.unwrap();
    write.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_primary_settles_anew_and_nobody_means_nobody() {
    let Some(rig) = Rig::running(2).await else { return };
    rig.nodes[0].set_names(&names(1, &[&rig.nodes[1]])).await.unwrap();
    let first = rig.adopt(0);
    let seen = primary(&first, |_| true).await;
    assert!(!seen.names_settled, "who did not see it happen cannot know");
    first.set_names(&seen.names).await.unwrap();
    assert!(primary(&first, |_| true).await.names_settled);
    // Nobody in the set, and one must have it: every commit waits.
    let blocked = Names { members: Default::default(), count: 1 };
    first.set_names(&blocked).await.unwrap();
    let seen = primary(&first, |_| true).await;
    assert_eq!((seen.names, seen.names_settled), (blocked, true));
    let (client, writer) = (connect(&first).await, connect(&first).await);
    let write = tokio::spawn(async move { writer.batch_execute("CREATE TABLE t (i int)").await });
    somebody_waits(&client).await;
    write.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_alter_system_do_not_count() {
    let Some(rig) = Rig::new(1).await else { return };
    rig.bootstrap().await;
    let first = &rig.nodes[0];
    let client = connect(first).await;
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    primary(first, |p| !p.names_settled).await;
    first.reload().await.unwrap();
    primary(first, |p| p.names_settled && p.names == Names::none()).await;
    assert!(!read(&first.layout().data.join("postgresql.auto.conf")).contains('*'));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_commit_of_a_reign_waits() {
    let Some(rig) = Rig::running(2).await else { return };
    let (first, second) = (&rig.nodes[0], &rig.nodes[1]);
    second.detach().await.unwrap();
    first.fence().await.unwrap();
    second.promote(&names(1, &[first]), None).await.unwrap();
    let (client, writer) = (connect(second).await, connect(second).await);
    let write = tokio::spawn(async move { writer.batch_execute("CREATE TABLE t (i int)").await });
    somebody_waits(&client).await;
    write.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_streams_from_it_in_recovery_confirms_from_its_first_commit_on() {
    let Some(rig) = Rig::running(3).await else { return };
    let [first, second, third] = &rig.nodes[..] else { unreachable!() };
    // As where a leader starts again in recovery, and its standby is back before it is promoted.
    second.sync_slots(&[node(3).slot()].into()).await.unwrap();
    third.detach().await.unwrap();
    third.attach(&node(2)).await.unwrap();
    standby(third, |s| s.receiving && s.upstream == Some(node(2))).await;
    second.detach().await.unwrap();
    first.fence().await.unwrap();
    let wanted = names(1, &[third]);
    second.promote(&wanted, None).await.unwrap();
    let seen = primary(second, |p| p.names_settled && p.senders.values().any(|s| s.streaming)).await;
    assert_eq!(seen.names, wanted);
    let (client, writer) = (connect(second).await, connect(second).await);
    writer.batch_execute("CREATE TABLE t (i int)").await.unwrap();
    third.stop(Duration::from_secs(20), false).await.unwrap();
    let write = tokio::spawn(async move { writer.batch_execute("INSERT INTO t VALUES (1)").await });
    somebody_waits(&client).await;
    write.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_come_in_when_they_are_let_in() {
    let Some(rig) = Rig::running(2).await else { return };
    let (first, second) = (&rig.nodes[0], &rig.nodes[1]);
    first.admit_clients().await.unwrap();
    primary(first, |p| !p.closed).await;
    let client = app(first).await.unwrap();
    first.set_names(&names(1, &[second])).await.unwrap();
    first.fence().await.unwrap();
    assert!(client.batch_execute("SELECT 1").await.is_err());

    first.start(Role::Primary, None).await.unwrap();
    // Standbys get in, and so does pgdock; a reload by an operator changes nothing.
    primary(first, |p| p.closed && p.senders.values().any(|s| s.streaming)).await;
    first.reload().await.unwrap();
    let refused = app(first).await.err().unwrap();
    assert!(refused.as_db_error().is_some_and(|e| e.message().contains("rejects connection")), "{refused:?}");
    // Nor does it to who takes control of it meanwhile.
    let adopted = rig.adopt(0);
    adopted.prepare().await.unwrap();
    primary(&adopted, |p| p.closed).await;
    first.admit_clients().await.unwrap();
    primary(first, |p| !p.closed).await;
    app(first).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_with_members_in_its_names_ends_clients_sessions() {
    let Some(rig) = Rig::running(2).await else { return };
    let (first, second) = (&rig.nodes[0], &rig.nodes[1]);
    let reader = app(second).await.unwrap();
    reader.batch_execute("SELECT 1").await.unwrap();
    second.detach().await.unwrap();
    first.fence().await.unwrap();
    second.promote(&names(1, &[first]), None).await.unwrap();
    primary(second, |p| p.closed).await;
    assert!(reader.batch_execute("SELECT 1").await.is_err());
    assert!(app(second).await.is_err());
    second.admit_clients().await.unwrap();
    app(second).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_postgresql_refuses_is_told_before_clients_are_let_in() {
    let Some(rig) = Rig::new(1).await else { return };
    rig.bootstrap().await;
    let mut config = rig.config(0).clone();
    config.hba = vec!["hostssl all all 10.0.0.0/99 scram-sha-256".into()];
    let first = crate::support::instance(&config);
    let error = first.admit_clients().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.chain());
    assert!(error.to_string().contains("postgres.hba") && !error.hints().is_empty(), "{error}");
    assert!(primary(&first, |_| true).await.closed);
    rig.nodes[0].admit_clients().await.unwrap();
    primary(&first, |p| !p.closed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lowers_synchronous_commit_is_told_of() {
    let Some(rig) = Rig::new(1).await else { return };
    rig.bootstrap().await;
    let node = &rig.nodes[0];
    until("it was looked for", async || node.early_commits()).await;
    assert_eq!(node.early_commits().as_deref(), Some(&[][..]));

    let client = connect(node).await;
    for statement in [
        "CREATE ROLE \"Quick\"",
        "CREATE ROLE careful",
        "ALTER ROLE careful SET synchronous_commit = remote_apply",
        "ALTER ROLE careful SET work_mem = '8MB'",
        "ALTER ROLE \"Quick\" SET synchronous_commit = off",
        "ALTER ROLE \"Quick\" IN DATABASE app SET synchronous_commit = FALSE",
        "ALTER DATABASE app SET synchronous_commit = local",
        "ALTER ROLE ALL SET synchronous_commit = remote_write",
        "ALTER SYSTEM SET synchronous_commit = off",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    let told = until("all are told", async || node.early_commits().filter(|told| told.len() >= 5)).await;
    let expected = [
        "all roles (ALTER SYSTEM)=off",
        "all roles=remote_write",
        "database app=local",
        "role \"Quick\" in database app=false",
        "role \"Quick\"=off",
    ];
    assert_eq!(told.iter().collect::<std::collections::BTreeSet<_>>(), expected.map(String::from).iter().collect());
}
