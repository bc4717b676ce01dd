//! The way to a node for bundles, whatever its executor is.

use std::sync::Arc;

use pgdock_core::bundle::deliver::Delivery;
use pgdock_core::settings::ExecutorKind;
use pgdock_core::{Error, Executor, NodeName, Result, Settings};

use crate::context::Context;

/// A node, and how commands reach it.
pub(super) struct Reach {
    executor: Arc<dyn Executor>,
    program: String,
    local: bool,
}

impl Reach {
    pub(super) fn to(context: &Context, settings: &Settings, node: &NodeName) -> Result<Self> {
        let local = settings.cluster.executor == ExecutorKind::Local;
        let program = if local {
            let here = std::env::current_exe()
                .map_err(|e| Error::internal("cannot tell where this program lies").because(e))?;
            here.display().to_string()
        } else {
            "pgdock".to_owned()
        };
        Ok(Self { executor: context.opener().executor(settings, node)?, program, local })
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
