//! Tasks of an application behind the router of `pgdock-makara`, which hears from the agents who leads: each writes, and
//! reads what it wrote from whichever node the router thinks fit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pgdock_core::{NodeName, Result};
use pgdock_makara::{Error, Limits, Router, Session, Sticky};
use tokio::task::JoinSet;

use super::client::{INSERT, place};
use super::history::{History, Outcome, Write};
use crate::real::RealCluster;

/// How many tasks there are.
pub const TASKS: u16 = 16;

const PAUSE: Duration = Duration::from_millis(40);
/// Where a task's numbers begin, and how far apart they are.
const NUMBERS: u32 = 32;

const READ: &str = "SELECT count(*) FROM acknowledged WHERE number = $1";

/// All that a router may wait for one thing after the other, with room for a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.connect = Duration::from_secs(1);
    limits.statement = Duration::from_secs(3);
    limits.failover_wait = Duration::from_secs(15);
    limits
}

/// Tasks at work.
#[derive(Debug)]
pub struct Routed {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    wrong: Arc<Mutex<Vec<String>>>,
    router: Router,
}

/// What all tasks share.
struct Application {
    router: Router,
    history: Arc<History>,
    /// Names of nodes, by their addresses.
    nodes: Vec<(NodeName, String)>,
    /// Their place among the clients of the history.
    client: u16,
    /// Whether all that is acknowledged outlives its primary.
    guarded: bool,
    stop: Arc<AtomicBool>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Routed {
    /// Begins. The table must exist.
    ///
    /// # Errors
    /// Where the secrets cannot be read.
    pub fn start(cluster: &RealCluster, history: &Arc<History>, client: u16, guarded: bool) -> Result<Self> {
        let sticky = Sticky::Lsn { ttl: Duration::from_secs(60), wait: Duration::from_millis(200) };
        let router = cluster.router_by_agents(|builder| builder.limits(limits()).sticky(sticky))?;
        let nodes = cluster.settings.nodes.iter().map(|(name, node)| (name.clone(), node.address.clone())).collect();
        let (stop, wrong) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let application = Arc::new(Application {
            router: router.clone(),
            history: Arc::clone(history),
            nodes,
            client,
            guarded,
            stop: Arc::clone(&stop),
            wrong: Arc::clone(&wrong),
        });
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            tasks.spawn(Arc::clone(&application).work(task));
        }
        Ok(Self { stop, tasks, wrong, router })
    }

    /// Stops, and says what was wrong.
    pub async fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut self.wrong.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the router thinks of the nodes.
    #[must_use]
    pub fn topology(&self) -> String {
        self.router.topology().to_string()
    }
}

impl Application {
    async fn work(self: Arc<Self>, task: u16) {
        let first = (i64::from(self.client) << 40) + (i64::from(task) << NUMBERS);
        for number in first.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // A request of its own for each, as a web service has.
            let session = Session::new();
            if self.writes(&session, number).await {
                self.reads(&session, number).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes a number; whether it was acknowledged.
    async fn writes(&self, session: &Session, number: i64) -> bool {
        let (began, sent) = (Instant::now(), self.history.now());
        let answer = session.scope(self.router.query_one(INSERT, &[&number])).await;
        self.in_time("a write", number, began);
        let (outcome, node) = match &answer {
            Ok(row) => (Outcome::Acknowledged(place(row)), self.node_at(row.get(3))),
            Err(Error::NotReplicated { node }) => (Outcome::Cancelled, self.node_named(node)),
            Err(Error::OutcomeUnknown { node, .. }) => (Outcome::Unknown, self.node_named(node)),
            Err(error) if error.had_no_effect() => return false,
            Err(_) => (Outcome::Unknown, 0),
        };
        let ended = self.history.now();
        self.history.wrote(Write { client: self.client, node, number, sent, ended, outcome });
        answer.is_ok()
    }

    /// Reads what the session wrote: it is there, or the read fails.
    async fn reads(&self, session: &Session, number: i64) {
        let began = Instant::now();
        let answer = session.scope(self.router.query_one(READ, &[&number])).await;
        self.in_time("a read", number, began);
        if let Ok(row) = answer
            && row.get::<_, i64>(0) != 1
            && self.guarded
        {
            self.wrong(format!(
                "{number} was acknowledged to a session that did not find it: {}",
                self.router.topology()
            ));
        }
    }

    fn in_time(&self, what: &str, number: i64, began: Instant) {
        if began.elapsed() > DEADLINE {
            self.wrong(format!("{what} of {number} took {} s behind the router", began.elapsed().as_secs()));
        }
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn node_named(&self, name: &str) -> u16 {
        self.place_of(|(node, _)| node.as_str() == name)
    }

    fn node_at(&self, address: &str) -> u16 {
        self.place_of(|(_, of)| of == address)
    }

    fn place_of(&self, is: impl Fn(&(NodeName, String)) -> bool) -> u16 {
        let place = self.nodes.iter().position(is).expect("the router knows no other nodes");
        u16::try_from(place).expect("there are few nodes")
    }
}
