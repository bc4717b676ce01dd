//! [`Setup`]: the clusters that faults are inflicted on. Their witness is in a bucket, which nodes reach over
//! the network, or a file, which the namespaces share.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use pgdock_core::postgres::version::Binaries;
use pgdock_core::witness::record::Durability;
use pgdock_core::{Error, Result};

use super::lab::{Lab, cannot};
use super::store::Store;
use crate::real::{Options, RealCluster};

/// A cluster that faults are inflicted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setup {
    /// Two nodes and a bucket, and no third machine: `sync`.
    TwoInSync,
    /// Three nodes and a file, in `sync`.
    ThreeInSync,
    /// Three nodes and a bucket, in `quorum`: any of the two standbys has each commit.
    ThreeInQuorum,
    /// Three nodes and a bucket, in `async`.
    ThreeInAsync,
}

/// How large a node's disk is, in bytes.
pub(super) const DISK_BYTES: u64 = 900 << 20;
/// In `async`: how far behind a successor may be, in bytes.
pub(super) const LAG_BYTES_MAX: u64 = 1 << 20;

/// What one cluster has besides what its set-up says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Special {
    /// Clocks will jump: programs get one that can.
    pub clocks: bool,
    /// Settings instead of those of the set-up: section, key, and value as in `cluster.toml`.
    pub settings: &'static [(&'static str, &'static str, &'static str)],
    /// The store breaks its word until it was seen that no cluster is founded on it.
    pub broken_store: bool,
    /// An application works behind a router, besides the clients that are always there.
    pub routed: bool,
}

impl Setup {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TwoInSync, Self::ThreeInSync, Self::ThreeInQuorum, Self::ThreeInAsync];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoInSync => "two-in-sync",
            Self::ThreeInSync => "three-in-sync",
            Self::ThreeInQuorum => "three-in-quorum",
            Self::ThreeInAsync => "three-in-async",
        }
    }

    /// How many nodes.
    #[must_use]
    pub fn nodes(self) -> usize {
        if self == Self::TwoInSync { 2 } else { 3 }
    }

    /// What an acknowledged commit means.
    #[must_use]
    pub fn durability(self) -> Durability {
        match self {
            Self::TwoInSync | Self::ThreeInSync => Durability::Sync,
            Self::ThreeInQuorum => Durability::Quorum,
            Self::ThreeInAsync => Durability::Async,
        }
    }

    /// Whether the witness is in a bucket.
    #[must_use]
    pub fn in_bucket(self) -> bool {
        self != Self::ThreeInSync
    }

    /// How long a right lasts.
    #[must_use]
    pub fn ttl(self) -> Duration {
        Duration::from_secs(3)
    }

    /// How often it is renewed.
    #[must_use]
    pub fn heartbeat(self) -> Duration {
        Duration::from_millis(500)
    }

    /// Its settings, by section and key.
    fn settings(self) -> BTreeMap<(&'static str, &'static str), String> {
        let millis = |time: Duration| format!("\"{}ms\"", time.as_millis());
        let text = |text: &str| format!("\"{text}\"");
        BTreeMap::from([
            (("failover", "heartbeat"), millis(self.heartbeat())),
            (("failover", "ttl"), millis(self.ttl())),
            (("failover", "lag_bytes_max"), format!("\"{}kB\"", LAG_BYTES_MAX >> 10)),
            (("postgres.settings", "shared_buffers"), text("16MB")),
            (("postgres.settings", "max_wal_size"), text("64MB")),
            (("postgres.settings", "min_wal_size"), text("32MB")),
            (("postgres.settings", "wal_keep_size"), text("32MB")),
            (("postgres.settings", "max_slot_wal_keep_size"), text("192MB")),
            (("postgres.settings", "log_checkpoints"), "true".to_owned()),
        ])
    }

    /// Makes the cluster in a lab; nothing of it runs yet but the bucket that its witness is in.
    ///
    /// # Errors
    /// Whatever goes wrong.
    pub(super) async fn make(self, lab: Arc<Lab>, special: &Special) -> Result<(RealCluster, Option<Store>)> {
        let mut settings = self.settings();
        for (section, key, value) in special.settings {
            settings.insert((section, key), (*value).to_owned());
        }
        let names: Vec<_> = (1..=self.nodes()).map(|i| format!("n{i}")).collect();
        if special.clocks {
            let programs = lab.dir().join("programs");
            with_clocks(&programs, lab.dir())?;
            settings.insert(("postgres", "bin_dir"), format!("{programs:?}"));
            for name in &names {
                set_clock(lab.dir(), name, 0)?;
                let file = clock_file(lab.dir(), name).display().to_string();
                for (key, value) in FAKETIME {
                    lab.set_env(name, key, value);
                }
                lab.set_env(name, "LD_PRELOAD", &libfaketime()?.display().to_string());
                lab.set_env(name, "FAKETIME_TIMESTAMP_FILE", &file);
            }
        }
        let mut extra: BTreeMap<&str, String> = BTreeMap::new();
        for ((section, key), value) in settings {
            let _ = writeln!(extra.entry(section).or_default(), "{key} = {value}");
        }
        let store = if self.in_bucket() { Some(Store::start(&lab).await?) } else { None };
        let options = Options {
            nodes: self.nodes(),
            durability: self.durability(),
            extra,
            lab: Some(Arc::clone(&lab)),
            witness: store.as_ref().map(Store::witness),
            ..Options::default()
        };
        let cluster = RealCluster::make(options).await?;
        for node in cluster.settings.nodes.values() {
            lab.give_disk(&node.home, DISK_BYTES)?;
        }
        Ok((cluster, store))
    }
}

