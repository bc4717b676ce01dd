//! `pgdock rejoin`

use clap::Args;
use pgdock_core::cluster::plan;
use pgdock_core::{NodeName, Result};

use crate::cli::Change;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, progress};

/// Have a node follow the leader again, by rewind or copy if it must be
///
/// Nodes do so by themselves; this waits for it, and says what is in the way.
#[derive(Debug, Args)]
pub(crate) struct RejoinArgs {
    /// The node
    node: NodeName,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: RejoinArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let (node, format) = (&args.node, args.change.output.output);
    if args.change.dry_run {
        output::plan(&plan::rejoin(&cluster.status().await?, node)?, format)?;
        return Ok(Exit::Done);
    }
    progress::during("rejoining", async |_| cluster.rejoin(node).await).await?;
    output::done(&format!("{node} follows the leader"), format)?;
    Ok(Exit::Done)
}
