//! The way to a node for bundles, whatever its executor is.

use std::sync::Arc;

use pgdock_core::bundle::deliver::Delivery;
use pgdock_core::settings::ExecutorKind;
use pgdock_core::{Error, Executor, NodeName, Result, Settings};

/// A node, and how commands reach it.
pub(super) struct Reach {
    executor: Arc<dyn Executor>,
    program: String,
    local: bool,
}

impl Reach {
    pub(super) fn to(settings: &Settings, node: &NodeName) -> Result<Self> {
        let local = settings.cluster.executor == ExecutorKind::Local;
        let program = if local {
            let here = std::env::current_exe()
                .map_err(|e| Error::internal("cannot tell where this program lies").because(e))?;
            here.display().to_string()
        } else {
            "pgdock".to_owned()
        };
        Ok(Self { executor: crate::reach::opener().executor(settings, node)?, program, local })
    }

    /// Brings the node its secrets, which a new configuration may name. On this machine they are there.
    pub(super) async fn secrets(&self, settings: &Settings, node: &NodeName) -> Result<()> {
        if self.local {
            return Ok(());
        }
        pgdock_core::deploy::deliver(&*self.executor, settings, node).await.map(drop)
    }

    /// Gives what root brought to whom the node's home belongs to.
    pub(super) async fn own(&self, settings: &Settings, node: &NodeName) -> Result<()> {
        if self.local {
            return Ok(());
        }
        pgdock_core::deploy::own(&*self.executor, &settings.node(node)?.home).await
    }

    pub(super) fn delivery<'a>(&'a self, settings: &Settings, node: &NodeName) -> Result<Delivery<'a>> {
        Ok(Delivery {
            executor: &*self.executor,
            program: self.program.clone(),
            node: node.clone(),
            cluster: settings.cluster.name.clone(),
            home: settings.node(node)?.home.clone(),
            folder: self.local.then(|| settings.dir.clone()),
        })
    }
}
