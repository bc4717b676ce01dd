//! [`Campaign`]: a run from beginning to end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgdock_core::cluster::ClusterStatus;
use pgdock_core::postgres::diverged::Diverged;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, NodeName, Result};

use super::client::{self, Clients, ROAMING, TABLE, make_table, names};
use super::fault::Fault;
use super::history::{History, Micros};
use super::hurt::Ground;
use super::lab::{Lab, cannot};
use super::picture;
use super::plan::{MIXED, Mode, Plan};
use super::routed::Routed;
use super::scenario;
use super::setup::{LAG_BYTES_MAX, Setup, Special};
use super::verdict::{Content, Evidence, Verdict};
use crate::real::{healthy, until};

/// How long a cluster may take to get well once nothing is wrong any more.
const WELL_WITHIN: Duration = Duration::from_secs(120);
/// All is well when it was for so long.
const LASTING: Duration = Duration::from_millis(700);

/// A run.
#[derive(Debug)]
pub struct Campaign {
    pub(super) ground: Ground,
    clients: Clients,
    routed: Option<Routed>,
    out: PathBuf,
    pub(super) diverged: BTreeMap<PathBuf, Diverged>,
    failures: Vec<String>,
    slowest: Duration,
    /// An operator forced a failover, and accepted what is lost with it.
    pub(super) forced: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What its history proves.
    pub verdict: Verdict,
    /// How long it took to get well, at most.
    pub slowest: Duration,
    /// The longest time without an acknowledgement to a client that goes wherever the primary is.
    pub gap: Duration,
    /// How many faults there were.
    pub faults: usize,
}