/// Only the calendar jumps; and a jump is noticed within a second.
const FAKETIME: [(&str, &str); 3] =
    [("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1"), ("FAKETIME_CACHE_DURATION", "1")];

/// The library that has a program see another time.
///
/// # Errors
/// `NotReady` where it is not installed.
pub(super) fn libfaketime() -> Result<PathBuf> {
    let multiarch = std::env::consts::ARCH.to_owned() + "-linux-gnu";
    let folders = [format!("/usr/lib/{multiarch}/faketime"), "/usr/lib64/faketime".into(), "/usr/lib/faketime".into()];
    let found = folders.iter().map(|folder| Path::new(folder).join("libfaketimeMT.so.1")).find(|file| file.exists());
    found.ok_or_else(|| Error::not_ready("libfaketime is not installed: no clock can jump"))
}

/// Where a node's time is said.
fn clock_file(dir: &Path, node: &str) -> PathBuf {
    dir.join(format!("{node}.clock"))
}

/// Has a node's calendar clock be so many hours off.
///
/// # Errors
/// Where the file cannot be written.
pub(super) fn set_clock(dir: &Path, node: &str, hours: i8) -> Result<()> {
    // In one step: it is read at any moment.
    let (file, staged) = (clock_file(dir, node), dir.join(format!("{node}.clock.new")));
    std::fs::write(&staged, format!("{hours:+}h\n")).map_err(|e| cannot("set a clock", e))?;
    std::fs::rename(staged, file).map_err(|e| cannot("set a clock", e))
}

/// PostgreSQL's programs; the server among them sees the time of its node, which its data directory tells:
/// agents give it no environment.
fn with_clocks(programs: &Path, dir: &Path) -> Result<()> {
    let failed = |e| cannot("prepare programs", e);
    std::fs::create_dir_all(programs).map_err(failed)?;
    let real = Binaries::find(None, None, std::env::var_os("PATH").as_deref())?;
    for entry in std::fs::read_dir(real.dir()).map_err(failed)?.flatten() {
        if entry.file_name() != "postgres" {
            std::os::unix::fs::symlink(entry.path(), programs.join(entry.file_name())).map_err(failed)?;
        }
    }
    let sets: String = FAKETIME.iter().map(|(key, value)| format!("export {key}={value}\n")).collect();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--version*|*-V*|*--boot*|*--single*|*-C*) exec {real} \"$@\" ;; esac\n\
         home=${{2%/data}}\n{sets}export FAKETIME_TIMESTAMP_FILE={dir}/${{home##*/}}.clock LD_PRELOAD={lib}\n\
         exec {real} \"$@\"\n",
        real = real.program("postgres").display(),
        dir = dir.display(),
        lib = libfaketime()?.display(),
    );
    let file = programs.join("postgres");
    std::fs::write(&file, script).map_err(failed)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).map_err(failed)
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Setup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<_> = Self::ALL.iter().map(|s| s.name()).collect();
        Self::ALL
            .into_iter()
            .find(|setup| setup.name() == text)
            .ok_or_else(|| format!("there is no set-up `{text}`; there are {}", names.join(", ")))
    }
}
