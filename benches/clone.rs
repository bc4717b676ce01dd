//! How long a node takes to copy the leader's data directory, beside what `pg_basebackup` alone needs for the same.
//!
//! `cargo run --release -p pgdock-benches --bin clone -- --megabytes 1024 --runs 5`
//!
//! An agent copies with `pg_basebackup`, and looks at what came and puts it in its place. Both run here over TLS on loopback,
//! in turn, after one that nobody counts: it has the primary write out what was just made.

use std::time::Duration;

use clap::Parser;
use comfy_table::Table;
use pgdock_benches::{ms, spread};
use pgdock_core::Result;
use pgdock_tests::real::{Bare, available};

/// Measures how long a copy of the leader takes.
#[derive(Parser)]
struct Args {
    /// How much data there is.
    #[arg(long, default_value_t = 1024)]
    megabytes: u32,
    /// How many copies each median is taken over.
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if !available() {
        return Ok(());
    }
    let mut bare = Bare::up(91).await?;
    bare.fill(args.megabytes).await?;
    bare.copy_as_an_agent().await?;
    let (mut own, mut alone) = (Vec::new(), Vec::new());
    for run in 1..=args.runs {
        own.push(bare.copy_as_an_agent().await?);
        alone.push(bare.copy_by_pg_basebackup().await?);
        eprintln!("run {run}: {} and {}", ms(own[run - 1]), ms(alone[run - 1]));
    }
    let mut table = Table::new();
    table.set_header(["a copy of about", "by", "median", "fastest", "slowest", "MB/s", "of its rate"]);
    let base = spread(alone.clone()).expect("at least one run").0;
    for (name, samples) in [("pg_basebackup alone", alone), ("the agent", own)] {
        let (median, fastest, slowest) = spread(samples).expect("at least one run");
        let rate = |took: Duration| f64::from(args.megabytes) / took.as_secs_f64();
        table.add_row([
            &format!("{} MB", args.megabytes),
            name,
            &ms(median),
            &ms(fastest),
            &ms(slowest),
            &format!("{:.0}", rate(median)),
            &format!("{:.0} %", 100.0 * rate(median) / rate(base)),
        ]);
    }
    println!("{table}");
    Ok(())
}
