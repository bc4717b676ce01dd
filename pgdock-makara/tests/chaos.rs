//! Sixteen tasks read and write while servers are killed, switched over, frozen and cut off. What was acknowledged is
//! there in the end, what a session wrote it reads, and no task waits past its deadlines.
//!
//! The faults are drawn by seed. `PGDOCK_CHAOS_FAULTS` says how many, `PGDOCK_CHAOS_SEED` which; a failure prints the line
//! that repeats it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pgdock_makara::{BanPolicy, Error, Limits, Role, Router, Session, Sticky};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;

#[path = "real/cluster.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod cluster;

use cluster::{Cluster, HOSTS};

const TASKS: i32 = 16;
/// All the limits of the router one after the other, with room for a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);

/// Stands between the router and a server, and can be cut: what was sent then arrives later, or never.
struct Wire {
    port: u16,
    cut: watch::Sender<bool>,
}

impl Wire {
    async fn to(host: &'static str, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let cut = watch::Sender::new(false);
        let state = cut.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let state = state.clone();
                tokio::spawn(async move {
                    let _ = state.subscribe().wait_for(|cut| !cut).await;
                    let Ok(server) = TcpStream::connect((host, port)).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    // When one direction ends, so does the other.
                    tokio::select! {
                        () = pass(from_client, to_server, state.subscribe()) => {}
                        () = pass(from_server, to_client, state.subscribe()) => {}
                    }
                });
            }
        });
        Self { port: own, cut }
    }
}

async fn pass(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut cut: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let _ = cut.wait_for(|cut| !cut).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The primary is killed, and the standby promoted.
    Kill,
    /// The same, but in order.
    SwitchOver,
    /// The primary freezes, and is killed after the standby was promoted.
    FreezeAndPromote,
    /// A node freezes, and thaws.
    Freeze(usize),
    /// The router cannot reach a node for a while.
    Cut(usize),
    /// The standby is killed, and started again.
    KillStandby,
}

/// Draws faults.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn fault(&mut self) -> Fault {
        match self.roll(8) {
            0 | 1 => Fault::Kill,
            2 => Fault::SwitchOver,
            3 => Fault::FreezeAndPromote,
            4 | 5 => Fault::Freeze(usize::try_from(self.roll(2)).unwrap()),
            6 => Fault::Cut(usize::try_from(self.roll(2)).unwrap()),
            _ => Fault::KillStandby,
        }
    }
}

/// Makes the server that was the primary the standby of the other.
fn rejoin(cluster: &Cluster, node: usize) {
    let (data, port) = (cluster.data(node), cluster.port.to_string());
    std::fs::remove_dir_all(&data).unwrap();
    let from = HOSTS[1 - node];
    cluster.run(
        "pg_basebackup",
        &["-h", from, "-p", &port, "-U", "postgres", "-D", &data, "-R", "-c", "fast", "--no-sync"],
    );
    cluster.start_node(node);
}

/// Does it, and returns who is the primary after it. The servers are whole again then.
fn strike(cluster: &Cluster, wires: &[Wire; 2], fault: Fault, primary: usize) -> usize {
    let standby = 1 - primary;
    let a_while = || std::thread::sleep(Duration::from_millis(2500));
    match fault {
        Fault::Kill => {
            cluster.stop(primary);
            cluster.promote(standby);
            rejoin(cluster, primary);
            standby
        }
        Fault::SwitchOver => {
            cluster.run("pg_ctl", &["-D", &cluster.data(primary), "-m", "fast", "-s", "-w", "stop"]);
            cluster.promote(standby);
            rejoin(cluster, primary);
            standby
        }
        Fault::FreezeAndPromote => {
            cluster.signal(primary, "-STOP");
            cluster.promote(standby);
            a_while();
            cluster.signal(primary, "-KILL");
            rejoin(cluster, primary);
            standby
        }
        Fault::Freeze(node) => {
            cluster.signal(node, "-STOP");
            a_while();
            cluster.signal(node, "-CONT");
            primary
        }
        Fault::Cut(node) => {
            wires[node].cut.send_replace(true);
            a_while();
            wires[node].cut.send_replace(false);
            primary
        }
        Fault::KillStandby => {
            cluster.stop(standby);
            cluster.start_node(standby);
            primary
        }
    }
}

#[derive(Default)]
struct Counts {
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    reads: AtomicU64,
    reads_on_standby: AtomicU64,
}

