//! The witness is away for everybody, or for the leader alone.

use std::fs::File;
use std::path::PathBuf;

use pgdock_core::event::EventKind;
use pgdock_core::witness::record::Durability;
use pgdock_core::{NodeName, Result};
use pgdock_tests::real::{RealCluster, until};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use crate::common::{SOON, TTL, complains, nothing_lost, on, options, problems, writer};

fn document(cluster: &RealCluster) -> PathBuf {
    cluster.settings.witness.file().expect("the witness is a file").to_owned()
}

/// The witness answers nobody while this is held: somebody has its lock.
fn silenced(cluster: &RealCluster) -> File {
    let lock = File::open(document(cluster).with_extension("json.lock")).expect("there is a lock");
    flock(&lock, FlockOperation::LockExclusive).expect("it can be locked");
    lock
}

async fn nobody_was_fenced(cluster: &RealCluster) -> Result<()> {
    let events = cluster.cluster.events(None).await?.events;
    let fenced = events.iter().any(|e| matches!(e.kind, EventKind::Fenced | EventKind::DeadmanFired));
    assert!(!fenced, "somebody was fenced: {events:?}");
    Ok(())
}

/// How often the document was changed.
async fn beats(cluster: &RealCluster) -> u64 {
    cluster.cluster.document().await.ok().flatten().map_or(0, |d| d.heartbeat)
}

#[tokio::test]
async fn in_async_it_demotes_nobody_while_all_are_there_and_then_the_primary_fences_itself() {
    on(options(131, 3, Durability::Async), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let lock = silenced(cluster);
        complains(cluster, &primary, &["rests on the promises"]).await?;
        // The outage is the fault: longer than any right.
        tokio::time::sleep(TTL * 2).await;
        writer.goes_on(SOON).await?;
        let status = cluster.cluster.status().await?;
        assert_eq!(status.primary().map(|n| &n.name), Some(&primary));
        assert!(problems(&status, &primary).contains("the witness does not answer"), "{status:?}");
        nobody_was_fenced(cluster).await?;

        // One of those who could take over is not heard any more: it may be about to.
        let away = cluster.nodes().into_iter().find(|node| *node != primary).expect("there are three nodes");
        cluster.signal_agent(&away, Signal::KILL);
        cluster
            .wait("nobody is primary", SOON, |s| {
                s.node(&primary).is_some_and(|n| n.reachable && n.role != pgdock_core::Role::Primary)
                    && s.primary().is_none()
            })
            .await?;
        assert!(cluster.route()?.connect().await.is_err(), "no node takes writes");

        drop(lock);
        cluster.start_agent(&away);
        cluster.settled(SOON).await?;
        writer.goes_on(SOON).await?;
        writer.stop().await;
        Ok(())
    })
    .await;
}

/// The leader, whose agent reaches the witness by a way of its own that has just been cut.
async fn cut_off(cluster: &RealCluster) -> Result<(NodeName, pgdock_tests::real::Way)> {
    let leader = cluster.settled(SOON).await?;
    let way = cluster.own_way(&leader)?;
    cluster.signal_agent(&leader, Signal::KILL);
    cluster.start_agent(&leader);
    let before = beats(cluster).await;
    until("the leader's agent is back, and renews", SOON, async || beats(cluster).await > before + 2).await?;
    assert_eq!(cluster.settled(SOON).await?, leader);
    way.cut();
    complains(cluster, &leader, &["the witness does not answer"]).await?;
    Ok((leader, way))
}

#[tokio::test]
async fn a_leader_that_is_cut_off_alone_stays_primary_in_async() {
    on(options(196, 2, Durability::Async), async |cluster| {
        let before = cluster.cluster.document().await?.expect("the cluster was founded");
        let writer = writer(cluster).await?;
        let (leader, way) = cut_off(cluster).await?;
        let first = beats(cluster).await;
        tokio::time::sleep(TTL * 2).await;
        writer.goes_on(SOON).await?;
        let after = cluster.cluster.document().await?.expect("the cluster was founded");
        assert_eq!((after.term, after.leader.as_ref()), (before.term, Some(&leader)));
        assert!(after.heartbeat >= first + 3, "it is renewed all the while: {first} to {}", after.heartbeat);

        way.mend();
        cluster.wait("all is well again", SOON, |s| s.is_healthy()).await?;
        assert_eq!(cluster.settled(SOON).await?, leader);
        nobody_was_fenced(cluster).await?;
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_is_cut_off_alone_goes_on_changing_its_sync_set() {
    on(options(199, 3, Durability::Sync), async |cluster| {
        let writer = writer(cluster).await?;
        let (leader, way) = cut_off(cluster).await?;
        let record = cluster.cluster.document().await?.expect("the cluster was founded");
        let guard = record.sync_set.iter().next().expect("somebody guards commits").node.clone();
        cluster.kill_both(&guard);
        until("another standby guards commits", SOON, async || {
            let record = cluster.cluster.document().await.ok().flatten();
            record.is_some_and(|r| r.acks > 0 && r.sync_set.iter().all(|m| m.node != guard))
        })
        .await?;
        tokio::time::sleep(TTL * 2).await;
        writer.goes_on(SOON).await?;
        let after = cluster.cluster.document().await?.expect("the cluster was founded");
        assert_eq!((after.term, after.leader.as_ref()), (record.term, Some(&leader)));

        way.mend();
        cluster.start_agent(&guard);
        assert_eq!(cluster.settled(SOON).await?, leader);
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn cut_off_from_the_witness_and_from_the_peer_it_fences_itself_and_the_peer_takes_over() {
    on(options(202, 2, Durability::Async), async |cluster| {
        let writer = writer(cluster).await?;
        let (leader, way) = cut_off(cluster).await?;
        let peer = cluster.nodes().into_iter().find(|node| *node != leader).expect("there are two nodes");
        // The peer's agent hears nobody, and answers nobody.
        cluster.signal_agent(&peer, Signal::STOP);
        cluster.postgres_gone(&leader, SOON).await?;
        cluster.signal_agent(&peer, Signal::CONT);
        cluster.wait("a primary", SOON, |s| s.primary().is_some()).await?;
        way.mend();
        cluster.settled(SOON).await?;
        writer.goes_on(SOON).await?;
        writer.stop().await;
        Ok(())
    })
    .await;
}
