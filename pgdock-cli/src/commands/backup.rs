//! `pgdock backup …`: base backups and WAL in the store of `[backup]`.

use clap::{Args, Subcommand};
use pgdock_core::Result;

use crate::context::Context;
use crate::exit::Exit;

mod create;
mod expire;

/// Take backups, look at them, and delete those that are not kept
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    Create(create::CreateArgs),
    Expire(expire::ExpireArgs),
}

pub(crate) async fn run(context: &Context, args: BackupArgs) -> Result<Exit> {
    match args.command {
        BackupCommand::Create(args) => create::run(context, args).await,
        BackupCommand::Expire(args) => expire::run(context, args).await,
    }
}
