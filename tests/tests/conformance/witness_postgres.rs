//! The PostgreSQL witness on a real server.

use std::sync::Arc;
use std::time::Duration;

use pgdock_core::ErrorKind;
use pgdock_core::clock::SystemClock;
use pgdock_core::witness::postgres::PostgresConfig;
use pgdock_core::witness::probe::scratch_record;
use pgdock_core::witness::{FaultyWitness, PostgresWitness, Record, Swap, Witness, conformance, fresh_nonce, probe};
use pgdock_tests::stores::TestPostgres;
use secrecy::SecretString;

#[tokio::test(flavor = "multi_thread")]
async fn postgres_conforms() {
    let Some(server) = TestPostgres::start(201).await else { return };
    conformance::run(async || server.fresh(1)).await;
    conformance::run(async || server.fresh(3)).await;
    assert!(probe(server.fresh(1)[0].as_ref(), &SystemClock).await.passed());
    conformance::run(async || {
        let faulty = FaultyWitness::new(server.fresh(1).remove(0), 1);
        let faulty = faulty.lose_requests(0.1).lose_answers(0.15).land_late(0.15, 6);
        vec![Arc::new(faulty.delay(0.1, Duration::from_millis(1))) as Arc<dyn Witness>]
    })
    .await;
}

fn ambiguous(swap: Swap) -> pgdock_core::Error {
    match swap {
        Swap::Ambiguous(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_is_passed_on() {
    let Some(server) = TestPostgres::start(202).await else { return };
    let witness = PostgresWitness::new(server.config("shop"));

    // Where the table may not be made, it is said how to make it.
    server.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE poor LOGIN PASSWORD 'hunter2'").await;
    let poor =
        PostgresConfig { user: "poor".into(), password: Some(SecretString::from("hunter2")), ..server.config("shop") };
    let poor = PostgresWitness::new(poor);
    assert!(poor.read().await.unwrap().is_none(), "no table, no document");
    let error = ambiguous(poor.compare_and_swap(&scratch_record(0), None).await);
    assert_eq!((error.kind(), error.outcome_known()), (ErrorKind::Invalid, true), "{}", error.chain());
    let hint = error.hints().join("\n");
    assert!(hint.contains("CREATE TABLE") && hint.contains("ON pgdock_witness TO \"poor\";"), "{hint}");
    let (_, sql) = hint.split_once("run there: ").unwrap();
    server.sql(sql).await;
    let swap = poor.compare_and_swap(&scratch_record(0), None).await;
    assert!(matches!(swap, Swap::Committed(_)), "{swap:?}");
    assert!(!format!("{poor:?} {}", error.chain()).contains("hunter2"));

    // A server that is one of the cluster's own.
    server.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON pgdock_witness TO app; DELETE FROM pgdock_witness").await;
    let own = Record { system_identifier: server.system_identifier().await, ..scratch_record(0) };
    let error = ambiguous(witness.compare_and_swap(&own, None).await);
    assert_eq!((error.kind(), error.outcome_known()), (ErrorKind::NeedsOperator, true), "{}", error.chain());
    assert!(error.to_string().contains("a member of the cluster itself"), "{error}");
    assert!(witness.read().await.unwrap().is_none(), "it was written all the same");

    // Wrong credentials, another database, nobody there, no TLS asked for where it is demanded.
    let wrong = |change: &dyn Fn(&mut PostgresConfig)| {
        let mut config = server.config("shop");
        change(&mut config);
        PostgresWitness::new(config)
    };
    for (witness, kind) in [
        (wrong(&|c| c.password = Some(SecretString::from("hunter2"))), ErrorKind::Invalid),
        (wrong(&|c| c.database = "nowhere".into()), ErrorKind::Invalid),
        (wrong(&|c| c.port = 1), ErrorKind::Unavailable),
        (wrong(&|c| c.host = "localhost".into()), ErrorKind::Unavailable),
    ] {
        let error = witness.read().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.chain());
        let error = ambiguous(witness.compare_and_swap(&scratch_record(0), None).await);
        assert!(error.outcome_known() && !error.chain().contains("hunter2"), "{}", error.chain());
    }
    assert!(wrong(&|c| c.tls = None).read().await.is_err());
}

/// Somebody holds the row: the swap may go through once he lets go, and nobody waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_leaves_the_outcome_open() {
    let Some(server) = TestPostgres::start(203).await else { return };
    let row = fresh_nonce();
    let witness = PostgresWitness::new(server.config(&row)).timeout(Duration::from_millis(500));
    let Swap::Committed(version) = witness.compare_and_swap(&scratch_record(0), None).await else { panic!() };
    let holder = tokio::spawn({
        let sql =
            format!("BEGIN; SELECT FROM pgdock_witness WHERE cluster = '{row}' FOR UPDATE; SELECT pg_sleep(3); COMMIT");
        let server = Arc::new(server);
        let held = Arc::clone(&server);
        async move {
            held.sql(&sql).await;
            server
        }
    });
    let mut heartbeat = 0;
    let mut version = version;
    let error = loop {
        heartbeat += 1;
        // Until the holder has come to it.
        match witness.compare_and_swap(&scratch_record(heartbeat), Some(&version)).await {
            Swap::Committed(next) => version = next,
            Swap::Conflict => panic!("nobody else writes"),
            Swap::Ambiguous(error) => break error,
        }
    };
    assert!(!error.outcome_known() && error.kind() == ErrorKind::Unavailable, "{}", error.chain());
    let server = holder.await.unwrap();
    assert!(witness.read().await.unwrap().is_some(), "after that it answers again");
    server.sql("ALTER SYSTEM SET fsync = off").await;
    server.sql("SELECT pg_reload_conf()").await;
    // The reload takes a moment, and a connection that there is keeps what it was made with.
    let error = loop {
        if let Err(error) = PostgresWitness::new(server.config(&row)).read().await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::NeedsOperator, "{}", error.chain());
}
