//! The primary dies: another node takes over, and the old one comes back as a standby.

use std::time::Instant;

use pgdock_core::Error;
use pgdock_core::event::{Event, EventKind};
use pgdock_core::witness::record::Durability;
use pgdock_tests::real::until;
use pgdock_tests::signals::stop;
use rustix::process::Pid;

use crate::common::{SOON, nothing_lost, on, options, probes, reigns, rejoined, taken_over, writer};

#[tokio::test]
async fn sync_loses_nothing_when_postgresql_is_killed() {
    on(options(101, 3, Durability::Sync), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let probes = probes(cluster)?;
        cluster.kill_postmaster(&old);
        taken_over(cluster, &old).await?;
        let deposed = Instant::now();
        writer.goes_on(SOON).await?;
        rejoined(cluster, &old).await?;

        let mut acks = writer.stop().await;
        acks.extend(reigns(probes, &old, deposed).await);
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn sync_loses_nothing_when_the_node_dies() {
    on(options(104, 3, Durability::Sync), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let probes = probes(cluster)?;
        cluster.kill_both(&old);
        taken_over(cluster, &old).await?;
        let deposed = Instant::now();
        writer.goes_on(SOON).await?;

        cluster.start_agent(&old);
        rejoined(cluster, &old).await?;
        let mut acks = writer.stop().await;
        acks.extend(reigns(probes, &old, deposed).await);
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn async_hands_over_when_postgresql_is_killed() {
    on(options(107, 2, Durability::Async), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        cluster.kill_postmaster(&old);
        let new = taken_over(cluster, &old).await?;
        writer.goes_on(SOON).await?;
        rejoined(cluster, &old).await?;
        // Nobody waited for the end of a right: the agent that lives gave it away.
        let seen = cluster.cluster.events(None).await?;
        let handed = format!("the lead is handed to {new}");
        assert!(seen.events.iter().any(|e| e.kind == EventKind::Handover && e.message == handed), "{seen:?}");
        // Nothing is lost with the processes alone, and the old primary has nothing that the new one lacks.
        let made_anew = |e: &Event| e.node == old && matches!(e.kind, EventKind::Rewound | EventKind::Cloned);
        assert!(!seen.events.iter().any(made_anew), "{seen:?}");
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn async_hands_over_what_only_the_crashed_primarys_disk_holds() {
    on(options(205, 2, Durability::Async), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let client = cluster.route()?.connect().await?;
        let failed = |e| Error::unavailable("a statement failed").because(e);
        client
            .batch_execute("CREATE TABLE rows (n int PRIMARY KEY); INSERT INTO rows VALUES (0)")
            .await
            .map_err(failed)?;
        let standby = cluster.nodes().into_iter().find(|node| *node != old).expect("there are two nodes");
        let there = cluster.route_to(&standby)?.connect().await?;
        until("the table is on the standby", SOON, async || {
            there.query("SELECT FROM rows", &[]).await.is_ok_and(|rows| rows.len() == 1)
        })
        .await?;
        // The process that sends WAL sends no more. What is written now is more than a segment holds.
        let sender: i32 = client.query_one("SELECT pid FROM pg_stat_replication", &[]).await.map_err(failed)?.get(0);
        stop(Pid::from_raw(sender).expect("a pid"));
        client
            .batch_execute(
                "ALTER TABLE rows ADD COLUMN filler text;
                 INSERT INTO rows SELECT n, repeat(md5(n::text), 50) FROM generate_series(1, 15000) n",
            )
            .await
            .map_err(failed)?;
        cluster.kill_postmaster(&old);
        taken_over(cluster, &old).await?;

        let client = cluster.route()?.connect().await?;
        let rows: i64 = client.query_one("SELECT count(*) FROM rows", &[]).await.map_err(failed)?.get(0);
        assert_eq!(rows, 15_001, "all that was acknowledged is on the new primary");
        let events = cluster.cluster.events(None).await?.events;
        assert!(events.iter().any(|e| e.node == standby && e.kind == EventKind::WalTaken), "{events:?}");
        rejoined(cluster, &old).await?;
        let events = cluster.cluster.events(None).await?.events;
        let made_anew = |e: &Event| e.node == old && matches!(e.kind, EventKind::Rewound | EventKind::Cloned);
        assert!(!events.iter().any(made_anew), "{events:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn with_nobody_to_hand_over_to_it_starts_again_in_place() {
    on(options(207, 2, Durability::Async), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let other = cluster.nodes().into_iter().find(|node| *node != primary).expect("there are two nodes");
        cluster.kill_both(&other);
        cluster.wait("the node is missed", SOON, |s| s.node(&other).is_some_and(|n| !n.reachable)).await?;
        let before = cluster.cluster.document().await?.expect("the cluster was founded");
        let postmaster = cluster.postmaster_pid(&primary);
        cluster.kill_postmaster(&primary);
        until("another postmaster runs", SOON, async || {
            let now = cluster.postmaster_pid(&primary);
            now.is_some() && now != postmaster
        })
        .await?;
        writer.goes_on(SOON).await?;
        let after = cluster.cluster.document().await?.expect("the cluster was founded");
        assert_eq!((after.term, after.leader.as_ref()), (before.term, Some(&primary)));
        assert_eq!(after.history.timeline, before.history.timeline, "it never left its timeline");

        cluster.start_agent(&other);
        cluster.settled(SOON).await?;
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn async_takes_over_after_the_right_has_ended() {
    on(options(110, 2, Durability::Async), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let before = cluster.cluster.document().await?.expect("the cluster was founded");
        cluster.kill_both(&old);
        taken_over(cluster, &old).await?;
        writer.goes_on(SOON).await?;
        let after = cluster.cluster.document().await?.expect("the cluster was founded");
        assert_eq!(after.term.0, before.term.0 + 1);

        cluster.start_agent(&old);
        rejoined(cluster, &old).await
    })
    .await;
}
