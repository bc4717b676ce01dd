//! [`Lab`]: a network of the test's own, with a namespace for each node and one for the witness.
//!
//! ```text
//!              10.77.0.1, the test and its clients
//!   ┌──────────┬──── bridge ─────┬──────────────┐
//!   n1        n2                n3           witness        each a namespace
//!  .11        .12               .13           .200
//! ```
//!
//! Packets are dropped or refused in the namespaces, by the kernel's packet filter: what an application
//! sees is what it would see of a cable, a switch or a firewall. Only to be used inside of an
//! [enclosure](super::enclosure).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex as StdMutex;
use std::time::Duration;

use pgdock_core::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use super::enclosure;
use crate::signals::{state, stopped};

/// The host that the witness is on.
pub const WITNESS: &str = "witness";
/// The host that clients are on, outside of all namespaces but the enclosure's.
pub(super) const CLIENTS: &str = "clients";

/// How often the processes of a host are looked for again, until none is left that was missed.
const ROUNDS_MAX: u32 = 50;
const ROUND_PAUSE: Duration = Duration::from_millis(2);

/// What happens to packets that do not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// They vanish.
    Drop,
    /// Whoever sent them is told that the connection is closed.
    Reset,
}

/// Packets of one direction that do not get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where.
    pub at: String,
    /// From whom, or to whom.
    pub peer: String,
    /// Those that come in, or those that go out.
    pub incoming: bool,
    /// What happens to them.
    pub how: How,
}

impl Block {
    /// Nothing gets from one host to another any more. Stopped where it arrives.
    #[must_use]
    pub fn one_way(from: &str, to: &str, how: How) -> Vec<Self> {
        vec![Self { at: to.into(), peer: from.into(), incoming: true, how }]
    }

    /// Nothing gets through between two hosts.
    #[must_use]
    pub fn both_ways(a: &str, b: &str, how: How) -> Vec<Self> {
        let block = |incoming| Self { at: a.into(), peer: b.into(), incoming, how };
        vec![block(true), block(false)]
    }
}

/// A network of the test's own.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    hosts: BTreeMap<String, Host>,
    cuts: Mutex<Cuts>,
    /// Variables for the programs of nodes.
    env: StdMutex<BTreeMap<String, Vec<(String, String)>>>,
    /// The disks that were given to folders.
    disks: StdMutex<Vec<PathBuf>>,
}

#[derive(Debug)]
struct Host {
    address: String,
    /// The number of its namespace.
    namespace: u64,
}

#[derive(Debug, Default)]
struct Cuts {
    last: u64,
    blocks: Vec<(u64, Block)>,
}

