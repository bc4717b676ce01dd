//! Logical slots survive a failover, on PostgreSQL 17 and later.

use pgdock_core::postgres::version::{Binaries, NEWEST};
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, NodeName, Result};
use pgdock_tests::real::{Options, RealCluster, until};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::common::{LONG, SOON, on, options, rejoined, superuser, taken_over};

/// A cluster that decodes WAL, on a version that keeps logical slots on standbys; `None` where there is none.
fn logical(first: u8, extra: &str) -> Option<Options> {
    let path = std::env::var_os("PATH");
    let found = (17..=NEWEST).find(|v| Binaries::find(None, Some(*v), path.as_deref()).is_ok());
    let Some(version) = found else {
        eprintln!("skipped: there is no PostgreSQL 17 or later here");
        return None;
    };
    let mut options = options(first, 2, Durability::Sync);
    options.extra.insert("postgres", format!("version = {version}"));
    options.extra.insert("postgres.settings", "wal_level = \"logical\"".to_owned());
    options.extra.entry("failover").or_default().push_str(extra);
    Some(options)
}

fn failed(error: tokio_postgres::Error) -> Error {
    Error::unavailable("a statement failed").because(error)
}

/// Makes a table and a subscriber's slot, and waits until the standby has that, too.
async fn subscribe(cluster: &RealCluster, primary: &NodeName, standby: &NodeName) -> Result<Client> {
    let client = superuser(cluster, primary).await?;
    let table = "CREATE TABLE events (number int PRIMARY KEY); CREATE PUBLICATION events FOR TABLE events";
    client.batch_execute(table).await.map_err(failed)?;
    let slot = "SELECT pg_create_logical_replication_slot('subscriber', 'pgoutput', false, false, true)";
    client.batch_execute(slot).await.map_err(failed)?;
    copied(cluster, &client, standby).await?;
    Ok(client)
}

/// Waits until a standby has a copy of the subscriber's slot that outlives a promotion. It comes about as the subscriber
/// gets on.
async fn copied(cluster: &RealCluster, primary: &Client, standby: &NodeName) -> Result<()> {
    let there = superuser(cluster, standby).await?;
    let copied = "SELECT FROM pg_replication_slots WHERE slot_name = 'subscriber' AND synced AND NOT temporary
                     AND invalidation_reason IS NULL";
    until("the standby has the slot", LONG, async || {
        let moved = primary
            .batch_execute("CHECKPOINT; SELECT pg_logical_emit_message(true, 'test', ''); SELECT pg_switch_wal()")
            .await
            .is_ok();
        moved && receive(primary).await.is_ok() && there.query(copied, &[]).await.is_ok_and(|rows| !rows.is_empty())
    })
    .await
}

/// What the subscriber gets, in the order in which it comes, and never again.
async fn receive(client: &Client) -> Result<Vec<i32>, tokio_postgres::Error> {
    let changes = "SELECT data FROM pg_logical_slot_get_binary_changes('subscriber', NULL, NULL,
                     'proto_version', '1', 'publication_names', 'events')";
    Ok(client.query(changes, &[]).await?.iter().filter_map(|row| inserted(row.get(0))).collect())
}

/// The number in a message of `pgoutput` that tells of an inserted row (PostgreSQL documentation, section 53.9).
fn inserted(message: &[u8]) -> Option<i32> {
    let text = message.strip_prefix(b"I")?.get(4..)?.strip_prefix(b"N\0\x01t")?.get(4..)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

async fn insert(client: &Client, numbers: std::ops::RangeInclusive<i32>) -> Result<()> {
    let (first, last) = numbers.into_inner();
    let sql = "INSERT INTO events SELECT generate_series($1::int, $2::int)";
    client.execute(sql, &[&first, &last]).await.map(drop).map_err(failed)
}

#[tokio::test]
async fn a_subscriber_goes_on_where_it_was_after_a_failover() {
    let Some(options) = logical(216, "") else { return };
    on(options, async |cluster| {
        let first = cluster.settled(SOON).await?;
        let second = cluster.nodes().into_iter().find(|node| *node != first).expect("there are two nodes");
        let client = subscribe(cluster, &first, &second).await?;
        insert(&client, 1..=50).await?;

        // A switchover leaves the slot behind on the old primary, where it would be in the way of the copy.
        cluster.cluster.switchover().to(second.as_str()).await?;
        rejoined(cluster, &first).await?;
        let client = superuser(cluster, &second).await?;
        assert_eq!(receive(&client).await.map_err(failed)?, Vec::from_iter(1..=50));
        copied(cluster, &client, &first).await?;

        // What was acknowledged to applications, and no subscriber has seen, is still to come.
        insert(&client, 51..=150).await?;
        cluster.kill_both(&second);
        assert_eq!(taken_over(cluster, &second).await?, first);
        let client = superuser(cluster, &first).await?;
        insert(&client, 151..=160).await?;
        assert_eq!(receive(&client).await.map_err(failed)?, Vec::from_iter(51..=160));

        cluster.start_agent(&second);
        rejoined(cluster, &second).await?;
        copied(cluster, &client, &second).await
    })
    .await;
}

#[tokio::test]
async fn a_subscriber_waits_for_no_standby_that_is_lost() {
    let Some(options) = logical(218, "") else { return };
    on(options, async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let standby = cluster.nodes().into_iter().find(|node| *node != primary).expect("there are two nodes");
        let client = subscribe(cluster, &primary, &standby).await?;
        let waits_for = async || {
            let row = client.query_one("SHOW synchronized_standby_slots", &[]).await.map_err(failed)?;
            Ok::<String, Error>(row.get(0))
        };
        assert_eq!(waits_for().await?, standby.slot());
        cluster.kill_both(&standby);
        insert(&client, 1..=10).await?;
        assert_eq!(receive(&client).await.map_err(failed)?, Vec::from_iter(1..=10));
        assert_eq!(waits_for().await?, "");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_subscriber_never_sees_what_a_failover_could_lose() {
    let Some(options) = logical(220, "\nstrict = true") else { return };
    on(options, async |cluster| {
        let primary = cluster.settled(SOON).await?;
        let standby = cluster.nodes().into_iter().find(|node| *node != primary).expect("there are two nodes");
        let client = subscribe(cluster, &primary, &standby).await?;
        cluster.kill_both(&standby);
        let writer = superuser(cluster, &primary).await?;
        let commit = tokio::spawn(async move { insert(&writer, 1..=1).await });
        let waiting = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        until("the commit waits", SOON, async || client.query(waiting, &[]).await.is_ok_and(|rows| !rows.is_empty()))
            .await?;

        client.batch_execute("SET statement_timeout = '3s'").await.map_err(failed)?;
        let seen = receive(&client).await;
        assert_eq!(seen.expect_err("it is not acknowledged").code(), Some(&SqlState::QUERY_CANCELED));

        client.batch_execute("RESET statement_timeout").await.map_err(failed)?;
        cluster.start_agent(&standby);
        commit.await.expect("it ends")?;
        assert_eq!(receive(&client).await.map_err(failed)?, [1]);
        Ok(())
    })
    .await;
}
