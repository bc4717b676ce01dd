//! `pgdock restart`

use clap::Args;
use pgdock_core::cluster::plan;
use pgdock_core::{NodeName, Result};

use crate::cli::Change;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, progress};

/// Restart a node's PostgreSQL in its present role
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// The node
    node: NodeName,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: RestartArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let (node, format) = (&args.node, args.change.output.output);
    if args.change.dry_run {
        output::plan(&plan::restart(&cluster.status().await?, node)?, format)?;
        return Ok(Exit::Done);
    }
    progress::during("restarting PostgreSQL", async |_| cluster.restart(node).await).await?;
    output::done(&format!("PostgreSQL on {node} was restarted"), format)?;
    Ok(Exit::Done)
}
