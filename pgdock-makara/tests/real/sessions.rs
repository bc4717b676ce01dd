//! Sessions that read what they wrote from a standby that has replayed it.

use std::time::Duration;

use pgdock_makara::{CommitToken, Error, Router, Session, Sticky, on_primary, without_sticking};
use tokio::time::timeout;
use tokio_postgres::NoTls;

use super::cluster::{Cluster, HOSTS};
use super::{PATIENCE, answered_by, both_known, router, until_answered_by};

const TTL: Duration = Duration::from_secs(60);
const COUNT: &str = "select current_setting('listen_addresses'), count(*) from t";

#[tokio::test]
async fn a_session_reads_from_a_standby_that_has_replayed_what_it_wrote() {
    let Some(cluster) = Cluster::start() else { return };
    let [primary, standby] = HOSTS;
    let lsn = |wait| Sticky::Lsn { ttl: TTL, wait };
    let waits = router(&cluster, |builder| builder.id("waits").sticky(lsn(PATIENCE)));
    let hurries = router(&cluster, |builder| builder.id("hurries").sticky(lsn(Duration::ZERO)));
    both_known(&waits).await;
    both_known(&hurries).await;
    let (replay, connection) = cluster.address(1).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    // A table that a standby does not have yet is waited for as well.
    for table in ["t", "t1", "t2", "t3"] {
        Session::new()
            .scope(async {
                waits.execute(&format!("create table {table} (a int)"), &[]).await.unwrap();
                let count = format!("select count(*) from {table}");
                assert_eq!(waits.query_one(&count, &[]).await.unwrap().get::<_, i64>(0), 0);
            })
            .await;
    }

    // Every read sees the write before it, and comes from the standby.
    let session = Session::new();
    for written in 1..=50_i64 {
        session
            .scope(async {
                waits.execute("insert into t values (1)", &[]).await.unwrap();
                let row = waits.query_one(COUNT, &[]).await.unwrap();
                assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), (standby, written));
            })
            .await;
    }

    // All of this is for any user: nothing that the router asks needs a right of its own.
    waits.batch_execute("create role plain login; grant all on t to plain").await.unwrap();
    let plain = |node: usize| {
        let mut address = cluster.address(node);
        address.user("plain");
        address
    };
    let app = Router::builder().node("n1", plain(0), 1).node("n2", plain(1), 1).sticky(lsn(PATIENCE));
    let app = app.build(NoTls).unwrap();
    both_known(&app).await;
    let session = Session::new();
    session
        .scope(async {
            app.execute("insert into t values (1)", &[]).await.unwrap();
            let row = app.query_one(COUNT, &[]).await.unwrap();
            assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), (standby, 51));
        })
        .await;
    app.execute("delete from t where ctid = (select max(ctid) from t)", &[]).await.unwrap();

    // While it does not replay, nobody who wrote reads from it, and everybody else does.
    replay.batch_execute("select pg_wal_replay_pause()").await.unwrap();
    let paused = async {
        let state = "select pg_get_wal_replay_pause_state()";
        while replay.query_one(state, &[]).await.unwrap().get::<_, &str>(0) != "paused" {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, paused).await.unwrap();
    let session = Session::new();
    session
        .scope(async {
            hurries.execute("insert into t values (2)", &[]).await.unwrap();
            for _ in 0..5 {
                let row = hurries.query_one(COUNT, &[]).await.unwrap();
                assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), (primary, 51));
            }
            assert_eq!(without_sticking(answered_by(&hurries)).await, standby);
            without_sticking(async {
                hurries.execute("insert into t values (3)", &[]).await.unwrap();
            })
            .await;
        })
        .await;
    assert!(hurries.stats().behind >= 5, "{:?}", hurries.stats());
    assert_eq!(answered_by(&hurries).await, standby, "another session is free");
    assert_eq!(on_primary(answered_by(&hurries)).await, primary);
    let transaction = session.scope(hurries.transaction().read_only(true).start()).await.unwrap();
    assert_eq!(transaction.node(), "n1", "a transaction too reads what was written");
    transaction.commit().await.unwrap();

    // What was written travels: to another session, which waits for it.
    let token = session.token("hurries").expect("the session knows what it wrote");
    let text = token.to_string();
    let receiver = Session::new();
    receiver.require("waits", text.parse().unwrap(), TTL);
    let waiting = tokio::spawn({
        let (waits, receiver) = (waits.clone(), receiver.clone());
        async move { receiver.scope(waits.query_one(COUNT, &[])).await }
    });
    let behind = async {
        while waits.stats().behind == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, behind).await.expect("it has to wait");
    replay.batch_execute("select pg_wal_replay_resume()").await.unwrap();
    let row = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(row.get::<_, &str>(0), standby);
    assert!(row.get::<_, i64>(1) >= 51);

    // The next request goes on where this one ended.
    let memory = session.commit().expect("there is something to remember");
    let resumed = Session::resumed(memory);
    resumed.scope(until_answered_by(&hurries, standby)).await;

    // A position of another reign, or cluster, says nothing of this one.
    for foreign in
        [CommitToken { timeline: token.timeline + 1, ..token }, CommitToken { system: token.system ^ 1, ..token }]
    {
        let session = Session::new();
        session.require("waits", foreign, TTL);
        assert_eq!(session.scope(answered_by(&waits)).await, primary, "{foreign}");
    }
    assert_eq!(waits.stats().stale_tokens, 2);
    let now = waits.position().await.unwrap();
    assert!((now.system, now.timeline) == (token.system, token.timeline) && now.lsn >= token.lsn);
}

#[tokio::test]
async fn a_write_that_failed_or_was_given_up_sticks_to_the_primary() {
    let Some(cluster) = Cluster::start() else { return };
    let [primary, standby] = HOSTS;
    let router = router(&cluster, |builder| builder.sticky(Sticky::Lsn { ttl: TTL, wait: PATIENCE }));
    both_known(&router).await;
    router.execute("create table t (a int primary key)", &[]).await.unwrap();

    let session = Session::new();
    session
        .scope(async {
            // It may have had an effect all the same, by a function that is not undone.
            router.execute("insert into nowhere values (1)", &[]).await.unwrap_err();
            assert_eq!(answered_by(&router).await, primary);
        })
        .await;

    let session = Session::new();
    session
        .scope(async {
            let sleeps = router.execute("insert into t select 1 from pg_sleep(600)", &[]);
            assert!(timeout(Duration::from_millis(200), sleeps).await.is_err(), "given up");
            assert_eq!(answered_by(&router).await, primary);
            session.release("default");
            assert_eq!(answered_by(&router).await, standby);
        })
        .await;
    let refused = router.within(Duration::from_millis(200));
    let late = refused.execute("insert into t select 1 from pg_sleep(600)", &[]).await.unwrap_err();
    assert!(matches!(&late, Error::OutcomeUnknown { node, cause: None } if node == "n1"), "{late:?}");
    let late = refused.query("select pg_sleep(600)", &[]).await.unwrap_err();
    assert!(matches!(late, Error::Timeout { .. }) && late.had_no_effect() && late.is_retryable(), "{late:?}");
}
