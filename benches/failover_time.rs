//! How long a client cannot write: from the last acknowledged write on the old primary to the first one on
//! the new, through plain multi-host reconnects (`target_session_attrs=read-write`, over TLS).
//!
//! `cargo run --release -p pgdock-benches --bin failover_time -- --runs 10`
//!
//! The peer in the same run is PostgreSQL itself: a standby whose operator knows at once that the primary
//! is dead, and promotes by hand over a session that was open before. Nothing can be faster than that.

use std::time::{Duration, Instant};

use clap::Parser;
use comfy_table::Table;
use pgdock_benches::{ms, spread};
use pgdock_core::witness::record::Durability;
use pgdock_core::{NodeName, Result};
use pgdock_tests::real::{Options, RealCluster, Route, Writer, available};

/// Measures how long a client cannot write.
#[derive(Parser)]
struct Args {
    /// How many runs each median is taken over.
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// How long the idle agents are watched for their use of processor and memory.
    #[arg(long, default_value_t = 30)]
    idle_seconds: u64,
}

/// What is done to the primary.
#[derive(Clone, Copy)]
enum Fault {
    KillPostmaster,
    KillBoth,
    Switchover,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if !available() {
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header([
        "durability",
        "what happens to the primary",
        "write gap, median",
        "fastest",
        "slowest",
        "to the floor",
    ]);
    let floor = floor(args.runs).await?;
    let (median, fastest, slowest) = spread(floor).expect("at least one run");
    table.add_row(["", "floor: promoted by hand at once", &ms(median), &ms(fastest), &ms(slowest), "1.0"]);
    let base = median.as_secs_f64();
    let mut footprint = Vec::new();
    for durability in [Durability::Sync, Durability::Async] {
        let mut cluster = RealCluster::up(Options { durability, first: 81, ..Options::default() }).await?;
        if durability == Durability::Sync {
            footprint = idle(&cluster, Duration::from_secs(args.idle_seconds)).await;
        }
        let both = match durability {
            Durability::Sync | Durability::Quorum => "kill -9 of agent and postmaster",
            Durability::Async => "kill -9 of agent and postmaster (ttl 5 s)",
        };
        let faults = [
            (Fault::KillPostmaster, "kill -9 of the postmaster"),
            (Fault::KillBoth, both),
            (Fault::Switchover, "planned switchover"),
        ];
        for (fault, name) in &faults {
            let mut gaps = Vec::new();
            for run in 0..args.runs {
                let gap = measure(&mut cluster, *fault).await?;
                eprintln!("{durability}, {name}, run {}: {}", run + 1, ms(gap));
                gaps.push(gap);
            }
            let (median, fastest, slowest) = spread(gaps).expect("at least one run");
            let ratio = format!("{:.1}", median.as_secs_f64() / base);
            table.add_row([&durability.to_string(), *name, &ms(median), &ms(fastest), &ms(slowest), &ratio]);
        }
    }
    println!("{table}");
    println!("{} runs each; every run waits until all nodes stream before the next begins", args.runs);
    for line in footprint {
        println!("{line}");
    }
    println!("again: cargo run --release -p pgdock-benches --bin failover_time -- --runs {}", args.runs);
    Ok(())
}

/// One fault, and the longest pause between two acknowledgements around it.
async fn measure(cluster: &mut RealCluster, fault: Fault) -> Result<Duration> {
    let primary = cluster.settled(Duration::from_secs(60)).await?;
    let route = Route::to_primary(&cluster.settings, &cluster.secrets()?)?;
    let writer = Writer::start(route, unique()).await?;
    writer.goes_on(Duration::from_secs(10)).await?;
    let begin = Instant::now();
    match fault {
        Fault::KillPostmaster => cluster.kill_postmaster(&primary),
        Fault::KillBoth => cluster.kill_both(&primary),
        Fault::Switchover => {
            cluster.cluster.switchover().await?;
        }
    }
    await_other(&writer, begin, fault).await?;
    let gap = writer.longest_gap(begin);
    writer.stop().await;
    if matches!(fault, Fault::KillBoth) {
        cluster.start_agent(&primary);
    }
    Ok(gap)
}

/// Waits for acknowledgements well after the fault.
async fn await_other(writer: &Writer, begin: Instant, fault: Fault) -> Result<()> {
    let settle = match fault {
        Fault::Switchover => Duration::ZERO,
        _ => Duration::from_millis(20),
    };
    // The first acknowledgement after the fault may be one that was on its way.
    while begin.elapsed() < settle {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    writer.goes_on(Duration::from_secs(30)).await?;
    writer.goes_on(Duration::from_secs(30)).await?;
    Ok(())
}

/// A number far from those of other runs.
fn unique() -> i64 {
    static NEXT: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) * 1_000_000_000
}

/// PostgreSQL without a cluster manager: pause everything that decides, kill the primary, and promote a
/// standby by hand at once.
async fn floor(runs: usize) -> Result<Vec<Duration>> {
    let mut gaps = Vec::new();
    let mut cluster = pgdock_tests::real::Bare::up(71).await?;
    for run in 0..runs {
        let gap = cluster.promote_by_hand(unique()).await?;
        eprintln!("floor, run {}: {}", run + 1, ms(gap));
        gaps.push(gap);
    }
    Ok(gaps)
}

/// What idle agents cost: memory, and processor as a share of one core.
async fn idle(cluster: &RealCluster, time: Duration) -> Vec<String> {
    let pids: Vec<(NodeName, u32)> =
        cluster.nodes().into_iter().filter_map(|n| cluster.agent_pid(&n).map(|p| (n, p))).collect();
    let before: Vec<_> = pids.iter().map(|(_, pid)| ticks(*pid)).collect();
    tokio::time::sleep(time).await;
    pids.iter()
        .zip(before)
        .map(|((node, pid), before)| {
            let hertz = rustix::param::clock_ticks_per_second();
            let used = (ticks(*pid) - before) as f64 / hertz as f64 / time.as_secs_f64() * 100.0;
            format!("agent of {node}, idle for {time:?}: {:.1} MB resident, {used:.2} % of a core", resident_mb(*pid))
        })
        .collect()
}

/// User and system time of a process, in clock ticks (proc_pid_stat(5), fields 14 and 15).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    after_name.split(' ').skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum()
}

fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}
