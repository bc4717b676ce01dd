//! `pgdock config …`: bundles of configuration, from the folder to the nodes.

mod bring;
mod build;
mod check;
mod diff;
mod history;
mod install;
mod list;
mod reach;
#[cfg(feature = "registry")]
mod remote;
mod report;
mod rollback;
mod source;
mod update;

use clap::{Args, Subcommand};
use pgdock_core::Result;

pub(crate) use bring::bring;

use crate::context::Context;
use crate::exit::Exit;

/// Build the nodes' configuration into versioned bundles, and bring it to them
///
/// A bundle holds cluster.toml, shared/ and the node's own folder; never secrets/, and no env/.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Check(check::CheckArgs),
    Build(build::BuildArgs),
    List(list::ListArgs),
    #[cfg(feature = "registry")]
    Push(remote::PushArgs),
    #[cfg(feature = "registry")]
    Pull(remote::PullArgs),
    Update(update::UpdateArgs),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    Rollback(rollback::RollbackArgs),
    #[command(hide = true)]
    Install(install::InstallArgs),
    #[command(hide = true)]
    Installed(install::InstalledArgs),
}

pub(crate) async fn run(context: &Context, args: ConfigArgs) -> Result<Exit> {
    match args.command {
        ConfigCommand::Check(args) => check::run(context, args),
        ConfigCommand::Build(args) => build::run(context, args).await,
        ConfigCommand::List(args) => list::run(context, args).await,
        #[cfg(feature = "registry")]
        ConfigCommand::Push(args) => remote::push(context, args).await,
        #[cfg(feature = "registry")]
        ConfigCommand::Pull(args) => remote::pull(context, args).await,
        ConfigCommand::Update(args) => update::run(context, args).await,
        ConfigCommand::History(args) => history::run(context, args).await,
        ConfigCommand::Diff(args) => diff::run(context, args).await,
        ConfigCommand::Rollback(args) => rollback::run(context, args).await,
        ConfigCommand::Install(args) => install::run(args).await,
        ConfigCommand::Installed(args) => install::show(args),
    }
}
