//! [`Context`]: what commands share: where the settings are, and how to make a handle from them.

use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};

use pgdock_core::{Cluster, Error, NodeName, Result, Settings};

use crate::cli::Globals;

/// What commands share.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    globals: Globals,
}

impl Context {
    pub(crate) fn new(globals: Globals) -> Self {
        Self { globals }
    }

    /// A context with another folder.
    pub(crate) fn at(&self, dir: &Path) -> Self {
        Self { globals: Globals { config: Some(dir.to_owned()), ..self.globals.clone() } }
    }

    /// The folder that was named, if one was.
    pub(crate) fn named_dir(&self) -> Option<&Path> {
        self.globals.config.as_deref()
    }

    pub(crate) fn verbose(&self) -> bool {
        self.globals.verbose
    }

    /// Reads the settings: from the folder that was named, or the nearest one upwards that has them.
    pub(crate) fn settings(&self) -> Result<Settings> {
        match self.named_dir() {
            Some(dir) => Settings::from_path(dir),
            None => Settings::from_path(nearest()?),
        }
    }

    /// Whether there are settings, right or wrong.
    pub(crate) fn has_settings(&self) -> bool {
        self.named_dir().is_some() || nearest().is_ok()
    }

    /// A handle on the cluster.
    pub(crate) async fn cluster(&self) -> Result<Cluster> {
        Cluster::builder(self.settings()?).build().await
    }
}

fn nearest() -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(|e| Error::internal("there is no current folder").because(e))?;
    here.ancestors().find(|dir| dir.join("cluster.toml").is_file()).map(Path::to_owned).ok_or_else(|| {
        Error::invalid(format!("there is no cluster.toml here, nor in a folder above. dir={}", here.display()))
            .hint("`pgdock init` makes one")
            .hint("`--config DIR`, or PGDOCK_CONFIG, names the folder of another")
    })
}

/// The nodes that were named, checked; all where none was.
pub(crate) fn chosen(settings: &Settings, named: &[NodeName]) -> Result<Vec<NodeName>> {
    for node in named {
        settings.node(node)?;
    }
    let all = settings.nodes.keys();
    Ok(if named.is_empty() { all.cloned().collect() } else { all.filter(|n| named.contains(n)).cloned().collect() })
}

/// Refuses to found a cluster of several machines on a file. Each would see one of its own, and believe itself alone.
pub(crate) fn shares_its_witness(settings: &Settings) -> Result<()> {
    if settings.witness.file().is_none() {
        return Ok(());
    }
    let is_here = |address: &str| {
        (address, 0).to_socket_addrs().is_ok_and(|mut all| all.any(|at| std::net::UdpSocket::bind(at).is_ok()))
    };
    let elsewhere: Vec<_> =
        settings.nodes.iter().filter(|(_, node)| !is_here(&node.address)).map(|(name, _)| name.as_str()).collect();
    if elsewhere.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the witness is a file, which other machines do not see. key=witness.url, elsewhere={}",
        elsewhere.join(",")
    ))
    .hint("name a bucket, etcd, or a PostgreSQL outside the cluster: docs/witness.md"))
}