/// Writes a number, reads it back in the same session, and goes on with the next. Returns the last that was acknowledged.
async fn work(router: Router, task: i32, stop: Arc<AtomicBool>, counts: Arc<Counts>) -> Vec<i32> {
    let session = Session::new();
    let (mut number, mut acknowledged) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        session
            .scope(async {
                let params: [&(dyn ToSql + Sync); 2] = [&task, &number];
                let insert = router.execute("insert into t values ($1, $2)", &params);
                let written = timeout(DEADLINE, insert).await.expect("a write past its deadlines");
                match &written {
                    Ok(_) => {
                        acknowledged.push(number);
                        counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) if error.had_no_effect() => {
                        counts.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(Error::OutcomeUnknown { .. } | Error::NotReplicated { .. }) => {
                        counts.unknown.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => panic!("{error:?}"),
                }
                let sql = "select max(number), current_setting('in_hot_standby') from t where task = $1";
                let read = router.query_one(sql, &params[..1]);
                let read = timeout(DEADLINE, read).await.expect("a read past its deadlines");
                if let Ok(row) = read {
                    counts.reads.fetch_add(1, Ordering::Relaxed);
                    let standby = row.get::<_, &str>(1) == "on";
                    counts.reads_on_standby.fetch_add(u64::from(standby), Ordering::Relaxed);
                    let seen = row.get::<_, Option<i32>>(0).unwrap_or(0);
                    let own = acknowledged.last().copied().unwrap_or(0);
                    assert!(seen >= own, "task {task} wrote {own} and reads {seen}, on a standby: {standby}");
                }
                let _ = session.commit();
            })
            .await;
        tokio::task::yield_now().await;
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_lost_and_every_session_reads_what_it_wrote() {
    let Some(cluster) = Cluster::start() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let (seed, faults) = (number("PGDOCK_CHAOS_SEED").unwrap_or(7), number("PGDOCK_CHAOS_FAULTS").unwrap_or(6));
    println!("PGDOCK_CHAOS_SEED={seed} PGDOCK_CHAOS_FAULTS={faults} cargo test -p pgdock-makara --test chaos");
    let cluster = Arc::new(cluster);
    let wires = Arc::new([Wire::to(HOSTS[0], cluster.port).await, Wire::to(HOSTS[1], cluster.port).await]);
    let address = |node: usize| {
        let mut address = tokio_postgres::Config::new();
        address.host("127.0.0.1").port(wires[node].port).user("postgres").dbname("postgres");
        address
    };
    let mut limits = Limits::default();
    (limits.connect, limits.statement) = (Duration::from_secs(1), Duration::from_secs(2));
    (limits.failover_wait, limits.poll) = (Duration::from_secs(5), Duration::from_millis(200));
    let router = Router::builder()
        .node("n1", address(0), 1)
        .node("n2", address(1), 1)
        .limits(limits)
        .ban(BanPolicy::lasting(Duration::from_millis(500)))
        // Longer than a write may take that comes to nothing, so that none is forgotten for one that failed.
        .sticky(Sticky::Lsn { ttl: Duration::from_secs(8), wait: Duration::from_millis(50) })
        .build(NoTls)
        .unwrap();
    let healthy = async |what: &str| {
        let whole = async {
            let mut changes = router.watch();
            let both = |topology: &pgdock_makara::Topology| {
                topology.primary().is_some() && topology.standbys().any(|node| node.banned.is_none())
            };
            changes.wait_for(|topology| both(topology)).await.unwrap();
            while router.execute("insert into t values (-1, -1)", &[]).await.is_err() {}
            // Every connection that the pools may lend works.
            let reads = (0..32).map(|_| router.query("select 1", &[]));
            futures_util::future::try_join_all(reads).await
        };
        let outcome = timeout(PATIENCE, whole).await;
        assert!(
            matches!(outcome, Ok(Ok(_))),
            "not healthy after {what}: {:?}, {:?}",
            router.topology(),
            router.stats()
        );
    };
    router.batch_execute("create table t (task int, number int)").await.unwrap();
    // No acknowledged write is on one server alone; a copy under way is none. Copies have the setting, too.
    for node in 0..2 {
        let (admin, connection) = cluster.address(node).connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        admin.batch_execute("alter system set synchronous_standby_names = 'walreceiver'").await.unwrap();
        admin.batch_execute("select pg_reload_conf()").await.unwrap();
    }
    healthy("the beginning").await;

    let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (router, stop, counts) = (router.clone(), stop.clone(), counts.clone());
        tasks.spawn(async move { (task, work(router, task, stop, counts).await) });
    }
    let (mut dice, mut primary) = (Dice(seed), 0);
    for index in 0..faults {
        let fault = dice.fault();
        let before = counts.acknowledged.load(Ordering::Relaxed);
        let (servers, lines) = (cluster.clone(), wires.clone());
        primary = spawn_blocking(move || strike(&servers, &lines, fault, primary)).await.unwrap();
        healthy(&format!("{fault:?}")).await;
        let topology = router.topology();
        let leads =
            topology.nodes.iter().position(|node| Some(&node.name) == topology.primary().map(|node| &node.name));
        assert_eq!(leads, Some(primary), "after {fault:?}: {topology:?}");
        assert!(topology.nodes.iter().all(|node| node.role != Role::Unknown), "{topology:?}");
        // A moment of peace, in which all get on, and the standby takes part.
        let marks =
            [&counts.acknowledged, &counts.reads_on_standby].map(|count| (count, count.load(Ordering::Relaxed)));
        let goes_on = async {
            while marks.iter().any(|(count, mark)| count.load(Ordering::Relaxed) < mark + 100) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let state = || format!("{:?}, {:?}", router.topology(), router.stats());
        assert!(timeout(PATIENCE, goes_on).await.is_ok(), "after {fault:?} nobody gets on: {}", state());
        println!("{index}: {fault:?}, {} acknowledged", counts.acknowledged.load(Ordering::Relaxed) - before);
    }
    stop.store(true, Ordering::Relaxed);
    let (direct, connection) = cluster.address(primary).connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let mut total = 0;
    while let Some(ended) = timeout(PATIENCE, tasks.join_next()).await.expect("all tasks end") {
        let (task, acknowledged) = ended.unwrap();
        let rows = direct.query("select number from t where task = $1", &[&task]).await.unwrap();
        let there: std::collections::BTreeSet<i32> = rows.iter().map(|row| row.get(0)).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|number| !there.contains(number)).collect();
        assert!(lost.is_empty(), "task {task} lost {lost:?}");
        assert_eq!(there.len(), rows.len(), "nothing was written twice");
        total += acknowledged.len();
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{total} acknowledged, {} unknown, {} refused; {} reads, {} of them on a standby; {:?}",
        count(&counts.unknown),
        count(&counts.refused),
        count(&counts.reads),
        count(&counts.reads_on_standby),
        router.stats()
    );
}
