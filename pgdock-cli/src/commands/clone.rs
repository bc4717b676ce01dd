//! `pgdock clone`

use clap::Args;
use pgdock_core::cluster::plan;
use pgdock_core::{NodeName, Result};

use crate::cli::Change;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, progress};

/// Copy the leader's data to a standby anew; the old data directory is moved aside
#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    /// The node
    node: NodeName,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: CloneArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let (node, format) = (&args.node, args.change.output.output);
    if args.change.dry_run {
        output::plan(&plan::reclone(&cluster.status().await?, node)?, format)?;
        return Ok(Exit::Done);
    }
    progress::during("copying the leader", async |_| cluster.reclone(node).await).await?;
    output::done(&format!("{node} was copied anew, and follows"), format)?;
    Ok(Exit::Done)
}
