//! Connections that are lent out: what is given up on them, streamed over them, and left behind.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use pgdock_makara::{Error, Heard, Reason, Target};
use tokio::time::timeout;
use tokio_postgres::NoTls;
use tokio_postgres::types::Type;

use super::cluster::{Cluster, HOSTS};
use super::{PATIENCE, answered_by, both_known, router, rows};

#[tokio::test]
async fn nothing_of_one_borrower_reaches_the_next() {
    let Some(cluster) = Cluster::start() else { return };
    let [_, standby] = HOSTS;
    // One connection: whatever was left on it would be met.
    let router = router(&cluster, |builder| builder.pool_size(1));
    both_known(&router).await;
    router.execute("create table t (a int)", &[]).await.unwrap();
    let (admin, connection) = cluster.address(1).connect(NoTls).await.unwrap();
    tokio::spawn(connection);

    // A read that is given up is cancelled on its server.
    let sleeps = router.query("select pg_sleep(600)", &[]);
    assert!(timeout(Duration::from_millis(200), sleeps).await.is_err());
    let cancelled = async {
        let running = "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
        while admin.query_one(running, &[]).await.unwrap().get::<_, i64>(0) > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, cancelled).await.expect("the server does not go on with it");
    assert_eq!(answered_by(&router).await, standby);

    // State that a borrower leaves behind is gone.
    let client = router.get(Target::Primary).await.unwrap();
    assert_eq!(client.node(), "n1");
    let leaves = "begin; create temp table mine (a int); set work_mem = '77MB'; insert into t values (1)";
    client.batch_execute(leaves).await.unwrap();
    assert!(client.is_confirmed());
    drop(client);
    let next = router.get(Target::Primary).await.unwrap();
    let state = "select current_setting('work_mem'), pg_my_temp_schema()::int8, (select count(*) from t), \
                 pg_current_xact_id_if_assigned() is null";
    let row = next.query_one(state, &[]).await.unwrap();
    assert_ne!(row.get::<_, &str>(0), "77MB");
    assert_eq!((row.get::<_, i64>(2), row.get::<_, bool>(3)), (0, true), "neither its rows nor its transaction");
    assert!(next.query_one("select * from mine", &[]).await.is_err());
    drop(next);
    assert_eq!(router.get(Target::Replica).await.unwrap().node(), "n2");
    assert!(matches!(router.get(Target::All).await, Err(Error::Settings(_))));

    // A stream owns its connection until its end, and one that is dropped before leaves nothing either.
    let series = "select a from generate_series(1, $1) a";
    let stream = router.query_raw(series, &[100_000_i32]).await.unwrap();
    assert_eq!(stream.node(), "n2");
    let sum = stream.try_fold(0, |sum, row| std::future::ready(Ok(sum + i64::from(row.get::<_, i32>(0)))));
    assert_eq!(sum.await.unwrap(), 5_000_050_000);
    let mut stream = router.query_raw(series, &[10_000_000_i32]).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().get::<_, i32>(0), 1);
    drop(stream);
    assert_eq!(answered_by(&router).await, standby);
    let failing = router.query_raw("select 1 / (3 - a) from generate_series(1, 9) a", &[] as &[i32]).await.unwrap();
    assert!(matches!(failing.try_collect::<Vec<_>>().await, Err(Error::Postgres(_))));
    let stuck = router.within(Duration::from_millis(300));
    let stuck =
        stuck.query_raw("select a, case when a = 2 then pg_sleep(600) end from generate_series(1, 3) a", &[] as &[i32]);
    let stuck: Result<Vec<_>, _> = match stuck.await {
        Ok(stream) => stream.try_collect().await,
        Err(error) => Err(error),
    };
    assert!(matches!(stuck, Err(Error::Timeout { .. })));

    // Copies.
    let mut copy = router.copy_in("copy t from stdin").await.unwrap();
    for line in ["1\n2\n", "3\n"] {
        copy.send(Bytes::from_static(line.as_bytes())).await.unwrap();
    }
    assert_eq!(copy.finish().await.unwrap(), 3);
    let mut dropped = router.copy_in("copy t from stdin").await.unwrap();
    dropped.send(Bytes::from_static(b"4\n")).await.unwrap();
    drop(dropped);
    let mut wrong = router.copy_in("copy t from stdin").await.unwrap();
    wrong.send(Bytes::from_static(b"four\n")).await.unwrap();
    assert!(matches!(wrong.finish().await, Err(Error::Postgres(_))));
    assert_eq!(rows(&router).await, 3);
    let copied = async {
        loop {
            let copy = router.copy_out("copy (select * from t order by a) to stdout").await.unwrap();
            let pieces: Vec<Bytes> = copy.try_collect().await.unwrap();
            if pieces.concat() == b"1\n2\n3\n" {
                return;
            }
        }
    };
    timeout(PATIENCE, copied).await.expect("the standby has it at last");
}

