//! `pgdock demo`

use std::path::PathBuf;

use clap::Args;
use pgdock_core::Result;

use crate::context::Context;
use crate::demo;
use crate::exit::Exit;

/// Tell the whole story with real processes: failover, rejoin and switchover on this machine
///
/// Three nodes on 127.0.0.11 to 127.0.0.13. Nothing is left running.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The folder of the cluster; it must be empty [default: a temporary one]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Leave the cluster up, and say how to use it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Where PostgreSQL listens on each address
    #[arg(long, default_value_t = 5432, value_name = "PORT")]
    pub(crate) postgres_port: u16,
    /// Where the agents listen on each address
    #[arg(long, default_value_t = 7432, value_name = "PORT")]
    pub(crate) agent_port: u16,
}

pub(crate) async fn run(context: &Context, args: DemoArgs) -> Result<Exit> {
    demo::run(context, args).await
}
