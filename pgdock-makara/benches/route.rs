//! What the router costs: it and plain deadpool read the same from the same server, in turn.
//!
//! ```console
//! $ cargo bench -p pgdock-makara --bench route -- 20000
//! ```
//!
//! The first argument is the number of reads of each kind. Whichever goes first alternates, so that a machine that slows
//! down slows both. Servers and client each have a processor of their own, where there are two: which one a backend happens
//! to be on decides more than what is measured here.

use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use pgdock_makara::{Router, Session, Sticky, Topology};
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;

#[path = "../tests/real/cluster.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod cluster;

use cluster::Cluster;

const READS: &str = "select id, name, balance from accounts where id = $1 limit 1";

struct Times(Vec<Duration>);

impl Times {
    fn at(&mut self, percent: usize) -> f64 {
        self.0.sort();
        let index = (self.0.len() * percent / 100).min(self.0.len() - 1);
        self.0[index].as_secs_f64() * 1e6
    }
}

fn print(name: &str, router: &mut Times, deadpool: &mut Times) {
    for percent in [50, 99] {
        let (ours, theirs) = (router.at(percent), deadpool.at(percent));
        println!("{name:<28} p{percent}: router {ours:8.2} µs, deadpool {theirs:8.2} µs, ratio {:.3}", ours / theirs);
    }
}

/// Has this thread, and what it starts, run on one processor: the first, or the last.
fn pin(last: bool) {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    if count < 2 {
        return;
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(if last { count - 1 } else { 0 });
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        println!("not pinned to a processor: {error}");
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    pin(true);
    let Some(cluster) = Cluster::start() else { return };
    pin(false);
    let count: usize = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5000);
    let build = |sticky| {
        let builder = Router::builder().node("n1", cluster.address(0), 1).node("n2", cluster.address(1), 1);
        builder.sticky(sticky).build(NoTls).unwrap()
    };
    let router = build(Sticky::Lsn { ttl: Duration::from_secs(3600), wait: Duration::from_secs(1) });
    let known = |topology: &Topology| topology.primary().is_some() && topology.standbys().count() == 1;
    router.watch().wait_for(|topology| known(topology)).await.unwrap();
    let session = Session::new();
    let fill = "insert into accounts select a, 'somebody', 7 from generate_series(1, 1000) a";
    let schema = "create table accounts (id int primary key, name text, balance bigint)";
    router.execute(schema, &[]).await.unwrap();
    session.scope(router.execute(fill, &[])).await.unwrap();

    let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(cluster.address(1), NoTls, config);
    let pool = Pool::builder(manager).max_size(8).runtime(Runtime::Tokio1).build().unwrap();
    for (name, sql, stuck) in [
        ("a read of 61 bytes", READS, false),
        ("the same after a write (LSN)", READS, true),
        ("select 1", "select 1", false),
    ] {
        let (mut ours, mut theirs) = (Times(Vec::new()), Times(Vec::new()));
        // Once the poll has told that the standby has it, nothing more is asked.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for index in 0..count + 200 {
            let id = i32::try_from(index % 1000).unwrap() + 1;
            let params: &[&(dyn ToSql + Sync)] = if sql.contains("$1") { &[&id] } else { &[] };
            let routed = async {
                let began = Instant::now();
                let rows = match stuck {
                    true => session.scope(router.query(sql, params)).await,
                    false => router.query(sql, params).await,
                };
                let time = began.elapsed();
                assert_eq!(rows.unwrap().len(), 1);
                time
            };
            let plain = async {
                let began = Instant::now();
                let client = pool.get().await.unwrap();
                let statement = client.prepare_cached(sql).await.unwrap();
                let rows = client.query(&statement, params).await.unwrap();
                drop(client);
                let time = began.elapsed();
                assert_eq!(rows.len(), 1);
                time
            };
            let (router, deadpool) = match index % 2 {
                0 => {
                    let router = routed.await;
                    (router, plain.await)
                }
                _ => {
                    let deadpool = plain.await;
                    (routed.await, deadpool)
                }
            };
            // The first ones prepare, and connect.
            if index >= 200 {
                ours.0.push(router);
                theirs.0.push(deadpool);
            }
        }
        print(name, &mut ours, &mut theirs);
    }
    println!("{} reads of each; behind: {}", count, router.stats().behind);
}
