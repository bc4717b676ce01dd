//! [`Ground`]: a cluster in its lab, and what is done to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgdock_core::postgres::process::Family;
use pgdock_core::{Error, NodeName, Result};
use pgdock_testkit::{Answers, Faults};
use rustix::process::{Pid, Signal};
use tokio::sync::Mutex;

use super::fault::{During, Fault, From, Part, Trouble, Way, Whom};
use super::history::History;
use super::hook::{Hook, first_to_say};
use super::lab::{Block, CLIENTS, How, Lab, WITNESS, cannot};
use super::setup::{Setup, set_clock};
use super::store::Store;
use crate::real::RealCluster;
use crate::signals::stop;

/// How long something may take to begin, in the midst of which somebody is to be shot.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);
/// How long a machine that was shot stays away.
const AWAY: Duration = Duration::from_millis(700);
/// How often a disk is filled up again.
const FILL_EVERY: Duration = Duration::from_millis(100);

/// A cluster in its lab.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) setup: Setup,
    pub(super) lab: Arc<Lab>,
    pub(super) cluster: RealCluster,
    pub(super) history: Arc<History>,
    /// One thing at a time happens to the processes of a node.
    held: BTreeMap<NodeName, Mutex<()>>,
    /// The bucket that the witness is in, where it is in one. One thing at a time happens to the witness.
    witness: Mutex<Option<Store>>,
}

impl Ground {
    pub(super) fn new(
        setup: Setup,
        lab: Arc<Lab>,
        cluster: RealCluster,
        store: Option<Store>,
        history: Arc<History>,
    ) -> Self {
        let held = cluster.nodes().into_iter().map(|node| (node, Mutex::default())).collect();
        Self { setup, lab, cluster, history, held, witness: Mutex::new(store) }
    }

    /// Inflicts a fault, from its beginning to its end.
    ///
    /// # Errors
    /// Where the test itself cannot do what it should.
    pub(super) async fn inflict(&self, fault: &Fault) -> Result<()> {
        match *fault {
            Fault::Kill { whom, part, down } => {
                let node = self.find(whom).await;
                let _held = self.held[&node].lock().await;
                let span = self.history.hurt(node.as_str(), &fault.to_string());
                let cut = if part == Part::Machine { Some(self.unplug(&node).await?) } else { None };
                self.kill(&node, part).await;
                tokio::time::sleep(down).await;
                if let Some(cut) = cut {
                    self.lab.mend(cut).await?;
                }
                self.revive(&node);
                self.history.healed(span);
            }
            Fault::Stop { whom, part, time } => {
                let node = self.find(whom).await;
                let _held = self.held[&node].lock().await;
                let span = self.history.hurt(node.as_str(), &fault.to_string());
                self.stop(&node, part).await;
                tokio::time::sleep(time).await;
                // Whatever was stopped goes on: what was born of it meanwhile may be, too.
                self.lab.thaw(node.as_str()).await;
                // An agent that was started a moment before may have been stopped on its way to the host.
                if self.cluster.agent_runs(&node) {
                    self.cluster.signal_agent(&node, Signal::CONT);
                }
                self.history.healed(span);
            }
            Fault::Cut { whom, from, way, how, time } => {
                let node = self.find(whom).await;
                let span = self.history.hurt(node.as_str(), &fault.to_string());
                let cut = self.lab.cut(self.blocks(&node, from, way, how)).await?;
                tokio::time::sleep(time).await;
                self.lab.mend(cut).await?;
                self.history.healed(span);
            }
            Fault::Witness { trouble, time } => {
                let store = self.witness.lock().await;
                let span = self.history.hurt(WITNESS, &fault.to_string());
                match &*store {
                    Some(store) => self.trouble_bucket(store, trouble, time).await?,
                    None => self.trouble_file(trouble, time).await?,
                }
                self.history.healed(span);
            }
            Fault::Clock { whom, hours, time } => {
                let node = self.find(whom).await;
                let span = self.history.hurt(node.as_str(), &fault.to_string());
                set_clock(self.lab.dir(), node.as_str(), hours)?;
                tokio::time::sleep(time).await;
                set_clock(self.lab.dir(), node.as_str(), 0)?;
                self.history.healed(span);
            }
            Fault::DiskFull { whom, time } => {
                let node = self.find(whom).await;
                let _held = self.held[&node].lock().await;
                let span = self.history.hurt(node.as_str(), &fault.to_string());
                self.fill_disk(&node, time).await?;
                self.history.healed(span);
            }
            Fault::Shot { during, part, delay } => self.shoot(fault, during, part, delay).await?,
            Fault::Switchover => {
                let node = self.find(Whom::Primary).await;
                let span = self.history.hurt(node.as_str(), &fault.to_string());
                match self.cluster.cluster.switchover().await {
                    Ok(heir) => self.history.note(&format!("switched over to {heir}")),
                    Err(error) => self.history.note(&format!("no switchover: {}", error.chain())),
                }
                self.history.healed(span);
            }
        }
        Ok(())
    }

