//! How soon the router follows a change, and what an idle one holds.
//!
//! ```console
//! $ cargo bench -p pgdock-makara --bench changes -- 5
//! ```
//!
//! The argument is the number of runs that each median is taken over. Beside the router, a client that does nothing but try
//! a write on the standby again and again tells how soon anybody can write there.

use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, Pool, Runtime};
use pgdock_makara::{Error, Limits, Router, Topology};
use tokio_postgres::NoTls;

#[path = "../tests/real/cluster.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod cluster;

use cluster::Cluster;

const WRITE: &str = "insert into changes values (1)";
const READ: &str = "select count(*) from changes";
/// As many as are built to see what one holds. A server takes a hundred connections.
const ROUTERS: usize = 20;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn build(cluster: &Cluster, statement: Duration) -> Router {
    let mut limits = Limits::default();
    limits.statement = statement;
    limits.failover_wait = Duration::from_secs(60);
    let builder = Router::builder().node("n1", cluster.address(0), 1).node("n2", cluster.address(1), 1);
    builder.limits(limits).build(NoTls).unwrap()
}

async fn known(router: &Router) {
    let both = |topology: &Topology| topology.primary().is_some() && topology.standbys().count() == 1;
    router.watch().wait_for(|topology| both(topology)).await.unwrap();
}

/// Promotes the standby of a primary that is gone. How long until anybody, and until the router, wrote there.
async fn takeover(traffic: bool) -> Option<(Duration, Duration)> {
    let cluster = Cluster::start()?;
    let router = build(&cluster, Duration::from_secs(5));
    known(&router).await;
    router.execute("create table changes (id int)", &[]).await.unwrap();
    while router.query(READ, &[]).await.is_err() {}
    let (direct, socket) = cluster.address(1).connect(NoTls).await.unwrap();
    tokio::spawn(socket);
    let (judge, socket) = cluster.address(1).connect(NoTls).await.unwrap();
    tokio::spawn(socket);
    cluster.stop(0);
    let readers = traffic.then(|| {
        let router = router.clone();
        tokio::spawn(async move {
            loop {
                let _ = router.query(READ, &[]).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let began = Instant::now();
    judge.batch_execute("select pg_promote(false)").await.unwrap();
    let anybody = async {
        while direct.execute(WRITE, &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        began.elapsed()
    };
    let routed = async {
        router.execute(WRITE, &[]).await.unwrap();
        began.elapsed()
    };
    let times = tokio::join!(anybody, routed);
    if let Some(readers) = readers {
        readers.abort();
    }
    Some(times)
}

/// Freezes the standby under reads: what they meet.
async fn frozen(limit: Duration) -> Option<()> {
    let cluster = Cluster::start()?;
    let router = build(&cluster, limit);
    known(&router).await;
    router.execute("create table changes (id int)", &[]).await.unwrap();
    for _ in 0..100 {
        let _ = router.query(READ, &[]).await;
    }
    cluster.signal(1, "-STOP");
    let (mut late, mut answered, mut longest) = (0, 0, Duration::ZERO);
    for _ in 0..1000 {
        let began = Instant::now();
        match router.query(READ, &[]).await {
            Ok(_) => {
                answered += 1;
                longest = longest.max(began.elapsed());
            }
            Err(Error::Timeout { .. }) => late += 1,
            Err(error) => println!("frozen standby: {error}"),
        }
    }
    cluster.signal(1, "-CONT");
    println!(
        "standby frozen, limit {} ms:      {late} of 1000 reads met the limit, {answered} were answered, the slowest after {:.1} ms",
        limit.as_millis(),
        longest.as_secs_f64() * 1e3
    );
    Some(())
}

fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

/// What a router holds that nothing is asked of, beside pools of deadpool with the same connections.
async fn memory() -> Option<()> {
    let cluster = Cluster::start()?;
    let before = resident_kib();
    let mut pools = Vec::new();
    for index in 0..2 * ROUTERS {
        let manager = Manager::new(cluster.address(index % 2), NoTls);
        let pool = Pool::builder(manager).max_size(8).runtime(Runtime::Tokio1).build().unwrap();
        // A router has one as well, to ask the node for its role.
        drop(pool.get().await.unwrap());
        pools.push(pool);
    }
    let plain = resident_kib().saturating_sub(before);
    // They stay: memory that they gave back would not be counted again.
    let before = resident_kib();
    let mut routers = Vec::new();
    for _ in 0..ROUTERS {
        let router = build(&cluster, Duration::from_secs(5));
        known(&router).await;
        routers.push(router);
    }
    let routed = resident_kib().saturating_sub(before);
    drop(pools);
    println!(
        "resident memory: a router {} KiB, two pools with a connection each {} KiB",
        routed / ROUTERS as u64,
        plain / ROUTERS as u64
    );
    Some(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let runs: usize = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(3);
    if memory().await.is_none() {
        return;
    }
    frozen(Duration::from_millis(300)).await;
    for (name, traffic) in [("idle", false), ("a read each millisecond", true)] {
        let (mut anybody, mut routed) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let Some((first, ours)) = takeover(traffic).await else { return };
            anybody.push(first);
            routed.push(ours);
        }
        println!(
            "pg_promote to the first write, {name}: anybody {:.1} ms, router {:.1} ms (medians of {runs})",
            median(anybody),
            median(routed)
        );
    }
}
