//! [`Scaffold`]: the folder that a cluster begins with, as `pgdock init` makes it.
//!
//! ```text
//! cluster.toml                  the settings, commented
//! shared/failover/failover.sh   an example that moves the failover IP
//! shared/tests/*.sql            a small test of replication
//! secrets/                      passwords, the agents' token, certificates: mode 0700, files 0600
//! .gitignore
//! ```
//!
//! Nothing is ever overwritten: a file that is there is kept, so running it again adds what is missing.

mod certificates;
mod from_env;
mod keep;
mod render;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::clock::Clock;
use crate::settings::{
    Credentials, ExecutorKind, Faults, Files, KeySource, Settings, backup_asks, parse, witness_asks,
};
use crate::witness::record::Durability;
use crate::{Error, NodeName, Result};
pub use from_env::{BackupKeys, ScaffoldBackup};
use keep::Folder;

/// What a new cluster shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaffold {
    /// The cluster's name.
    pub name: String,
    /// The nodes with their addresses (without port); the first one gets the highest priority.
    pub nodes: Vec<(NodeName, String)>,
    /// Where PostgreSQL listens on each node.
    pub postgres_port: u16,
    /// Where the agent listens on each node.
    pub agent_port: u16,
    /// What an acknowledged commit means.
    pub durability: Durability,
    /// In `quorum`: how many standbys hold each acknowledged commit.
    pub acks: u32,
    /// PostgreSQL's major version; None for the newest one found.
    pub version: Option<u32>,
    /// The folder of PostgreSQL's programs, where it is not found by itself.
    pub bin_dir: Option<PathBuf>,
    /// The address that follows the primary, moved by the example script; None for a cluster without.
    pub failover_address: Option<String>,
    /// Where the witness document lives; None for a file on this machine.
    pub witness: Option<ScaffoldWitness>,
    /// Where backups are kept; None for an example as a comment.
    pub backup: Option<ScaffoldBackup>,
    /// How commands reach the nodes.
    pub executor: ExecutorKind,
    /// With containers: what they are made from, and where; the defaults for what is not said.
    pub docker: ScaffoldDocker,
}

/// What the containers of a new cluster shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaffoldDocker {
    /// The engine that has all of them; None for one on each node's machine, over SSH.
    pub engine: Option<String>,
    /// The image.
    pub image: Option<String>,
    /// The network.
    pub network: Option<String>,
}

/// Where the witness document of a new cluster shall live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaffoldWitness {
    /// The URL.
    pub url: String,
    /// The URL of a store that is not the provider's own.
    pub endpoint: Option<String>,
    /// The region of a bucket.
    pub region: Option<String>,
    /// The storage account, on Azure.
    pub account: Option<String>,
}

/// What [`Scaffold::write`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The files that were made.
    pub made: Vec<PathBuf>,
    /// The files that were there already, and kept as they are.
    pub kept: Vec<PathBuf>,
}

impl Scaffold {
    /// A cluster of these nodes with the defaults for all else.
    pub fn new(name: impl Into<String>, nodes: impl IntoIterator<Item = (NodeName, String)>) -> Self {
        Self {
            name: name.into(),
            nodes: nodes.into_iter().collect(),
            postgres_port: 5432,
            agent_port: 7432,
            durability: Durability::default(),
            acks: 1,
            version: None,
            bin_dir: None,
            failover_address: None,
            witness: None,
            backup: None,
            executor: ExecutorKind::default(),
            docker: ScaffoldDocker::default(),
        }
    }

    /// The text of `cluster.toml`.
    #[must_use]
    pub fn cluster_toml(&self) -> String {
        render::cluster_toml(self)
    }

    /// Makes what is missing in a folder. Where there is a `cluster.toml`, that one counts, and secrets are
    /// made for its nodes.
    ///
    /// The clock gives the first day of the certificates.
    ///
    /// # Errors
    /// `Invalid` where the settings have faults, with nothing written; `NeedsOperator` where certificates and
    /// keys do not fit together; `Internal` where a file cannot be written.
    pub fn write(&self, dir: &Path, clock: &dyn Clock) -> Result<Written> {
        let dir = std::path::absolute(dir)
            .map_err(|e| Error::invalid(format!("the path is not usable. path={}", dir.display())).because(e))?;
        let file = dir.join("cluster.toml");
        let text = match std::fs::read_to_string(&file) {
            Ok(_) if self.backup.is_some() => {
                return Err(Error::invalid(format!("there are settings already, which are kept as they are. file={}", file.display()))
                    .hint("with --dry-run the section [backup] is printed: write it there, and the credentials into secrets/backup.env"));
            }
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.check()?;
                self.cluster_toml()
            }
            Err(e) => {
                return Err(
                    Error::invalid(format!("the settings are not readable. file={}", file.display())).because(e)
                );
            }
        };
        let settings = parse(&text, &dir, Files::Ignored).map_err(Faults::into_error)?;