    /// The leader, as far as anybody can tell.
    pub(super) async fn leader(&self) -> NodeName {
        let status = self.cluster.cluster.status().await.ok();
        status.and_then(|s| s.leader).unwrap_or_else(|| self.cluster.nodes()[0].clone())
    }

    /// Who is hit.
    async fn find(&self, whom: Whom) -> NodeName {
        let leader = self.leader().await;
        let others: Vec<_> = self.cluster.nodes().into_iter().filter(|node| *node != leader).collect();
        match whom {
            Whom::Primary => leader,
            Whom::Standby(i) => others[i % others.len()].clone(),
        }
    }

    fn family(&self, node: &NodeName) -> Family {
        Family::of(&self.cluster.data_dir(node))
    }

    pub(super) async fn kill(&self, node: &NodeName, part: Part) {
        if matches!(part, Part::Postgres | Part::Both)
            && let Some(postmaster) = self.family(node).postmaster()
        {
            let _ = postmaster.signal(Signal::KILL);
        }
        if part == Part::Machine {
            self.lab.kill(node.as_str()).await;
        }
        if part != Part::Postgres && self.cluster.agent_pid(node).is_some() {
            self.cluster.signal_agent(node, Signal::KILL);
        }
    }

    /// Starts the agent of a node where it does not run.
    pub(super) fn revive(&self, node: &NodeName) {
        if !self.cluster.agent_runs(node) {
            self.cluster.start_agent(node);
        }
    }

    pub(super) async fn stop(&self, node: &NodeName, part: Part) {
        match part {
            Part::Machine | Part::Both => self.lab.freeze(node.as_str()).await,
            Part::Agent => {
                if self.cluster.agent_pid(node).is_some() {
                    self.cluster.signal_agent(node, Signal::STOP);
                }
            }
            Part::Postgres => {
                // Until there is none left that was born meanwhile.
                for _ in 0..3 {
                    for pid in self.cluster.postgres_pids(node) {
                        stop(pid);
                    }
                }
            }
        }
    }

    /// Nothing gets to a node, or from it, any more: nobody is told of anything, as when its power fails.
    pub(super) async fn unplug(&self, node: &NodeName) -> Result<u64> {
        self.lab.cut(self.blocks(node, From::Everybody, Way::Both, How::Drop)).await
    }

    pub(super) fn blocks(&self, node: &NodeName, from: From, way: Way, how: How) -> Vec<Block> {
        let others: Vec<_> = self.cluster.nodes().into_iter().filter(|other| other != node).collect();
        let others = others.iter().map(NodeName::as_str);
        let peers: Vec<&str> = match from {
            From::Node => others.take(1).collect(),
            From::Peers => others.collect(),
            From::Witness => vec![WITNESS],
            From::Cluster => others.chain([WITNESS]).collect(),
            From::Everybody => others.chain([WITNESS, CLIENTS]).collect(),
        };
        let node = node.as_str();
        let cut = |peer: &str| match way {
            Way::Both => Block::both_ways(node, peer, how),
            Way::In => Block::one_way(peer, node, how),
            // Where clients are nothing is filtered.
            Way::Out if peer == CLIENTS => vec![Block { at: node.into(), peer: peer.into(), incoming: false, how }],
            Way::Out => Block::one_way(node, peer, how),
        };
        peers.into_iter().flat_map(cut).collect()
    }

