//! Nodes that are not dead, but stopped for a while, and then go on as if nothing had happened.

use std::time::{Duration, Instant};

use pgdock_core::witness::record::Durability;
use rustix::process::Signal;

use crate::common::{SOON, TTL, nothing_lost, on, options, probes, reigns, rejoined, taken_over, writer};

#[tokio::test]
async fn an_agent_that_is_stopped_leaves_no_writable_zombie() {
    on(options(113, 3, Durability::Sync), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let probes = probes(cluster)?;
        cluster.signal_agent(&old, Signal::STOP);
        cluster.postgres_gone(&old, SOON).await?;
        taken_over(cluster, &old).await?;
        let deposed = Instant::now();
        writer.goes_on(SOON).await?;
        assert!(cluster.postgres_pids(&old).is_empty());

        cluster.signal_agent(&old, Signal::CONT);
        rejoined(cluster, &old).await?;
        let mut acks = writer.stop().await;
        acks.extend(reigns(probes, &old, deposed).await);
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn a_frozen_node_acknowledges_nothing_that_is_lost() {
    on(options(116, 3, Durability::Sync), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let probes = probes(cluster)?;
        cluster.freeze(&old);
        taken_over(cluster, &old).await?;
        let deposed = Instant::now();
        writer.goes_on(SOON).await?;
        // The pause is the fault: longer than any right.
        tokio::time::sleep(TTL).await;

        // PostgreSQL comes first: for a while nobody watches over it, and a client tries to write to it.
        cluster.thaw_postgres(&old);
        tokio::time::sleep(Duration::from_secs(2)).await;
        cluster.thaw_deadman(&old);
        cluster.postgres_gone(&old, SOON).await?;
        cluster.signal_agent(&old, Signal::CONT);
        rejoined(cluster, &old).await?;

        let mut acks = writer.stop().await;
        acks.extend(reigns(probes, &old, deposed).await);
        nothing_lost(cluster, &acks).await
    })
    .await;
}
