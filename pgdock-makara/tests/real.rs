//! The router before two real servers, one of which follows the other.

use std::time::Duration;

use futures_util::TryStreamExt;
use pgdock_makara::{
    Classifier, Error, Limits, Reason, Role, Router, RouterBuilder, Session, Target, Topology, classify,
};
use tokio::time::timeout;
use tokio_postgres::NoTls;

#[path = "generated/author.rs"]
mod author;
#[path = "real/borrowed.rs"]
mod borrowed;
#[path = "real/catalog.rs"]
mod catalog;
#[path = "real/cluster.rs"]
mod cluster;
#[path = "real/makara.rs"]
mod makara;
#[path = "real/roles.rs"]
mod roles;
#[path = "real/sessions.rs"]
mod sessions;
#[path = "real/sources.rs"]
mod sources;
#[path = "real/transactions.rs"]
mod transactions;

use author::{Author, spaced};
use cluster::{Cluster, HOSTS};

/// Longer than anything here takes, and short enough to wait for when it never comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A read that says which node answered.
const WHERE: &str = "select current_setting('listen_addresses')";

fn router(cluster: &Cluster, change: impl FnOnce(RouterBuilder) -> RouterBuilder) -> Router {
    let mut limits = Limits::default();
    limits.poll = Duration::from_millis(100);
    limits.failover_wait = PATIENCE;
    let builder = Router::builder().node("n1", cluster.address(0), 1).node("n2", cluster.address(1), 1).limits(limits);
    change(builder).build(NoTls).unwrap()
}

fn leader(topology: &Topology) -> Option<&str> {
    topology.primary().map(|node| node.name.as_str())
}

fn is_standby(topology: &Topology, name: &str) -> bool {
    topology.node(name).is_some_and(|node| node.role == Role::Standby)
}

async fn until(router: &Router, what: &str, condition: impl Fn(&Topology) -> bool) {
    let mut changes = router.watch();
    let waited = timeout(PATIENCE, changes.wait_for(|topology| condition(topology))).await;
    assert!(waited.is_ok(), "{what}: {:?}", router.topology());
}

async fn both_known(router: &Router) {
    until(router, "a primary and a standby", |topology| leader(topology) == Some("n1") && is_standby(topology, "n2"))
        .await;
}

async fn answered_by(router: &Router) -> String {
    router.query(WHERE, &[]).await.unwrap()[0].get(0)
}