impl Lab {
    /// Makes the network for so many nodes. `dir` lives in memory alone.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn make(dir: PathBuf, nodes: usize) -> Result<Self> {
        let mut batch = String::from(
            "link set lo up\nlink add lab0 type bridge\naddr add 10.77.0.1/24 dev lab0\nlink set lab0 up\n",
        );
        let names = (1..=nodes).map(|i| (format!("n{i}"), format!("10.77.0.{}", 10 + i)));
        let names: Vec<_> = names.chain([(WITNESS.to_owned(), "10.77.0.200".to_owned())]).collect();
        for (name, _) in &names {
            let _ = writeln!(batch, "netns add {name}");
        }
        ip(&["-batch", "-"], &batch).await?;
        // Now that they are there, they can be linked and moved into.
        let mut batch = String::new();
        for (name, _) in &names {
            let _ = writeln!(batch, "link add v-{name} type veth peer name eth0 netns {name}");
            let _ = writeln!(batch, "link set v-{name} master lab0 up");
        }
        ip(&["-batch", "-"], &batch).await?;
        let mut hosts = BTreeMap::new();
        for (name, address) in names {
            let batch = format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
            ip(&["-n", &name, "-batch", "-"], &batch).await?;
            let namespace = std::fs::metadata(namespace_file(&name)).map_err(|e| cannot("find a namespace", e))?.ino();
            hosts.insert(name, Host { address, namespace });
        }
        Ok(Self { dir, hosts, cuts: Mutex::default(), env: StdMutex::default(), disks: StdMutex::default() })
    }

    /// Kills whoever is left on any host, and takes away what a cluster was given, so that another one can come.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn clear(&self) -> Result<()> {
        self.mend_all().await?;
        for host in self.hosts.keys() {
            self.kill(host).await;
        }
        self.env.lock().expect("nobody panics with it").clear();
        for disk in std::mem::take(&mut *self.disks.lock().expect("nobody panics with it")) {
            enclosure::unmount(&disk);
        }
        for entry in std::fs::read_dir(&self.dir).map_err(|e| cannot("list the folder", e))?.flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
        Ok(())
    }

    /// The folder that lives in memory alone.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A host's address.
    ///
    /// # Panics
    /// Where there is no such host.
    #[must_use]
    pub fn address(&self, host: &str) -> &str {
        if host == CLIENTS { "10.77.0.1" } else { &self.hosts[host].address }
    }

    /// A program that will run on a host.
    #[must_use]
    pub fn command(&self, host: &str, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace_file(host).display())).arg("--").arg(program);
        let env = self.env.lock().expect("nobody panics with it");
        command.envs(env.get(host).into_iter().flatten().cloned());
        command
    }

    /// Sets a variable for the programs that will run on a host.
    pub fn set_env(&self, host: &str, name: &str, value: &str) {
        let mut env = self.env.lock().expect("nobody panics with it");
        env.entry(host.to_owned()).or_default().push((name.to_owned(), value.to_owned()));
    }

    /// Has the present thread be on a host: what it opens from now on is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn enter(&self, host: &str) -> std::io::Result<()> {
        let file = std::fs::File::open(namespace_file(host))?;
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        Ok(rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind)?)
    }

    /// Gives a folder a disk of its own, of a size in bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn give_disk(&self, folder: &Path, bytes: u64) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| cannot("make a folder", e))?;
        enclosure::mount(folder, &format!("mode=0755,size={bytes}")).map_err(|e| cannot("mount a disk", e))?;
        self.disks.lock().expect("nobody panics with it").push(folder.to_owned());
        Ok(())
    }

    /// Has packets not get through, until the cut with this number is mended.
    ///
    /// # Errors
    /// What the packet filter says.
    pub async fn cut(&self, blocks: Vec<Block>) -> Result<u64> {
        let mut cuts = self.cuts.lock().await;
        cuts.last += 1;
        let id = cuts.last;
        let mut places: Vec<_> = blocks.iter().map(|b| b.at.clone()).collect();
        cuts.blocks.extend(blocks.into_iter().map(|block| (id, block)));
        places.sort();
        places.dedup();
        for at in places {
            self.filter(&at, &cuts).await?;
        }
        Ok(id)
    }

    /// Lets packets through again.
    ///
    /// # Errors
    /// What the packet filter says.
    pub async fn mend(&self, id: u64) -> Result<()> {
        let mut cuts = self.cuts.lock().await;
        let mut places: Vec<_> = cuts.blocks.iter().filter(|(i, _)| *i == id).map(|(_, b)| b.at.clone()).collect();
        cuts.blocks.retain(|(i, _)| *i != id);
        places.sort();
        places.dedup();
        for at in places {
            self.filter(&at, &cuts).await?;
        }
        Ok(())
    }

    /// Lets everything through again.
    ///
    /// # Errors
    /// What the packet filter says.
    pub async fn mend_all(&self) -> Result<()> {
        let ids: Vec<_> = self.cuts.lock().await.blocks.iter().map(|(id, _)| *id).collect();
        for id in ids {
            self.mend(id).await?;
        }
        Ok(())
    }

    /// Puts a host's rules in place, all in one step.
    async fn filter(&self, at: &str, cuts: &Cuts) -> Result<()> {
        let chain = |incoming: bool| {
            let blocks = cuts.blocks.iter().map(|(_, b)| b).filter(|b| b.at == at && b.incoming == incoming);
            blocks.fold(String::new(), |mut rules, block| {
                let whom = format!("ip {} {}", if incoming { "saddr" } else { "daddr" }, self.address(&block.peer));
                if block.how == How::Reset {
                    let _ = writeln!(rules, "{whom} meta l4proto tcp reject with tcp reset");
                }
                let _ = writeln!(rules, "{whom} drop");
                rules
            })
        };
        let rules = format!(
            "flush ruleset\ntable inet lab {{\n\
             chain input {{ type filter hook input priority 0; policy accept;\n{}}}\n\
             chain output {{ type filter hook output priority 0; policy accept;\n{}}}\n}}\n",
            chain(true),
            chain(false)
        );
        let mut command = self.command(at, Path::new("nft"));
        run(command.args(["-f", "-"]), &rules).await
    }

    /// Every process on a host.
    #[must_use]
    pub fn processes(&self, host: &str) -> Vec<Pid> {
        let wanted = self.hosts[host].namespace;
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbered = entries.filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let namespace = std::fs::metadata(entry.path().join("ns/net")).ok()?.ino();
            (namespace == wanted).then_some(pid)
        });
        numbered.collect()
    }

    /// Stops every process on a host in the midst of what it does, as a hypervisor does.
    pub async fn freeze(&self, host: &str) {
        self.each(host, Signal::STOP, |pid| state(pid).is_some_and(|s| !stopped(s))).await;
    }

    /// Lets every process on a host go on.
    pub async fn thaw(&self, host: &str) {
        self.each(host, Signal::CONT, |pid| state(pid) == Some('T')).await;
    }

    /// Kills every process on a host, as a loss of power does.
    pub async fn kill(&self, host: &str) {
        self.each(host, Signal::KILL, |pid| !matches!(state(pid), Some('Z' | 'X') | None)).await;
    }

    /// Sends a signal until there is nobody left who needs it: also to those that were born meanwhile.
    async fn each(&self, host: &str, signal: Signal, needs: impl Fn(Pid) -> bool) {
        for _ in 0..ROUNDS_MAX {
            let left: Vec<_> = self.processes(host).into_iter().filter(|pid| needs(*pid)).collect();
            if left.is_empty() {
                return;
            }
            for pid in left {
                // It may have ended by itself.
                let _ = kill_process(pid, signal);
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }
}

fn namespace_file(host: &str) -> PathBuf {
    Path::new("/run/netns").join(host)
}

async fn ip(args: &[&str], input: &str) -> Result<()> {
    run(Command::new("ip").args(args), input).await
}

async fn run(command: &mut Command, input: &str) -> Result<()> {
    let said = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let mut owned = Command::new(command.get_program());
    owned.args(command.get_args()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = tokio::process::Command::from(owned).spawn().map_err(|e| cannot("run a program", e))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(|e| cannot("talk to a program", e))?;
    }
    let output = child.wait_with_output().await.map_err(|e| cannot("run a program", e))?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::internal(format!("a program failed. program={:?}, args={said}: {stderr}", command.get_program())))
}

pub(super) fn cannot(what: &str, error: std::io::Error) -> Error {
    Error::internal(format!("cannot {what}")).because(error)
}
