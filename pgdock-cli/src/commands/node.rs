//! `pgdock node`

mod add;
mod exec;
mod logs;
mod prepare;
mod psql;
mod shell;

use clap::{Args, Subcommand};
use pgdock_core::Result;

use crate::context::Context;
use crate::exit::Exit;

/// Add a node; look after the machine or container of one: prepare it, run programs there, read what its agent wrote
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    Add(add::AddArgs),
    Prepare(prepare::PrepareArgs),
    Exec(exec::ExecArgs),
    Logs(logs::LogsArgs),
    Shell(shell::ShellArgs),
    Psql(psql::PsqlArgs),
}

pub(crate) async fn run(context: &Context, args: NodeArgs) -> Result<Exit> {
    match args.command {
        NodeCommand::Add(args) => add::run(context, args).await,
        NodeCommand::Prepare(args) => prepare::run(context, args).await,
        NodeCommand::Exec(args) => exec::run(context, args).await,
        NodeCommand::Logs(args) => logs::run(context, args).await,
        NodeCommand::Shell(args) => shell::run(context, args).await,
        NodeCommand::Psql(args) => psql::run(context, args).await,
    }
}