#[tokio::test]
async fn statements_are_prepared_on_whichever_connection_runs_them() {
    let Some(cluster) = Cluster::start() else { return };
    let router = router(&cluster, |builder| builder.pool_size(1));
    both_known(&router).await;
    router.batch_execute("create table t (a int, b text); insert into t values (1, 'x')").await.unwrap();

    let insert = router.prepare("insert into t values ($1, $2)", &[]).await.unwrap();
    assert_eq!((insert.params(), insert.decision().target), (&[Type::INT4, Type::TEXT][..], Target::Primary));
    assert_eq!(router.execute(&insert, &[&2, &"y"]).await.unwrap(), 1);
    let read = router.prepare("select $1 || 'b'", &[Type::TEXT]).await.unwrap();
    assert_eq!(read.columns()[0].1, Type::TEXT);
    assert_eq!(router.query_one(&read, &[&"a"]).await.unwrap().get::<_, &str>(0), "ab");
    assert!(matches!(router.prepare("select nothing", &[]).await, Err(Error::Postgres(_))));
    assert!(matches!(router.prepare("begin", &[]).await, Err(Error::Pinned(Reason::Transaction))));

    // A table that changes under what is prepared is no error of the caller's.
    let all = "/* pgdock: primary */ select * from t order by a";
    assert_eq!(router.query(all, &[]).await.unwrap()[0].len(), 2);
    router.execute("alter table t add column c int", &[]).await.unwrap();
    assert_eq!(router.query(all, &[]).await.unwrap()[0].len(), 3);

    assert!(matches!(router.query_one("select 1 where false", &[]).await, Err(Error::RowCount { found: 0 })));
    assert!(matches!(router.query_opt("values (1), (2)", &[]).await, Err(Error::RowCount { found: 2 })));
    assert!(router.query_opt("select 1 where false", &[]).await.unwrap().is_none());

    // Texts that are none reach the server that can say so, and harm nobody.
    let long = format!("select '{}'", "x".repeat(1 << 20));
    assert_eq!(router.query_one(&long, &[]).await.unwrap().get::<_, &str>(0).len(), 1 << 20);
    for sql in ["select 'open", "select (1", "/* open", "select 1 $a$", "\"", "select \u{0} 1", "frobnicate"] {
        let error = router.query(sql, &[]).await.unwrap_err();
        assert!(error.had_no_effect(), "{sql:?}: {error:?}");
    }
    answered_by(&router).await;
}

#[tokio::test]
async fn listening_goes_on_after_the_server_is_lost() {
    let Some(cluster) = Cluster::start() else { return };
    let router = router(&cluster, |builder| builder);
    both_known(&router).await;
    let mut heard = router.listen(&["plain", "odd \" name"]);
    let mut next = async || timeout(PATIENCE, heard.next()).await.expect("something is heard").unwrap();
    let notification =
        |channel: &str, payload: &str| Heard::Notification { channel: channel.to_owned(), payload: payload.to_owned() };
    assert_eq!(next().await, Heard::Listening { node: "n1".to_owned() });
    for (channel, payload) in [("plain", "1"), ("odd \" name", "2")] {
        router.execute("select pg_notify($1, $2)", &[&channel, &payload]).await.unwrap();
        assert_eq!(next().await, notification(channel, payload));
    }
    // The backend is gone, the server is not.
    let kill = "/* pgdock: primary */ select count(pg_terminate_backend(pid)) from pg_stat_activity where query like 'LISTEN%'";
    assert_eq!(router.query_one(kill, &[]).await.unwrap().get::<_, i64>(0), 1);
    assert_eq!(next().await, Heard::Listening { node: "n1".to_owned() });
    cluster.stop(0);
    cluster.promote(1);
    assert_eq!(next().await, Heard::Listening { node: "n2".to_owned() });
    router.execute("select pg_notify('plain', '3')", &[]).await.unwrap();
    assert_eq!(next().await, notification("plain", "3"));
}