    /// The host of a bucket is in trouble for a while, or the way to it, or what serves it.
    async fn trouble_bucket(&self, store: &Store, trouble: Trouble, time: Duration) -> Result<()> {
        let everybody: Vec<_> = self.cluster.nodes().iter().map(ToString::to_string).chain([CLIENTS.into()]).collect();
        match trouble {
            Trouble::Hangs => {
                self.lab.freeze(WITNESS).await;
                tokio::time::sleep(time).await;
                self.lab.thaw(WITNESS).await;
            }
            Trouble::Refuses | Trouble::Vanishes => {
                let blocks = everybody.iter().flat_map(|host| match trouble {
                    // What comes in is refused; nothing may keep the answer that says so.
                    Trouble::Refuses => Block::one_way(host, WITNESS, How::Reset),
                    _ => Block::both_ways(WITNESS, host, How::Drop),
                });
                let cut = self.lab.cut(blocks.collect()).await?;
                tokio::time::sleep(time).await;
                self.lab.mend(cut).await?;
            }
            Trouble::Slow | Trouble::Overloaded | Trouble::LosesAnswers => {
                store.set(&match trouble {
                    Trouble::Slow => Faults { latency_ms: 300, jitter_ms: 1_200, ..Faults::default() },
                    Trouble::Overloaded => Faults { slow_down: 0.6, too_many: 0.2, ..Faults::default() },
                    _ => Faults { lost_answers: 0.7, lost_answer_is: Answers::Cut, ..Faults::default() },
                })?;
                tokio::time::sleep(time).await;
                store.set(&Faults::default())?;
            }
        }
        Ok(())
    }