impl Campaign {
    /// Brings a cluster up in a lab, with clients that write. What comes of it goes into the folder `out`.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub async fn begin(lab: &Arc<Lab>, setup: Setup, special: &Special, out: &Path) -> Result<Self> {
        // What an earlier run left there would be taken for what this one saw.
        let _ = std::fs::remove_dir_all(out);
        std::fs::create_dir_all(out).map_err(|e| cannot("make a folder for the outcome", e))?;
        let (cluster, store) = setup.make(Arc::clone(lab), special).await?;
        let mut failures = Vec::new();
        if let (true, Some(store)) = (special.broken_store, &store) {
            failures = scenario::founds_nothing_on(store, &cluster).await?;
        }
        if let Err(error) = cluster.begin().await {
            cluster.print_logs();
            return Err(error);
        }
        make_table(&cluster).await?;
        let nodes = cluster.nodes();
        let texts = nodes.iter().map(ToString::to_string).collect();
        let history = Arc::new(History::begin(&out.join("history.jsonl"), texts, names(&nodes))?);
        let clients = Clients::start(&cluster, lab, &history)?;
        let guarded = setup.durability() != Durability::Async;
        let routed =
            special.routed.then(|| Routed::start(&cluster, &history, client::routed(&nodes), guarded)).transpose()?;
        let ground = Ground::new(setup, Arc::clone(lab), cluster, store, history);
        let mut this = Self {
            ground,
            clients,
            routed,
            out: out.to_owned(),
            diverged: BTreeMap::new(),
            failures,
            slowest: Duration::ZERO,
            forced: false,
        };
        this.well().await?;
        Ok(this)
    }

    /// Inflicts all faults of a plan. Ends early where the cluster does not get well.
    ///
    /// # Errors
    /// Where the test itself cannot do what it should.
    pub async fn inflict(&mut self, plan: &Plan) -> Result<()> {
        match plan.mode {
            Mode::Single => {
                for (i, (pause, fault)) in plan.faults.iter().enumerate() {
                    tokio::time::sleep(*pause).await;
                    tell(i + 1, plan.faults.len(), fault);
                    self.ground.inflict(fault).await?;
                    if self.well().await.is_err() {
                        return Ok(());
                    }
                }
            }
            Mode::Mixed => {
                for (group, faults) in plan.faults.chunks(MIXED).enumerate() {
                    let ground = &self.ground;
                    let begun = faults.iter().enumerate().scan(Duration::ZERO, |at, (i, (pause, fault))| {
                        *at += *pause;
                        let (at, number) = (*at, group * MIXED + i + 1);
                        Some(async move {
                            tokio::time::sleep(at).await;
                            tell(number, plan.faults.len(), fault);
                            ground.inflict(fault).await
                        })
                    });
                    for done in all(begun.collect()).await {
                        done?;
                    }
                    if self.well().await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until all is well: one primary, all others streaming, commits guarded where they shall be, and
    /// clients get on.
    ///
    /// # Errors
    /// `Unavailable` when it is not in time; that is noted.
    pub async fn well(&mut self) -> Result<()> {
        let begin = Instant::now();
        let ground = &self.ground;
        let waited = async {
            // What an agent said last may be from before the fault: it counts once it was so for a while.
            let mut since = None;
            let lasting = |s: &ClusterStatus| {
                let well = healthy(s, true);
                let since = since.get_or_insert_with(Instant::now);
                if !well {
                    *since = Instant::now();
                }
                well && since.elapsed() > LASTING
            };
            ground.cluster.wait("one primary, all others streaming", WELL_WITHIN, lasting).await?;
            let since = ground.history.now();
            until("clients get on", WELL_WITHIN, async || ground.history.acknowledged_since(since, 0..ROAMING) >= 3)
                .await?;
            let Some(routed) = &self.routed else { return Ok(()) };
            let application = client::routed(&ground.cluster.nodes());
            let gets_on = async || ground.history.acknowledged_since(since, application..application + 1) >= 3;
            until("the application behind the router gets on", WELL_WITHIN, gets_on)
                .await
                .map_err(|error| error.hint(format!("the router knows: {}", routed.topology())))
        };
        let waited = waited.await;
        self.collect_diverged();
        match waited {
            Ok(()) => {
                self.ground.history.settled();
                self.slowest = self.slowest.max(begin.elapsed());
                self.tidy();
                Ok(())
            }
            Err(error) => {
                self.failures.push(format!("it does not get well: {}", error.chain()));
                Err(error)
            }
        }
    }

    /// Notes that something is wrong.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// Does what the manual asks of operators: removes the data directories that were replaced.
    fn tidy(&self) {
        for node in self.ground.cluster.settings.nodes.values() {
            for entry in std::fs::read_dir(&node.home).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with("data.old") {
                    let _ = std::fs::remove_dir_all(entry.path());
                }
            }
        }
    }

    /// Reads the reports of what diverged. They are kept; the WAL that lies beside them is not needed.
    fn collect_diverged(&mut self) {
        for node in self.ground.cluster.settings.nodes.values() {
            for entry in std::fs::read_dir(node.home.join("diverged")).into_iter().flatten().flatten() {
                let folder = entry.path();
                let Ok(text) = std::fs::read_to_string(folder.join("report.json")) else { continue };
                let Ok(report) = serde_json::from_str::<Diverged>(&text) else { continue };
                for file in &report.files {
                    let _ = std::fs::remove_file(folder.join(file));
                }
                self.diverged.insert(folder, report);
            }
        }
    }

    /// Stops the clients, looks into every node, and judges.
    ///
    /// # Errors
    /// Where what was seen cannot be written down.
    pub async fn end(mut self, title: &str, replay: &str) -> Result<Outcome> {
        self.ground.lab.mend_all().await?;
        self.collect_diverged();
        self.clients.stop().await;
        if let Some(routed) = self.routed.take() {
            self.failures.extend(routed.stop().await);
        }
        let facts = self.ground.history.end();
        let mut contents = Vec::new();
        let mut present = BTreeSet::new();
        for node in self.ground.cluster.nodes() {
            match look_into(&self.ground, &node).await {
                Ok((content, numbers)) => {
                    contents.push(content);
                    present = numbers;
                }
                Err(error) => self.failures.push(format!("{node} cannot be looked into: {}", error.chain())),
            }
        }
        let setup = self.ground.setup;
        let evidence = Evidence {
            durability: setup.durability(),
            ttl: micros(setup.ttl() + setup.heartbeat()),
            lag_bytes_max: LAG_BYTES_MAX,
            forced: self.forced,
            present,
            contents,
            diverged: self.diverged.into_values().collect(),
            failures: self.failures,
            facts,
        };
        let verdict = Verdict::of(&evidence);
        let gaps = picture::gaps(&evidence.facts);
        let svg = picture::draw(&evidence.facts, title, &verdict);
        let write = |name: &str, text: &str| {
            std::fs::write(self.out.join(name), text).map_err(|e| cannot("write the outcome", e))
        };
        write("timeline.svg", &svg)?;
        let mut text = format!("{title}\n{verdict:?}\nreplay: {replay}\n");
        for violation in &verdict.violations {
            let _ = writeln!(text, "{violation}");
        }
        write("verdict.txt", &text)?;
        let reports = serde_json::to_string_pretty(&evidence.diverged)
            .map_err(|e| Error::internal("cannot write down what diverged").because(e))?;
        write("diverged.json", &reports)?;
        if !verdict.passed() {
            save_logs(&self.ground, &self.out);
        }
        let gap = gaps.iter().map(|(from, to)| to - from).max().unwrap_or_default();
        let faults = evidence.facts.spans.len();
        Ok(Outcome { verdict, slowest: self.slowest, gap: Duration::from_micros(gap), faults })
    }
}

fn micros(time: Duration) -> Micros {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn tell(number: usize, of: usize, fault: &Fault) {
    eprintln!("  fault {number}/{of}: {fault}");
}

/// Runs all of them to their ends.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(context)
            {
                *output = Some(done);
            }
        }
        if outputs.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// What a node holds, once it has all that the primary has.
async fn look_into(ground: &Ground, node: &NodeName) -> Result<(Content, BTreeSet<i64>)> {
    let failed = |e: tokio_postgres::Error| Error::unavailable("a question failed").because(e);
    let end: String = ground
        .cluster
        .route()?
        .connect()
        .await?
        .query_one("SELECT pg_current_wal_insert_lsn()::text", &[])
        .await
        .map_err(failed)?
        .get(0);
    let client = ground.cluster.route_to(node)?.connect().await?;
    let caught_up =
        format!("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() >= '{end}'::pg_lsn ELSE true END");
    until("it has all of the WAL", WELL_WITHIN, async || {
        client.query_one(&caught_up, &[]).await.is_ok_and(|row| row.get::<_, Option<bool>>(0) == Some(true))
    })
    .await?;
    let rows = client.query(&format!("SELECT number FROM {TABLE}"), &[]).await.map_err(failed)?;
    let numbers: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let row = client
        .query_one(
            &format!(
                "SELECT count(*), coalesce(md5(string_agg(number::text, ',' ORDER BY number)), '')
                   FROM {TABLE}"
            ),
            &[],
        )
        .await
        .map_err(failed)?;
    let timeline = |status: &ClusterStatus| status.node(node).and_then(|n| n.timeline);
    // On a busy machine an agent may miss one question.
    let status = ground.cluster.wait("it tells its timeline", WELL_WITHIN, |s| timeline(s).is_some()).await?;
    let timeline = timeline(&status).expect("it was just seen");
    let file = ground.cluster.data_dir(node).join(format!("pg_wal/{:08X}.history", timeline.0));
    let history = std::fs::read_to_string(file).unwrap_or_default();
    let rows = row.get::<_, i64>(0).cast_unsigned();
    let content = Content { node: node.to_string(), timeline, history, rows, digest: row.get(1) };
    Ok((content, numbers))
}

/// Keeps what agents and PostgreSQL said, and their events.
fn save_logs(ground: &Ground, out: &Path) {
    for node in ground.cluster.nodes() {
        let home = &ground.cluster.settings.nodes[&node].home;
        for (from, name) in [
            (ground.cluster.agent_log(&node), "agent.log"),
            (home.join("logs/postgresql.log"), "postgresql.log"),
            (home.join("logs/events.ndjson"), "events.ndjson"),
            (home.join("logs/deadman.log"), "deadman.log"),
            (home.join("state.json"), "state.json"),
        ] {
            let _ = std::fs::copy(from, out.join(format!("{node}.{name}")));
        }
    }
}
