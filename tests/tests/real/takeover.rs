//! The primary dies: another node takes over, and the old one comes back as a standby.

use std::time::Instant;

use pgdock_core::event::EventKind;
use pgdock_core::witness::record::Durability;

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
        Ok(())
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
