//! What Makara's own tests ask of its proxy, on real servers.

use std::time::Duration;

use pgdock_makara::{Error, Limits, Router, RouterBuilder, Session, Sticky, without_sticking};
use tokio::time::timeout;
use tokio_postgres::NoTls;

use super::cluster::{Cluster, HOSTS};
use super::{PATIENCE, answered_by, both_known, router, until, until_answered_by};

const STICKY: Sticky = Sticky::Ttl(Duration::from_secs(5));

async fn write(router: &Router) {
    assert_eq!(router.execute("insert into t values (1)", &[]).await.unwrap(), 1);
}

fn hasty(builder: RouterBuilder) -> RouterBuilder {
    let mut limits = Limits::default();
    (limits.poll, limits.failover_wait) = (Duration::from_millis(100), Duration::from_millis(500));
    builder.limits(limits)
}

#[tokio::test]
async fn the_flow_of_makara() {
    let Some(cluster) = Cluster::start() else { return };
    let [primary, standby] = HOSTS;
    let sticky = router(&cluster, |builder| builder.sticky(STICKY));
    let free = router(&cluster, |builder| builder.sticky(Sticky::Off));
    both_known(&sticky).await;
    both_known(&free).await;
    sticky.execute("create table t (a int)", &[]).await.unwrap();

    // A read goes to a replica; a write goes to the primary, and sticks.
    let session = Session::new();
    session
        .scope(async {
            assert_eq!(answered_by(&sticky).await, standby);
            write(&sticky).await;
            assert_eq!(answered_by(&sticky).await, primary);
            // What Makara never sticks to: an explanation, and what a server is asked of itself.
            session.release_all();
            assert_eq!(answered_by(&sticky).await, standby);
            sticky.query("explain select 1", &[]).await.unwrap();
            sticky.query("show server_version", &[]).await.unwrap();
            assert_eq!(answered_by(&sticky).await, standby);
        })
        .await;
    // Without stickiness, nothing sticks.
    Session::new()
        .scope(async {
            write(&free).await;
            assert_eq!(answered_by(&free).await, standby);
        })
        .await;
    // `without_sticking` hides what was before, is not remembered, and restores.
    Session::new()
        .scope(async {
            write(&sticky).await;
            without_sticking(async {
                assert_eq!(answered_by(&sticky).await, standby);
                write(&sticky).await;
                assert_eq!(answered_by(&sticky).await, standby);
            })
            .await;
            assert_eq!(answered_by(&sticky).await, primary);
        })
        .await;
    Session::new()
        .scope(async {
            without_sticking(write(&sticky)).await;
            assert_eq!(answered_by(&sticky).await, standby);
        })
        .await;
    // `stick_to_primary!`, whether or not a router sticks by itself.
    let session = Session::new();
    session.stick_to_primary("default", Duration::from_secs(5));
    assert_eq!(session.scope(answered_by(&free)).await, primary);
    // Reads in a transaction belong to it.
    for router in [&sticky, &free] {
        let transaction = router.transaction().start().await.unwrap();
        let read = transaction.query_one(super::WHERE, &[]).await.unwrap();
        assert_eq!(read.get::<_, &str>(0), primary);
        transaction.rollback().await.unwrap();
    }
    // Contexts of tasks are apart.
    let stuck = Session::new();
    stuck.scope(write(&sticky)).await;
    let spawned = tokio::spawn({
        let sticky = sticky.clone();
        async move { answered_by(&sticky).await }
    });
    assert_eq!(spawned.await.unwrap(), standby);
    let spawned = stuck.spawn({
        let sticky = sticky.clone();
        async move { answered_by(&sticky).await }
    });
    assert_eq!(spawned.await.unwrap(), primary);
}

#[tokio::test]
async fn makara_with_nodes_that_are_missing() {
    let Some(cluster) = Cluster::start() else { return };
    let [primary, standby] = HOSTS;
    let both = router(&cluster, hasty);
    let only_primary = hasty(Router::builder().node("n1", cluster.address(0), 1)).build(NoTls).unwrap();
    let only_replica = hasty(Router::builder().node("n2", cluster.address(1), 1)).build(NoTls).unwrap();
    both_known(&both).await;
    until(&only_primary, "the primary", |topology| topology.primary().is_some()).await;
    until(&only_replica, "the replica", |topology| topology.standbys().next().is_some()).await;
    both.execute("create table t (a int)", &[]).await.unwrap();

    write(&only_primary).await;
    assert_eq!(answered_by(&only_primary).await, primary);
    assert_eq!(answered_by(&only_replica).await, standby);
    let error = only_replica.execute("insert into t values (1)", &[]).await.unwrap_err();
    assert!(matches!(&error, Error::NoPrimary { nodes, .. } if nodes == "n2: standby"), "{error}");
    assert!(error.had_no_effect() && error.is_retryable());

    // A replica that dies under a read: it is read once more, elsewhere.
    let where_it_sleeps = "select current_setting('listen_addresses'), \
                           case when current_setting('in_hot_standby') = 'on' then pg_sleep(600) end";
    let read = tokio::spawn({
        let both = both.clone();
        async move { both.query_one(where_it_sleeps, &[]).await }
    });
    let (direct, connection) = cluster.address(1).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let sleeps = async {
        let running = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
        while direct.query_one(running, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, sleeps).await.unwrap();
    cluster.stop(1);
    let row = timeout(PATIENCE, read).await.unwrap().unwrap().unwrap();
    assert_eq!(row.get::<_, &str>(0), primary);
    assert_eq!(both.stats().nodes[1].lost, 1);
    for _ in 0..5 {
        assert_eq!(answered_by(&both).await, primary);
    }

    // All are gone: it is said of each why; and when they are back, they are used again.
    cluster.stop(0);
    let error = both.query("select 1", &[]).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::NoPrimary { .. } | Error::NoConnection { .. }), "{error:?}");
    assert!(text.contains("n1") && text.contains("onnect"), "{text}");
    cluster.start_node(0);
    until(&both, "the primary", |topology| topology.primary().is_some()).await;
    write(&both).await;
    cluster.start_node(1);
    until_answered_by(&both, standby).await;
}