        let mut written = Written::default();
        let mut folder = Folder::open(&dir, 0o755, &mut written)?;
        folder.keep(".gitignore", 0o644, include_str!("scaffold/files/gitignore"))?;
        folder.keep("shared/failover/failover.sh", 0o755, include_str!("scaffold/files/failover.sh"))?;
        folder.keep("shared/tests/prepare.sql", 0o644, include_str!("scaffold/files/prepare.sql"))?;
        folder.keep("shared/tests/insert.sql", 0o644, include_str!("scaffold/files/insert.sql"))?;
        folder.keep("shared/tests/select.sql", 0o644, include_str!("scaffold/files/select.sql"))?;
        // After the script that it may name: an interrupted run leaves no settings that point to nothing.
        folder.keep("cluster.toml", 0o644, &text)?;
        if let Some(keys) = self.backup.as_ref().and_then(|backup| backup.keys.as_ref()) {
            let mut secrets = Folder::open(&settings.secrets(), 0o700, &mut written)?;
            secrets.keep("backup.env", 0o600, &keys.to_env())?;
        }
        secrets(&settings, clock, &mut written)?;
        Ok(written)
    }

    /// Makes the secrets that a cluster lacks, such as the certificate of a node that was added to
    /// `cluster.toml` later.
    ///
    /// Certificates are valid from the day before `clock`'s for ten years, those of the nodes as well as that
    /// of the cluster's own authority, which signs them.
    ///
    /// # Errors
    /// `NeedsOperator` where certificates and keys do not fit together; `Internal` where a file cannot be
    /// written.
    pub fn add_missing_secrets(settings: &Settings, clock: &dyn Clock) -> Result<Written> {
        let mut written = Written::default();
        secrets(settings, clock, &mut written)?;
        Ok(written)
    }

    /// What the rendered text cannot show.
    fn check(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        if let Some(witness) = &self.witness {
            use crate::witness::url::{Provider, WitnessUrl};
            match WitnessUrl::parse(&witness.url, Path::new("/"))? {
                WitnessUrl::Bucket { provider: Provider::S3, .. }
                    if witness.region.is_none() && witness.endpoint.is_none() =>
                {
                    return Err(Error::invalid(
                        "an S3 bucket needs the region that it is in, or the endpoint of its store",
                    )
                    .hint("give --witness-region, or --witness-endpoint where it is not Amazon's"));
                }
                WitnessUrl::Bucket { provider: Provider::Azure, .. } if witness.account.is_none() => {
                    return Err(Error::invalid("a container of Azure needs the storage account that it is in")
                        .hint("give --witness-account"));
                }
                _ => {}
            }
        }
        if self.executor != ExecutorKind::Docker && self.docker != ScaffoldDocker::default() {
            return Err(Error::invalid("engine, image and network are those of containers")
                .hint("give --executor docker with --engine, --image and --network"));
        }
        match self.nodes.iter().find(|(name, _)| !seen.insert(name)) {
            Some((name, _)) => {
                Err(Error::invalid(format!("a node is named twice. node={name}"))
                    .hint("give each node a name of its own"))
            }
            None => Ok(()),
        }
    }
}

/// A file of credentials to fill in.
fn blank(who: &str, known: &[&str]) -> String {
    let lines: String = known.iter().map(|key| format!("# {key}=\n")).collect();
    format!("# What {who} for: take off the # of what it needs.\n{lines}")
}

fn secrets(settings: &Settings, clock: &dyn Clock, written: &mut Written) -> Result<()> {
    let mut folder = Folder::open(&settings.secrets(), 0o700, written)?;
    // Even where the cluster's own .gitignore was written by somebody else.
    folder.keep(".gitignore", 0o600, "*\n")?;
    tokens::add(&mut folder)?;
    let known = witness_asks(&settings.witness.url).known;
    if !known.is_empty() && settings.witness.store.credentials == Credentials::File {
        folder.keep("witness.env", 0o600, &blank("the witness asks", known))?;
    }
    if let Some(backup) = &settings.backup {
        let known = backup_asks(&backup.url).known;
        if !known.is_empty() && backup.store.credentials == Credentials::File {
            folder.keep("backup.env", 0o600, &blank("the store of backups asks", known))?;
        }
        if let Some(KeySource::File(_)) = &backup.key {
            tokens::add_backup_key(&mut folder)?;
        }
    }
    certificates::add(&mut folder, settings, clock.wall())
}
