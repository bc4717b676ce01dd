//! `pgdock pause`

use clap::Args;
use pgdock_core::Result;
use pgdock_core::cluster::plan::{Plan, Step};

use crate::cli::Change;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// Stop automatic decisions in the whole cluster
///
/// A primary that loses its right to write is still fenced.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: PauseArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let format = args.change.output.output;
    if args.change.dry_run {
        output::plan(&Plan { steps: vec![Step::SetPaused { paused: true }] }, format)?;
        return Ok(Exit::Done);
    }
    cluster.pause().await?;
    output::done("automatic decisions are stopped; `pgdock resume` ends that", format)?;
    Ok(Exit::Done)
}
