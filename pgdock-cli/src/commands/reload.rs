//! `pgdock reload`

use clap::Args;
use pgdock_core::cluster::plan::{Plan, Step};
use pgdock_core::{NodeName, Result};

use crate::cli::Change;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// Have a node's PostgreSQL read its configuration again
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// The node
    node: NodeName,
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: ReloadArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let format = args.change.output.output;
    cluster.settings().node(&args.node)?;
    if args.change.dry_run {
        output::plan(&Plan { steps: vec![Step::Reload { node: args.node }] }, format)?;
        return Ok(Exit::Done);
    }
    cluster.reload(&args.node).await?;
    output::done(&format!("PostgreSQL on {} has read its configuration again", args.node), format)?;
    Ok(Exit::Done)
}