    /// A file cannot be got at for a while.
    async fn trouble_file(&self, trouble: Trouble, time: Duration) -> Result<()> {
        let Some(path) = self.cluster.settings.witness.file() else {
            return Err(Error::internal("this witness cannot be troubled"));
        };
        match trouble {
            Trouble::Hangs | Trouble::Vanishes => {
                let lock = File::open(path.with_extension("json.lock")).map_err(|e| cannot("open the lock", e))?;
                rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
                    .map_err(|e| cannot("take the lock", e.into()))?;
                tokio::time::sleep(time).await;
            }
            Trouble::Refuses => {
                let folder = path.parent().unwrap_or(path);
                let away = folder.with_extension("away");
                std::fs::rename(folder, &away).map_err(|e| cannot("move the witness away", e))?;
                tokio::time::sleep(time).await;
                std::fs::rename(&away, folder).map_err(|e| cannot("move the witness back", e))?;
            }
            Trouble::Slow => {
                let end = Instant::now() + time;
                while Instant::now() < end {
                    let lock = File::open(path.with_extension("json.lock")).map_err(|e| cannot("open the lock", e))?;
                    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
                        .map_err(|e| cannot("take the lock", e.into()))?;
                    tokio::time::sleep(Duration::from_millis(700)).await;
                    drop(lock);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            Trouble::Overloaded | Trouble::LosesAnswers => {
                return Err(Error::internal(format!("there is no server of a file. trouble={trouble}")));
            }
        }
        Ok(())
    }

    /// Fills a node's disk to the last block, and again whatever becomes free, for a while.
    async fn fill_disk(&self, node: &NodeName, time: Duration) -> Result<()> {
        let ballast = Ballast::full(&self.cluster.settings.nodes[node].home)?;
        tokio::time::sleep(time).await;
        drop(ballast);
        // An agent that was started meanwhile ended for want of room. Service managers start it again.
        self.revive(node);
        Ok(())
    }

    /// Has something begin, and kills in the midst of it.
    async fn shoot(&self, fault: &Fault, during: During, part: Part, delay: Duration) -> Result<()> {
        let leader = self.leader().await;
        let others: Vec<_> = self.cluster.nodes().into_iter().filter(|node| *node != leader).collect();
        let span = self.history.hurt(leader.as_str(), &format!("has a {during} begin"));
        let hooks = |nodes: &[NodeName]| -> Vec<Hook> {
            nodes.iter().map(|node| Hook::at_end(node.clone(), self.cluster.agent_log(node))).collect()
        };
        let (watched, words) = match during {
            During::Promotion | During::Answer => (others.clone(), "task=\"promoting\""),
            During::Switchover => (vec![leader.clone()], "task=\"stopping\""),
            During::Rewind => (vec![leader.clone()], "task=\"rewinding to the fork\""),
            During::Copy | During::CopySource => (vec![others[0].clone()], "task=\"copying the leader\""),
        };
        let mut hooks = hooks(&watched);
        let cluster = self.cluster.cluster.clone();
        let mut order = None;
        match during {
            During::Promotion => self.kill(&leader, Part::Both).await,
            During::Switchover | During::Answer => {
                order = Some(tokio::spawn(async move { cluster.switchover().await.map(drop) }));
            }
            During::Rewind => self.diverge(&leader).await?,
            During::Copy | During::CopySource => {
                let node = others[0].clone();
                order = Some(tokio::spawn(async move { cluster.reclone(&node).await }));
            }
        }
        let began = first_to_say(&mut hooks, words, BEGINS_WITHIN).await;
        if let Some(node) = &began {
            tokio::time::sleep(delay).await;
            let target = if during == During::CopySource { &leader } else { node };
            let shot = self.history.hurt(target.as_str(), &fault.to_string());
            self.kill(target, part).await;
            tokio::time::sleep(AWAY).await;
            self.revive(target);
            self.history.healed(shot);
        } else {
            self.history.note(&format!("there was no {during} to shoot in"));
        }
        self.revive(&leader);
        self.history.healed(span);
        if let Some(order) = order
            && let Ok(Err(error)) = order.await
        {
            self.history.note(&format!("the order failed: {}", error.chain()));
        }
        Ok(())
    }

    /// Has the leader hold WAL that no standby gets, and lose its power; once another one leads, it is back.
    pub(super) async fn diverge(&self, leader: &NodeName) -> Result<()> {
        for pid in self.wal_senders(leader) {
            stop(pid);
        }
        // Writes go on, acknowledged or not, and are in its WAL. Not for so long that it goes on alone.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let cut = self.unplug(leader).await?;
        self.kill(leader, Part::Machine).await;
        let taken = self.cluster.wait("another node leads", BEGINS_WITHIN, |s| {
            s.leader.as_ref().is_some_and(|l| l != leader) && s.primary().is_some()
        });
        if let Err(error) = taken.await {
            self.history.note(&format!("nobody took over: {}", error.chain().lines().next().unwrap_or_default()));
        }
        self.lab.mend(cut).await?;
        self.revive(leader);
        Ok(())
    }

    /// The processes that send WAL.
    pub(super) fn wal_senders(&self, node: &NodeName) -> Vec<Pid> {
        let pids = self.cluster.postgres_pids(node).into_iter();
        let title = |pid: Pid| std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        pids.filter(|pid| String::from_utf8_lossy(&title(*pid)).contains("walsender")).collect()
    }
}

/// Takes up room on a node's disk, until it is dropped.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    /// Takes whatever becomes free, until it is told to stop.
    filling: Option<(Arc<AtomicBool>, std::thread::JoinHandle<()>)>,
}

impl Ballast {
    /// Takes all, and again whatever becomes free.
    ///
    /// # Errors
    /// Where there is no room for the file itself.
    pub(super) fn full(home: &Path) -> Result<Self> {
        let path = home.join("ballast");
        let mut file = File::create(&path).map_err(|e| cannot("make the ballast", e))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                fill(&mut file);
                std::thread::sleep(FILL_EVERY);
            }
        });
        Ok(Self { path, filling: Some((stop, thread)) })
    }

    /// Leaves so many bytes free, once.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn leaving(home: &Path, bytes: u64) -> Result<Self> {
        let path = home.join("ballast");
        let file = File::create(&path).map_err(|e| cannot("make the ballast", e))?;
        let room = rustix::fs::statvfs(home).map_err(|e| cannot("ask for the room", e.into()))?;
        let size = (room.f_bavail * room.f_frsize).saturating_sub(bytes);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)
            .map_err(|e| cannot("fill the disk", e.into()))?;
        Ok(Self { path, filling: None })
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.filling.take() {
            stop.store(true, Ordering::Relaxed);
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Takes all that is free.
fn fill(ballast: &mut File) {
    let mut size = 4 << 20;
    let zeroes = vec![0u8; size];
    while size >= 512 {
        match ballast.write(&zeroes[..size]) {
            Ok(written) if written > 0 => {}
            _ => size /= 2,
        }
    }
}
