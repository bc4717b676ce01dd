//! Transactions whose end is known.

use std::sync::atomic::{AtomicU32, Ordering};

use pgdock_makara::{Error, Reason, Session, Sticky};
use tokio::time::timeout;
use tokio_postgres::{IsolationLevel, NoTls};

use super::cluster::{Cluster, HOSTS};
use super::{PATIENCE, answered_by, both_known, router, rows};

#[tokio::test]
async fn transactions_end_as_they_say() {
    let Some(cluster) = Cluster::start() else { return };
    let ttl = std::time::Duration::from_secs(60);
    let router = router(&cluster, |builder| builder.pool_size(2).sticky(Sticky::Lsn { ttl, wait: PATIENCE }));
    both_known(&router).await;
    router.execute("create table t (a int unique deferrable initially deferred)", &[]).await.unwrap();

    let session = Session::new();
    session
        .scope(async {
            let transaction = router.transaction().start().await.unwrap();
            transaction.query("select 1", &[]).await.unwrap();
            assert_eq!(transaction.commit().await.unwrap(), None, "it wrote nothing");
            assert_eq!(session.token("default"), None);
            let transaction =
                router.transaction().isolation_level(IsolationLevel::RepeatableRead).start().await.unwrap();
            assert_eq!(transaction.node(), "n1");
            transaction.execute("insert into t values (1)", &[]).await.unwrap();
            let inner = transaction.query_one("select count(*) from t", &[]).await.unwrap();
            assert_eq!(inner.get::<_, i64>(0), 1);
            let token = transaction.commit().await.unwrap();
            assert!(token.is_some());
            assert_eq!(session.token("default"), token);
            assert_eq!(answered_by(&router).await, HOSTS[1], "the standby, which has it");
        })
        .await;
    assert_eq!(rows(&router).await, 1);

    // PostgreSQL answers the COMMIT of a failed transaction with a success that is none.
    let transaction = router.transaction().start().await.unwrap();
    transaction.execute("insert into t values (2)", &[]).await.unwrap();
    transaction.query("select 1 / 0", &[]).await.unwrap_err();
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, Error::RolledBack) && error.had_no_effect(), "{error:?}");

    // A constraint that is checked at the end.
    let transaction = router.transaction().start().await.unwrap();
    transaction.execute("insert into t values (1)", &[]).await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    assert_eq!(error.sqlstate().map(tokio_postgres::error::SqlState::code), Some("23505"), "{error:?}");

    // What is dropped is undone, and its connection serves the next: there are two in all.
    for _ in 0..5 {
        let transaction = router.transaction().start().await.unwrap();
        transaction.execute("insert into t values (3)", &[]).await.unwrap();
    }
    // What ends it goes by the methods for that.
    let transaction = router.transaction().start().await.unwrap();
    for sql in ["commit", "rollback", "begin"] {
        let error = transaction.simple_query(sql).await.unwrap_err();
        assert!(matches!(error, Error::Pinned(Reason::Transaction)), "{error:?}");
    }
    transaction.simple_query("savepoint a; insert into t values (4); rollback to a").await.unwrap();
    transaction.execute("insert into t values (5)", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(rows(&router).await, 2);

    // One that only reads may be anywhere, but for the one kind that a standby does not have.
    let reads = router.transaction().read_only(true).start().await.unwrap();
    assert_eq!(reads.node(), "n2");
    reads.query("select count(*) from t", &[]).await.unwrap();
    let refused = reads.execute("insert into t values (6)", &[]).await.unwrap_err();
    assert_eq!(refused.sqlstate().map(tokio_postgres::error::SqlState::code), Some("25006"));
    reads.rollback().await.unwrap();
    let serializable = router.transaction().read_only(true).isolation_level(IsolationLevel::Serializable);
    assert_eq!(serializable.deferrable(true).start().await.unwrap().node(), "n1");

    // What cannot be serialized is run again, and nothing else is.
    let tries = AtomicU32::new(0);
    let run = router.transaction().isolation_level(IsolationLevel::RepeatableRead).run(async |transaction| {
        let attempt = tries.fetch_add(1, Ordering::Relaxed);
        transaction.execute("insert into t values (7)", &[]).await?;
        if attempt < 2 {
            transaction.execute("do $$ begin raise exception using errcode = '40001'; end $$", &[]).await?;
        }
        Ok(attempt)
    });
    assert_eq!(timeout(PATIENCE, run).await.unwrap().unwrap(), 2);
    let failing = router.transaction().run(async |transaction| transaction.query("select * from nowhere", &[]).await);
    assert!(matches!(failing.await, Err(Error::Postgres(_))));
    assert_eq!(rows(&router).await, 3);
}

#[tokio::test]
async fn a_commit_that_loses_its_primary_is_unknown() {
    let Some(cluster) = Cluster::start() else { return };
    let router = router(&cluster, |builder| builder);
    both_known(&router).await;
    // A trigger that runs at the commit, and waits there.
    let schema = "create table t (a int);
        create function waits() returns trigger language plpgsql as 'begin perform pg_advisory_lock(7); return null; end';
        create constraint trigger waits after insert on t deferrable initially deferred
            for each row execute function waits();";
    let (admin, connection) = cluster.address(0).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    admin.batch_execute(schema).await.unwrap();
    admin.batch_execute("select pg_advisory_lock(7)").await.unwrap();

    // Lost before its commit was sent: it never happened.
    let early = router.transaction().start().await.unwrap();
    early.execute("insert into t values (1)", &[]).await.unwrap();
    let commits = router.transaction().start().await.unwrap();
    commits.execute("insert into t values (2)", &[]).await.unwrap();
    let commits = tokio::spawn(commits.commit());
    let waits = async {
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        while admin.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, waits).await.expect("the commit is under way");
    cluster.stop(0);
    let error = timeout(PATIENCE, commits).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(&error, Error::OutcomeUnknown { node, .. } if node == "n1"), "{error:?}");
    let error = early.execute("insert into t values (3)", &[]).await.unwrap_err();
    assert!(matches!(&error, Error::NoConnection { .. }) && error.had_no_effect(), "{error:?}");
}
