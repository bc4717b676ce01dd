//! Commits that wait for standbys: how many they wait for, who does not make them wait, and who sees them before.

use pgdock_core::cluster::ClusterStatus;
use pgdock_core::report::State;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, NodeName, Result, Role};
use pgdock_tests::real::{Options, RealCluster, until};
use pgdock_tests::signals::stop;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{SOON, complains, nothing_lost, on, options, problems, rejoined, superuser, taken_over, writer};

fn failed(error: tokio_postgres::Error) -> Error {
    Error::unavailable("a statement failed").because(error)
}

/// The process that receives WAL on a standby.
async fn receiver(cluster: &RealCluster, standby: &NodeName) -> Result<Pid> {
    let client = superuser(cluster, standby).await?;
    let pid: i32 = client.query_one("SELECT pid FROM pg_stat_wal_receiver", &[]).await.map_err(failed)?.get(0);
    Ok(Pid::from_raw(pid).expect("a pid"))
}

/// How the document has it that commits are guarded.
fn guarded(status: &ClusterStatus, acks: u32, members: usize) -> bool {
    status.acks == acks && status.sync_set.len() == members
}

#[tokio::test]
async fn what_a_restart_left_on_the_primary_alone_is_shown_to_nobody() {
    on(options(225, 2, Durability::Sync), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let standby = cluster.nodes().into_iter().find(|node| *node != primary).expect("there are two nodes");
        let client = cluster.route()?.connect().await?;
        client.batch_execute("CREATE TABLE rows (n int)").await.map_err(failed)?;
        let receiver = receiver(cluster, &standby).await?;
        stop(receiver);
        let commit = tokio::spawn(async move { client.execute("INSERT INTO rows VALUES (1)", &[]).await });
        let watch = superuser(cluster, &primary).await?;
        let waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        until("the commit waits", SOON, async || watch.query(waiting, &[]).await.is_ok_and(|rows| !rows.is_empty()))
            .await?;

        // The commit is in the WAL of the primary alone, and it may become the standby's turn any moment.
        let restarted = cluster.cluster.restart(&primary);
        let held_back = async {
            assert!(commit.await.expect("it ends").is_err(), "nobody acknowledged it");
            let closed = |s: &ClusterStatus| s.node(&primary).is_some_and(|n| n.state == State::Closed);
            let status = cluster.wait("it runs, and lets nobody in", SOON, closed).await?;
            assert!(problems(&status, &primary).contains("clients are kept out"), "{status:?}");
            kill_process(receiver, Signal::CONT).expect("it is there");
            Ok::<_, Error>(())
        };
        let (restarted, held_back) = tokio::join!(restarted, held_back);
        held_back?;
        restarted?;

        cluster.settled(SOON).await?;
        for node in [&primary, &standby] {
            let client = cluster.route_to(node)?.connect().await?;
            until("the row is there", SOON, async || {
                client.query("SELECT FROM rows", &[]).await.is_ok_and(|rows| rows.len() == 1)
            })
            .await?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn in_quorum_commits_wait_for_as_many_as_are_wanted_and_there() {
    on(Options { acks: 2, ..options(227, 3, Durability::Quorum) }, async |cluster| {
        let old = cluster.settled(SOON).await?;
        cluster.wait("two of two guard commits", SOON, |s| guarded(s, 2, 2)).await?;
        let writer = writer(cluster).await?;
        cluster.kill_both(&old);
        let new = taken_over(cluster, &old).await?;
        writer.goes_on(SOON).await?;
        complains(cluster, &new, &["fewer standbys guard commits than wanted", "wanted=2"]).await?;
        cluster.start_agent(&old);
        rejoined(cluster, &old).await?;
        cluster.wait("two of two guard commits again", SOON, |s| guarded(s, 2, 2)).await?;

        // One that is frozen holds commits up until it is left out.
        cluster.freeze(&old);
        writer.goes_on(SOON).await?;
        cluster.wait("one guards commits", SOON, |s| guarded(s, 1, 1)).await?;
        cluster.thaw_postgres(&old);
        cluster.thaw_deadman(&old);
        cluster.signal_agent(&old, Signal::CONT);
        cluster.wait("two of two guard commits again", SOON, |s| guarded(s, 2, 2)).await?;
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn who_does_not_wait_for_standbys_is_named() {
    on(options(230, 2, Durability::Sync), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let client = superuser(cluster, &primary).await?;
        client.batch_execute("ALTER ROLE app SET synchronous_commit = off").await.map_err(failed)?;
        complains(cluster, &primary, &["a failover may lose", "for=role app=off"]).await?;
        client.batch_execute("ALTER ROLE app RESET synchronous_commit").await.map_err(failed)?;
        let quiet = |s: &ClusterStatus| {
            s.node(&primary).is_some_and(|n| n.role == Role::Primary) && problems(s, &primary).is_empty()
        };
        cluster.wait("the problem is gone", SOON, quiet).await.map(drop)
    })
    .await;
}
