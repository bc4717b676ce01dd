//! `pgdock resume`

use clap::Args;
use pgdock_core::Result;
use pgdock_core::cluster::plan::{Plan, Step};

use crate::cli::Change;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// Let automatic decisions go on
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    change: Change,
}

pub(crate) async fn run(context: &Context, args: ResumeArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let format = args.change.output.output;
    if args.change.dry_run {
        output::plan(&Plan { steps: vec![Step::SetPaused { paused: false }] }, format)?;
        return Ok(Exit::Done);
    }
    cluster.resume().await?;
    output::done("automatic decisions go on", format)?;
    Ok(Exit::Done)
}