/// Reads until the answer comes from a node, each read after another.
async fn until_answered_by(router: &Router, host: &str) {
    let reads = async {
        while answered_by(router).await != host {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(PATIENCE, reads).await.is_ok(), "no read came to {host}");
}

async fn rows(router: &Router) -> i64 {
    let session = Session::new();
    session.stick_to_primary("default", Duration::ZERO);
    session.scope(router.query("select count(*) from t", &[])).await.unwrap()[0].get(0)
}

#[tokio::test]
async fn statements_go_where_they_belong() {
    let Some(cluster) = Cluster::start() else { return };
    let router = router(&cluster, |builder| builder.classifier(Classifier::new().read_function("claims_to_read")));
    both_known(&router).await;
    let [primary, standby] = HOSTS;

    router.execute("create table t (a int)", &[]).await.unwrap();
    assert_eq!(answered_by(&router).await, standby, "without a session nothing sticks");

    let session = Session::new();
    session
        .scope(async {
            assert_eq!(answered_by(&router).await, standby);
            assert_eq!(router.execute("insert into t values ($1)", &[&1]).await.unwrap(), 1);
            assert_eq!(answered_by(&router).await, primary, "what was written is read");
            let count: i64 = router.query("select count(*) from t", &[]).await.unwrap()[0].get(0);
            assert_eq!(count, 1);
        })
        .await;
    assert_eq!(answered_by(&router).await, standby, "another session is free");
    let memory = session.commit().expect("there is something to remember");
    let resumed = Session::resumed(memory);
    resumed
        .scope(async {
            assert_eq!(answered_by(&router).await, primary, "the next request of the session");
            resumed.release("default");
            assert_eq!(answered_by(&router).await, standby);
        })
        .await;

    for (sql, reason) in
        [("begin", Reason::Transaction), ("set work_mem = '1MB'", Reason::Setting), ("listen a", Reason::SessionState)]
    {
        assert!(matches!(router.execute(sql, &[]).await, Err(Error::Pinned(found)) if found == reason), "{sql}");
    }
    let refused = router.query("select * from nowhere", &[]).await.unwrap_err();
    assert!(matches!(refused, Error::Postgres(_)) && refused.to_string().contains("sqlstate=42P01"), "{refused}");

    // What the lists get wrong, the standby refuses and the primary does, once.
    let before = rows(&router).await;
    let claims = "create function claims_to_read() returns int language sql as 'insert into t values (2) returning a'";
    router.execute(claims, &[]).await.unwrap();
    // The standby has to know the function before it can refuse to run it.
    let known = async {
        loop {
            let sql = "select count(*) from pg_proc where proname = 'claims_to_read'";
            if router.query(sql, &[]).await.unwrap()[0].get::<_, i64>(0) == 1 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, known).await.unwrap();
    router.query("select claims_to_read()", &[]).await.unwrap();
    assert_eq!(rows(&router).await, before + 1);

    let transaction = router.transaction().start().await.unwrap();
    transaction.execute("insert into t values (3)", &[]).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(rows(&router).await, before + 1);
}

#[tokio::test]
async fn it_follows_the_cluster_through_loss_and_promotion() {
    let Some(cluster) = Cluster::start() else { return };
    let router = router(&cluster, |builder| builder);
    both_known(&router).await;
    router.execute("create table t (a int)", &[]).await.unwrap();
    let [primary, standby] = HOSTS;
    assert_eq!(answered_by(&router).await, standby);

    cluster.stop(1);
    for _ in 0..20 {
        assert_eq!(answered_by(&router).await, primary, "reads go on where there is somebody left");
    }
    cluster.start_node(1);
    until_answered_by(&router, standby).await;

    // A write that loses its primary half way is not repeated: nobody knows what became of it.
    let lost = tokio::spawn({
        let router = router.clone();
        async move { router.execute("insert into t select 7 from pg_sleep(600)", &[]).await }
    });
    let running =
        "select count(*) from pg_stat_activity where state = 'active' and query like 'insert into t select 7%'";
    let begun = async {
        while router.query(running, &[]).await.unwrap()[0].get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, begun).await.expect("the write runs");
    cluster.stop(0);
    let outcome = timeout(PATIENCE, lost).await.expect("an answer in time").unwrap().unwrap_err();
    assert!(matches!(&outcome, Error::OutcomeUnknown { node, .. } if node == "n1"), "{outcome}");
    assert!(!outcome.had_no_effect());

    // A write that finds no primary waits for one.
    until(&router, "the loss of the primary", |topology| topology.primary().is_none()).await;
    assert_eq!(answered_by(&router).await, standby, "reads need no primary");
    let waiting = tokio::spawn({
        let router = router.clone();
        async move { router.execute("insert into t values (1)", &[]).await }
    });
    cluster.promote(1);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    assert_eq!(answered_by(&router).await, standby, "the old standby is all there is");
    assert_eq!(rows(&router).await, 1);

    // The old primary comes back and believes that it still is.
    cluster.start_node(0);
    until(&router, "the old primary", |topology| topology.nodes[0].role != Role::Unknown).await;
    let topology = router.topology();
    let roles: Vec<_> = topology.nodes.iter().map(|node| node.role).collect();
    assert_eq!(roles, [Role::Primary { timeline: 1 }, Role::Primary { timeline: 2 }]);
    assert_eq!(leader(&topology), Some("n2"), "the higher timeline is the later reign");
    assert_eq!(topology.refused().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["n1"]);
    router.execute("insert into t values (2)", &[]).await.unwrap();
    assert_eq!((answered_by(&router).await.as_str(), rows(&router).await), (standby, 2));
}

#[tokio::test]
async fn a_frozen_standby_costs_one_deadline() {
    let Some(cluster) = Cluster::start() else { return };
    let router = router(&cluster, |builder| {
        let mut limits = Limits::default();
        (limits.statement, limits.connect) = (Duration::from_secs(2), Duration::from_secs(2));
        builder.limits(limits)
    });
    both_known(&router).await;
    assert_eq!(answered_by(&router).await, HOSTS[1]);

    cluster.signal(1, "-STOP");
    let first = timeout(PATIENCE, router.query(WHERE, &[])).await.expect("an answer in time");
    match first {
        Err(Error::Timeout { node }) => assert_eq!(node, "n2"),
        // The poll may have met it first.
        Ok(rows) => assert_eq!(rows[0].get::<_, &str>(0), HOSTS[0]),
        Err(other) => panic!("{other}"),
    }
    for _ in 0..20 {
        assert_eq!(answered_by(&router).await, HOSTS[0], "nobody else waits for it");
    }
    cluster.signal(1, "-CONT");
    until_answered_by(&router, HOSTS[1]).await;
}

/// Whether a standby says that only a primary can do this.
fn needs_primary(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|refusal| {
        refusal.code().code() == "25006"
            || refusal.message().contains("recovery")
            || refusal.message().contains("standby")
    })
}

#[tokio::test]
async fn a_standby_refuses_nothing_that_was_taken_for_a_read() {
    let Some(cluster) = Cluster::start() else { return };
    let connect = async |node: usize| {
        let (client, connection) = cluster.address(node).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    };
    let (primary, standby) = (connect(0).await, connect(1).await);
    primary
        .batch_execute(
            "create schema app; create table t (a int, b int, update int, \"into\" int, \"x;y\" int);
             create table app.t (like t); create table \"for;update\" (like t); create sequence s;
             insert into t values (1, 1, 1, 1, 1); insert into app.t table t;
             create function my_func(int default 0) returns int language sql as 'insert into t values (1) returning a'",
        )
        .await
        .unwrap();
    let caught_up = async {
        let sql = "select count(*) from pg_proc where proname = 'my_func'";
        while standby.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, caught_up).await.unwrap();

    let (mut reads, mut refused, mut state) = (0, 0, 7_u64);
    for _ in 0..6000 {
        let choices: Vec<u8> = (0..64)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        let sql = spaced(&Author::write(&choices), &[]);
        let read = classify(&sql).target == Target::Replica;
        // Copies would have to be drained; what is copied is a query like the others.
        if sql.contains("copy") {
            continue;
        }
        let answer = standby.simple_query(&sql).await;
        let forbidden = answer.as_ref().is_err_and(needs_primary);
        assert!(!(read && forbidden), "{sql}: {answer:?}");
        reads += u32::from(read && answer.is_ok());
        refused += u32::from(forbidden);
    }
    assert!(reads > 100 && refused > 100, "the statements say something: {reads} reads, {refused} refused");

    for row in include_str!("cases.tsv").lines().skip(1) {
        let sql = row.split('\t').next().unwrap().replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t");
        if classify(&sql).target == Target::Replica && !sql.contains("COPY") {
            let answer = standby.simple_query(&sql).await;
            assert!(!answer.as_ref().is_err_and(needs_primary), "{sql}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_commit_whose_wait_for_a_standby_was_cancelled_is_no_success() {
    let Some(cluster) = Cluster::start() else { return };
    let router = router(&cluster, |builder| builder);
    both_known(&router).await;
    router.execute("create table t (a int)", &[]).await.unwrap();
    cluster.stop(1);
    let (mut admin, connection) = cluster.address(0).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let admin = &mut admin;
    // The notice is known by the function that sends it, whatever the language of its text.
    admin.batch_execute("alter system set synchronous_standby_names = '*'").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();

    // It is taken up a little later: then the first write waits.
    let (probe, connection) = cluster.address(0).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let cancel = "select count(pg_cancel_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'";
    let taken_up = async {
        loop {
            let waits = async { while admin.query_one(cancel, &[]).await.unwrap().get::<_, i64>(0) == 0 {} };
            let write = probe.execute("insert into t values (0)", &[]);
            tokio::pin!(write);
            tokio::select! {
                _ = &mut write => {}
                () = waits => {
                    write.await.unwrap();
                    return;
                }
            }
        }
    };
    timeout(PATIENCE, taken_up).await.expect("commits wait for a standby");

    type Outcome = Result<(), Error>;
    let autocommit = {
        let router = router.clone();
        async move { router.execute("insert into t values (1)", &[]).await.map(|_| ()) }
    };
    let rows = {
        let router = router.clone();
        async move { router.query("insert into t values (2) returning a", &[]).await.map(|_| ()) }
    };
    let streamed = {
        let router = router.clone();
        async move {
            let stream = router.query_raw("insert into t values (3) returning a", &[] as &[i32]).await?;
            stream.try_for_each(|_| std::future::ready(Ok(()))).await
        }
    };
    let transaction = {
        let router = router.clone();
        async move {
            let transaction = router.transaction().start().await?;
            transaction.execute("insert into t values (4)", &[]).await?;
            transaction.commit().await.map(|_| ())
        }
    };
    let copied = {
        let router = router.clone();
        async move {
            let mut copy = router.copy_in("copy t from stdin").await?;
            copy.send(bytes::Bytes::from_static(b"5\n")).await?;
            copy.finish().await.map(|_| ())
        }
    };
    let works: [std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>; 5] =
        [Box::pin(autocommit), Box::pin(rows), Box::pin(streamed), Box::pin(transaction), Box::pin(copied)];
    for (index, work) in works.into_iter().enumerate() {
        let outcome = tokio::spawn(async move { Session::new().scope(work).await });
        let cancelled = async {
            while admin.query_one(cancel, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, cancelled).await.expect("the commit waits");
        let error = timeout(PATIENCE, outcome).await.expect("an answer").unwrap().unwrap_err();
        assert!(matches!(&error, Error::NotReplicated { node } if node == "n1"), "{index}: {error:?}");
        assert!(!error.had_no_effect());
    }
    let count = admin.query_one("select count(*) from t where a > 0", &[]).await.unwrap();
    assert_eq!(count.get::<_, i64>(0), 5, "each of them is there");
    assert!(router.stats().unconfirmed >= 3, "{:?}", router.stats());

    // What comes after it on the same pool is not taken for it.
    admin.batch_execute("alter system reset synchronous_standby_names").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    for _ in 0..10 {
        router.execute("insert into t values (9)", &[]).await.unwrap();
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let address = |host: &str| {
        let mut address = tokio_postgres::Config::new();
        address.host(host);
        address
    };
    let mut two = address("a");
    two.host("b");
    for builder in [
        Router::builder(),
        Router::builder().node("n1", address("a"), 1).pool_size(0),
        Router::builder().node("n1", address("a"), 1).node("n1", address("b"), 1),
        Router::builder().node("n1", two, 1),
    ] {
        assert!(matches!(builder.build(NoTls), Err(Error::Settings(_))));
    }
}
