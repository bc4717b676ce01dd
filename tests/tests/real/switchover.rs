//! The lead is handed over on purpose.

use std::time::{Duration, Instant};

use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, ErrorKind};
use pgdock_tests::signals::stop;
use rustix::process::Pid;

use crate::common::{SOON, nothing_lost, on, options, said, writer};

#[tokio::test]
async fn there_and_back_under_load_loses_nothing() {
    on(options(119, 3, Durability::Sync), async |cluster| {
        let first = cluster.settled(SOON).await?;
        let second = cluster.nodes().into_iter().find(|node| *node != first).expect("there are three nodes");
        let writer = writer(cluster).await?;
        for heir in [&second, &first] {
            // The primary sees a moment later than the standby that it streams; until then it refuses.
            let deadline = Instant::now() + SOON;
            loop {
                match cluster.cluster.switchover().to(heir.as_str()).await {
                    Ok(new) => break assert_eq!(new, *heir),
                    Err(e) if e.kind() == ErrorKind::NeedsOperator && Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(e) => return Err(e),
                }
            }
            writer.goes_on(SOON).await?;
            assert_eq!(cluster.settled(SOON).await?, *heir);
        }
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn to_a_node_that_is_down_it_is_refused() {
    on(options(122, 3, Durability::Sync), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let down = cluster.nodes().into_iter().rfind(|node| *node != primary).expect("there are three nodes");
        cluster.kill_both(&down);
        cluster
            .wait("the node is missed", SOON, |s| {
                s.node(&down).is_some_and(|n| !n.reachable) && !s.sync_set.is_empty() && !s.sync_set.contains(&down)
            })
            .await?;
        let writer = writer(cluster).await?;
        let before = cluster.cluster.document().await?.expect("the cluster was founded");
        let postmaster = cluster.postmaster_pid(&primary);

        let refused = cluster.pgdock(&["switchover", "--to", down.as_str()]).await?;
        assert_eq!(refused.status.code(), Some(4), "{}", said(&refused));
        assert!(said(&refused).contains(down.as_str()) && said(&refused).contains("nothing was done"), "{refused:?}");
        let after = cluster.cluster.document().await?.expect("the cluster was founded");
        assert_eq!((after.term, &after.leader), (before.term, &before.leader));
        assert_eq!(cluster.postmaster_pid(&primary), postmaster, "the primary was not even stopped");
        writer.goes_on(SOON).await?;

        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn nothing_fails_over_while_paused() {
    on(options(125, 2, Durability::Sync), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let standby = cluster.nodes().into_iter().find(|node| *node != old).expect("there are two nodes");
        let writer = writer(cluster).await?;
        cluster.cluster.pause().await?;
        let paused = |s: &pgdock_core::agent::api::NodeStatus| s.record.as_ref().is_some_and(|r| r.paused);
        let agent = cluster.cluster.agent(&standby)?;
        pgdock_tests::real::until("the standby knows of the pause", SOON, async || {
            agent.status().await.is_ok_and(|s| paused(&s))
        })
        .await?;

        cluster.kill_both(&old);
        pgdock_tests::real::until("the standby has lost its upstream", SOON, async || {
            agent.status().await.is_ok_and(|s| s.report.state != pgdock_core::report::State::Streaming)
        })
        .await?;
        // Long enough for a takeover, were there no pause.
        tokio::time::sleep(crate::common::TTL * 2).await;
        let status = cluster.cluster.status().await?;
        assert_eq!(status.leader.as_ref(), Some(&old), "the lead has not moved");
        assert!(status.primary().is_none());

        // Nobody can be told to go on but the leader: it comes back, as the primary that it still is or by
        // handing over, and hears it.
        cluster.start_agent(&old);
        cluster.wait("a primary", SOON, |s| s.primary().is_some()).await?;
        cluster.cluster.resume().await?;
        cluster.settled(SOON).await?;
        writer.goes_on(SOON).await?;
        let old = cluster.settled(SOON).await?;
        cluster.kill_both(&old);
        crate::common::taken_over(cluster, &old).await?;
        writer.goes_on(SOON).await?;
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}

#[tokio::test]
async fn one_that_overruns_its_budget_is_rolled_back() {
    let mut options = options(210, 3, Durability::Sync);
    options.extra.entry("failover").or_default().push_str("\nstop_budget = \"2s\"");
    on(options, async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        let before = cluster.cluster.document().await?.expect("the cluster was founded");
        let postmaster = cluster.postmaster_pid(&primary);
        // A backend that does not run cannot end, and the postmaster waits for it.
        let client = cluster.route()?.connect().await?;
        let row = client.query_one("SELECT pg_backend_pid()", &[]).await;
        let backend: i32 = row.map_err(|e| Error::unavailable("a statement failed").because(e))?.get(0);
        stop(Pid::from_raw(backend).expect("a pid"));

        let failed = cluster.pgdock(&["switchover"]).await?;
        assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
        assert!(said(&failed).contains("the old primary goes on, and nothing has changed"), "{}", said(&failed));
        assert_ne!(cluster.postmaster_pid(&primary), postmaster, "it had to be killed");

        writer.goes_on(SOON).await?;
        assert_eq!(cluster.settled(SOON).await?, primary);
        let after = cluster.cluster.document().await?.expect("the cluster was founded");
        assert_eq!((after.term, after.leader.as_ref()), (before.term, Some(&primary)));
        assert_eq!(after.history.timeline, before.history.timeline);
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await?;

        // Nothing stands in the way of the next one.
        let done = cluster.pgdock(&["switchover"]).await?;
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        cluster.settled(SOON).await.map(drop)
    })
    .await;
}
