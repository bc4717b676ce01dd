//! `pgdock compose`

use clap::Args;
use pgdock_core::deploy::NodeContainer;
use pgdock_core::{NodeName, Result};

use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// Print a node's container as a file for `docker compose`: exactly the one that `pgdock up` makes
#[derive(Debug, Args)]
pub(crate) struct ComposeArgs {
    /// The node
    node: NodeName,
}

pub(crate) fn run(context: &Context, args: &ComposeArgs) -> Result<Exit> {
    output::data(&NodeContainer::of(&context.settings()?, &args.node)?.compose())?;
    Ok(Exit::Done)
}
