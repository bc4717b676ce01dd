//! The commands: one file each, its arguments and what it does.

pub(crate) mod adopt;
pub(crate) mod agent;
pub(crate) mod backup;
pub(crate) mod bootstrap;
pub(crate) mod clone;
pub(crate) mod completions;
pub(crate) mod compose;
pub(crate) mod config;
pub(crate) mod deadman;
pub(crate) mod demo;
pub(crate) mod diverged;
pub(crate) mod down;
pub(crate) mod dsn;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod failover;
pub(crate) mod image;
pub(crate) mod init;
pub(crate) mod node;
pub(crate) mod pause;
pub(crate) mod rejoin;
pub(crate) mod reload;
pub(crate) mod remove;
pub(crate) mod restart;
pub(crate) mod resume;
pub(crate) mod smoke_test;
pub(crate) mod status;
pub(crate) mod switchover;
pub(crate) mod up;
pub(crate) mod wal;
pub(crate) mod witness;

use pgdock_core::Result;

use crate::cli::Command;
use crate::context::Context;
use crate::exit::Exit;

/// Runs a command.
pub(crate) async fn run(command: Command, context: &Context) -> Result<Exit> {
    match command {
        Command::Init(args) => init::run(context, args).await,
        Command::Adopt(args) => adopt::run(context, args).await,
        Command::Demo(args) => demo::run(context, args).await,
        Command::Up(args) => up::run(context, args).await,
        Command::Bootstrap(args) => bootstrap::run(context, args).await,
        Command::Down(args) => down::run(context, args).await,
        Command::Status(args) => status::run(context, args).await,
        Command::Events(args) => events::run(context, args).await,
        Command::Switchover(args) => switchover::run(context, args).await,
        Command::Failover(args) => failover::run(context, args).await,
        Command::Pause(args) => pause::run(context, args).await,
        Command::Resume(args) => resume::run(context, args).await,
        Command::Restart(args) => restart::run(context, args).await,
        Command::Reload(args) => reload::run(context, args).await,
        Command::Clone(args) => clone::run(context, args).await,
        Command::Rejoin(args) => rejoin::run(context, args).await,
        Command::Remove(args) => remove::run(context, args).await,
        Command::Config(args) => config::run(context, args).await,
        Command::Backup(args) => backup::run(context, args).await,
        Command::Diverged(args) => diverged::run(context, args).await,
        Command::SmokeTest(args) => smoke_test::run(context, args).await,
        Command::Dsn(args) => dsn::run(context, args).await,
        Command::Export(args) => export::run(context, &args),
        Command::Witness(args) => witness::run(context, args).await,
        Command::Node(args) => node::run(context, args).await,
        Command::Image(args) => image::run(context, args).await,
        Command::Compose(args) => compose::run(context, &args),
        Command::Wal(args) => wal::run(context, args).await,
        Command::Agent(args) => agent::run(context, args).await,
        Command::Deadman(args) => deadman::run(args),
        Command::Completions(args) => completions::run(args),
    }
}
