//! Two data nodes and a bucket: no third server.

use std::time::Duration;

use pgdock_core::event::EventKind;
use pgdock_core::scaffold::ScaffoldWitness;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Result, Role};
use pgdock_testkit::{Conditions, Faults, Outage};
use pgdock_tests::real::{Options, RealCluster, available};
use pgdock_tests::stores::TestBucket;

use crate::common::{SOON, TTL, nothing_lost, on, options, problems, rejoined, said, taken_over, writer};

/// A cluster whose document is in that bucket.
fn on_bucket(bucket: &TestBucket, first: u8) -> Options {
    let witness = ScaffoldWitness {
        url: "s3://witness/prod".to_owned(),
        endpoint: Some(bucket.server().endpoint()),
        ..ScaffoldWitness::default()
    };
    let keys = bucket.server().keys();
    let credentials = format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", keys.access, keys.secret);
    Options { witness: Some((witness, credentials)), ..options(first, 2, Durability::Sync) }
}

fn printed(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_and_a_bucket_fail_over_and_lose_nothing() {
    let bucket = TestBucket::own().await;
    on(on_bucket(&bucket, 205), async |cluster| {
        let old = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        cluster.kill_both(&old);
        let new = taken_over(cluster, &old).await?;
        writer.goes_on(SOON).await?;

        // How it looks to an operator.
        let status = cluster.pgdock(&["status"]).await?;
        assert!(printed(&status).contains("witness bucket reachable"), "{}", printed(&status));
        let shown = cluster.pgdock(&["witness", "show"]).await?;
        assert!(shown.status.success() && printed(&shown).contains(new.as_str()), "{}", said(&shown));
        let probed = cluster.pgdock(&["witness", "probe"]).await?;
        assert!(probed.status.success() && printed(&probed).contains("passed"), "{}", said(&probed));

        cluster.start_agent(&old);
        rejoined(cluster, &old).await?;
        nothing_lost(cluster, &writer.stop().await).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_longer_than_a_right_demotes_nobody() {
    let bucket = TestBucket::own().await;
    on(on_bucket(&bucket, 207), async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let writer = writer(cluster).await?;
        for outage in [Outage::Cut, Outage::Silent] {
            bucket.faults(Faults { outage, ..Faults::default() });
            // The outage is the fault: longer than any right.
            tokio::time::sleep(TTL * 2).await;
            writer.goes_on(SOON).await?;
            let status = cluster.cluster.status().await?;
            assert_eq!(status.primary().map(|n| &n.name), Some(&primary));
            assert!(!status.witness.reachable && status.witness.kind == "bucket", "{status:?}");
            assert!(problems(&status, &primary).contains("the witness does not answer"), "{status:?}");
            bucket.faults(Faults::default());
            cluster.settled(SOON).await?;
        }
        // A store that wants fewer requests takes nobody's right.
        bucket.faults(Faults { slow_down: 0.5, too_many: 0.2, ..Faults::default() });
        tokio::time::sleep(TTL * 2).await;
        writer.goes_on(SOON).await?;
        bucket.faults(Faults::default());
        assert_eq!(cluster.settled(SOON).await?, primary);
        let events = cluster.cluster.events(None).await?.events;
        let fenced = events.iter().any(|e| matches!(e.kind, EventKind::Fenced | EventKind::DeadmanFired));
        assert!(!fenced, "somebody was fenced: {events:?}");
        nothing_lost(cluster, &writer.stop().await).await
    })
    .await;
}

/// No cluster is founded on a store that does not keep its word, and nothing of it is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_breaks_its_word_founds_no_cluster() {
    if !available() {
        return;
    }
    let bucket = TestBucket::own().await;
    let tried: Result<()> = async {
        for (conditions, says) in [
            (Conditions::Ignored, "racers win"),
            (Conditions::Unsupported, "it has no conditional writes"),
            (Conditions::CheckedThenSet, "racers win"),
        ] {
            bucket.faults(Faults { conditions, ..Faults::default() });
            let cluster = RealCluster::make(on_bucket(&bucket, 209)).await?;
            let up = cluster.pgdock(&["up", "--timeout", "60"]).await?;
            assert!(!up.status.success() && said(&up).contains(says), "{conditions:?}: {}", said(&up));
            let probed = cluster.pgdock(&["witness", "probe"]).await?;
            assert!(!probed.status.success() && said(&probed).contains(says), "{conditions:?}: {}", said(&probed));
            for node in cluster.nodes() {
                assert!(
                    !cluster.data_dir(&node).join("PG_VERSION").exists(),
                    "{conditions:?}: a data directory was made"
                );
            }
            assert!(cluster.cluster.document().await?.is_none(), "{conditions:?}: a document was made");
            let down = cluster.pgdock(&["down"]).await?;
            assert!(down.status.success(), "{}", said(&down));
        }
        Ok(())
    }
    .await;
    tried.unwrap_or_else(|e| panic!("{}", e.chain()));
    // The same folder, and a store that has been mended.
    bucket.faults(Faults::default());
    on(on_bucket(&bucket, 209), async |cluster| {
        let primary = cluster.settled(Duration::from_secs(60)).await?;
        assert_eq!(cluster.cluster.status().await?.node(&primary).map(|n| n.role), Some(Role::Primary));
        Ok(())
    })
    .await;
}
