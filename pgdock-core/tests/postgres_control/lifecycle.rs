//! Start, stop, kill, and what stands in the way.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use pgdock_core::postgres::instance::Inspection;
use pgdock_core::view::Postgres;
use pgdock_core::{ErrorKind, Role};

use crate::support::{Rig, connect, primary, read, standby};

const BUDGET: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_comes_and_goes() {
    let Some(rig) = Rig::new(1).await else { return };
    let node = &rig.nodes[0];
    assert_eq!(node.observe().await.unwrap().postgres, Postgres::Empty);
    rig.bootstrap().await;
    let seen = primary(node, |_| true).await;
    assert_eq!(seen.timeline.0, 1);
    assert!(seen.names_settled && seen.names.count == 0);
    let exited = node.exited();
    node.stop(BUDGET, true).await.unwrap();
    tokio::time::timeout(BUDGET, exited).await.unwrap();
    match node.observe().await.unwrap().postgres {
        Postgres::Stopped(stopped) => {
            assert!(stopped.clean && stopped.was_primary);
            assert!(stopped.flushed >= seen.flushed && stopped.checkpoint >= seen.flushed);
            assert!(stopped.ended_at.is_some());
        }
        other => panic!("{other:?}"),
    }
    // In recovery, attached to nobody, at the end of all that it has.
    node.start(Role::Standby, None).await.unwrap();
    let seen = standby(node, |s| s.end_known).await;
    assert!(seen.detached && !seen.receiving && seen.upstream.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_stay_out_of_log_and_files_of_others() {
    let Some(rig) = Rig::new(1).await else { return };
    rig.bootstrap().await;
    let node = &rig.nodes[0];
    // What is done twice is as good as what is done once.
    node.ensure_roles().await.unwrap();
    let client = connect(node).await;
    let rows = client.query("SELECT rolname::text, rolpassword FROM pg_authid WHERE rolcanlogin", &[]).await.unwrap();
    assert_eq!(rows.len(), 5);
    for row in rows {
        let (name, verifier): (String, String) = (row.get(0), row.get(1));
        assert!(verifier.starts_with("SCRAM-SHA-256$"), "{name}");
    }
    let owner: String = client
        .query_one("SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = 'app'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(owner, "app \"owner\"");
    assert!(!read(&node.layout().log).contains("secret"));
    let secrets = std::fs::read_dir(&node.layout().secrets).unwrap();
    for file in secrets.map(|f| f.unwrap()) {
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", file.path());
    }
    assert!(!node.layout().secrets.join("superuser.pw").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_leaves_no_process() {
    let Some(rig) = Rig::new(1).await else { return };
    rig.bootstrap().await;
    let node = &rig.nodes[0];
    let client = connect(node).await;
    let busy = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(600)").await });
    let watcher = connect(node).await;
    crate::support::until("a busy backend", || async {
        let row =
            watcher.query_one("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'", &[]).await.ok()?;
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
    // A stopped postmaster passes no signal on, and its backends go on.
    let pid = read(&node.layout().data.join("postmaster.pid")).lines().next().unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let exited = node.exited();
    node.fence().await.unwrap();
    tokio::time::timeout(BUDGET, exited).await.unwrap();
    assert!(busy.await.unwrap().is_err());
    match node.observe().await.unwrap().postgres {
        Postgres::Stopped(stopped) => assert!(!stopped.clean && stopped.was_primary),
        other => panic!("{other:?}"),
    }
    // Nothing is left that hinders a start.
    node.start(Role::Primary, None).await.unwrap();
    primary(node, |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_adopted() {
    let Some(rig) = Rig::running(2).await else { return };
    let (first, second) = (rig.adopt(0), rig.adopt(1));
    let seen = primary(&first, |p| p.senders.values().any(|s| s.streaming)).await;
    assert_eq!(seen.senders.keys().collect::<Vec<_>>(), [&second.member().unwrap()]);
    assert_eq!(first.observe().await.unwrap().incarnation, rig.nodes[0].incarnation());
    let seen = standby(&second, |s| s.receiving && s.heard_at.is_some()).await;
    assert_eq!(seen.upstream.as_ref(), Some(&first.config().node));
    let exited = first.exited();
    first.fence().await.unwrap();
    tokio::time::timeout(BUDGET, exited).await.unwrap();
    standby(&second, |s| !s.receiving).await;
    second.stop(BUDGET, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_told() {
    let Some(rig) = Rig::new(1).await else { return };
    let (node, config) = (&rig.nodes[0], rig.config(0));
    node.initdb().await.unwrap();
    let _taken = std::net::TcpListener::bind((config.address.as_str(), config.port)).unwrap();
    let error = node.start(Role::Primary, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", error.chain());
    let text = error.to_string();
    assert!(text.contains("postgres.port") && text.contains(&config.port.to_string()), "{text}");
    assert!(!error.hints().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_setting_is_told() {
    let Some(rig) = Rig::new(1).await else { return };
    rig.nodes[0].initdb().await.unwrap();
    let mut config = rig.config(0).clone();
    config.settings.insert("shared_bufers".into(), "1GB".into());
    let error = crate::support::instance(&config).start(Role::Primary, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("shared_bufers"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_left_alone() {
    let Some(rig) = Rig::new(1).await else { return };
    let node = &rig.nodes[0];
    let data = &node.layout().data;
    std::fs::create_dir(data).unwrap();
    assert_eq!(node.inspect().await.unwrap(), Inspection::Empty);
    std::fs::write(data.join("thesis.txt"), "my only copy").unwrap();
    let reason = |inspection| match inspection {
        Inspection::Unusable { reason } => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(node.inspect().await.unwrap()).contains("not a data directory"));
    assert_eq!(node.initdb().await.unwrap_err().kind(), ErrorKind::Conflict);
    std::fs::write(data.join("PG_VERSION"), "9.6\n").unwrap();
    let text = reason(node.inspect().await.unwrap());
    assert!(text.contains("another major version") && text.contains("9.6"), "{text}");
    assert!(matches!(node.observe().await.unwrap().postgres, Postgres::Unusable { .. }));
    assert_eq!(node.start(Role::Standby, None).await.unwrap_err().kind(), ErrorKind::NotReady);
    assert_eq!(read(&data.join("thesis.txt")), "my only copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_paths_are_quoted() {
    let folder = format!("it's a \"näme\", \\ {}", "long ".repeat(15));
    let Some(rig) = Rig::below(2, &folder).await else { return };
    rig.bootstrap().await;
    rig.join(1, 0).await;
    let seen = primary(&rig.nodes[0], |p| p.senders.values().any(|s| s.streaming)).await;
    assert_eq!(seen.senders.len(), 1);
}
