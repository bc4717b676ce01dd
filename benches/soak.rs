//! Many failovers in a row, and a check that none of them lost an acknowledged write or had two primaries.
//!
//! `cargo run --release -p pgdock-benches --bin soak -- --kills 200`
//!
//! One client writes to whoever is primary; beside it, one for each node writes to that node alone, and is
//! refused while the node is a standby. Everything that any of them was acknowledged must be on the last
//! primary, and no two nodes may have acknowledged writes at the same time.

use std::time::{Duration, Instant};

use clap::Parser;
use pgdock_benches::{ms, spread};
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, NodeName, Result};
use pgdock_tests::real::{Options, Probe, RealCluster, Route, Writer, available, healthy, missing};

/// Kills the primary again and again, and checks that nothing was lost.
#[derive(Parser)]
struct Args {
    /// How many times.
    #[arg(long, default_value_t = 200)]
    kills: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if !available() {
        return Ok(());
    }
    let mut cluster =
        RealCluster::up(Options { durability: Durability::Sync, first: 91, ..Options::default() }).await?;
    let result = soak(&mut cluster, args.kills).await;
    if result.is_err() {
        cluster.print_logs();
        cluster.keep();
    }
    result
}

async fn soak(cluster: &mut RealCluster, kills: usize) -> Result<()> {
    let route = Route::to_primary(&cluster.settings, &cluster.secrets()?)?;
    let writer = Writer::start(route.clone(), 0).await?;
    let probes: Vec<(NodeName, Probe)> = cluster
        .settings
        .nodes
        .iter()
        .enumerate()
        .map(|(i, (name, node))| {
            let first = (i64::try_from(i).unwrap_or_default() + 1) << 40;
            (name.clone(), Probe::start(route.to_node(&node.address, node.postgres_port), first))
        })
        .collect();
    let mut gaps = Vec::new();
    for kill in 1..=kills {
        // The next fault comes when a standby guards commits again, as any second fault may.
        let status = cluster.wait("a guarded primary", Duration::from_secs(90), |s| healthy(s, kill % 10 == 0)).await?;
        let primary = status.leader.ok_or_else(|| Error::internal("a healthy cluster without a leader"))?;
        writer.goes_on(Duration::from_secs(10)).await?;
        let begin = Instant::now();
        let both = kill % 2 == 0;
        if both {
            cluster.kill_both(&primary);
        } else {
            cluster.kill_postmaster(&primary);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        writer.goes_on(Duration::from_secs(60)).await?;
        writer.goes_on(Duration::from_secs(60)).await?;
        let gap = writer.longest_gap(begin);
        gaps.push(gap);
        if both {
            cluster.start_agent(&primary);
        }
        if kill % 10 == 0 || kill == kills {
            let client = route.connect().await?;
            let lost = missing(&client, &writer.acks()).await?;
            eprintln!(
                "{kill} kills, {} acknowledged writes, {} lost, last gap {}",
                writer.acks().len(),
                lost.len(),
                ms(gap)
            );
            if !lost.is_empty() {
                return Err(Error::internal(format!("acknowledged writes are lost: {lost:?}")));
            }
        }
    }
    cluster.settled(Duration::from_secs(90)).await?;
    let acks = writer.stop().await;
    let mut reigns = Vec::new();
    for (node, probe) in probes {
        let found = probe.stop().await;
        reigns.push((node, found));
    }
    let client = route.connect().await?;
    let mut lost = missing(&client, &acks).await?;
    for (_, found) in &reigns {
        lost.extend(missing(&client, &found.iter().map(|p| p.ack).collect::<Vec<_>>()).await?);
    }
    let overlaps = pgdock_tests::real::overlaps(&reigns);
    let (median, fastest, slowest) = spread(gaps).expect("at least one kill");
    println!(
        "{} kills of the primary: {} acknowledged writes, {} lost; two primaries at once: {}; write gap {} (median), {} to {}",
        kills,
        acks.len() + reigns.iter().map(|(_, f)| f.len()).sum::<usize>(),
        lost.len(),
        overlaps.len(),
        ms(median),
        ms(fastest),
        ms(slowest),
    );
    if lost.is_empty() && overlaps.is_empty() {
        return Ok(());
    }
    Err(Error::internal(format!("lost={lost:?}, overlaps={overlaps:?}")))
}
