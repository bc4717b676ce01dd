//! A node that cannot write down what it promises, promises nothing.

use std::fs;

use pgdock_core::witness::record::Durability;
use pgdock_tests::real::until;

use crate::common::{SOON, TTL, nothing_lost, on, options, taken_over, writer};

#[tokio::test]
async fn without_its_state_on_disk_a_node_does_not_pledge() {
    on(options(162, 2, Durability::Sync), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let standby = cluster.nodes().into_iter().find(|node| *node != old).expect("there are two nodes");
        let writer = writer(cluster).await?;
        // In the place of the file stands a folder that is not empty: nothing can be put there.
        let state = cluster.settings.nodes[&standby].home.join("state.json");
        let _ = fs::remove_file(&state);
        fs::create_dir(&state).expect("a folder");
        fs::write(state.join("full"), "").expect("a file");
        writer.goes_on(SOON).await?;

        cluster.kill_both(&old);
        until("it tells that it cannot write its state", SOON, async || {
            let seen = cluster.cluster.events(None).await;
            seen.is_ok_and(|seen| {
                seen.events.iter().any(|e| e.node == standby && e.message.contains("cannot write the agent's state"))
            })
        })
        .await?;
        // The pause is the fault: all that is waited for is that nothing happens.
        tokio::time::sleep(TTL * 2).await;
        let status = cluster.cluster.agent(&standby)?.status().await?;
        assert_eq!(status.report.pledge, None);
        assert_eq!(status.report.role, pgdock_core::Role::Standby);

        fs::remove_dir_all(&state).expect("the fault ends");
        taken_over(cluster, &old).await?;
        writer.goes_on(SOON).await?;
        let acks = writer.stop().await;
        nothing_lost(cluster, &acks).await
    })
    .await;
}
