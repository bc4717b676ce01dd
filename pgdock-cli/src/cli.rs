//! The command line: global options, and which commands there are.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands;

/// Runs a highly available PostgreSQL on a handful of servers.
///
/// Exit codes: 0 done, 1 failed, 2 usage or invalid settings, 3 unhealthy (status), 4 refused for safety,
/// 5 outcome unknown.
#[derive(Debug, Parser)]
#[command(name = "pgdock", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Globals {
    /// The folder of cluster.toml [default: the nearest one upwards that has it]
    #[arg(long, global = true, value_name = "DIR", env = "PGDOCK_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Tell more of what is done, on stderr; RUST_LOG chooses in detail
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// The option of commands that print data.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// How data is printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// The options of commands that change something.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Change {
    /// Print the steps, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(commands::init::InitArgs),
    Adopt(commands::adopt::AdoptArgs),
    Demo(commands::demo::DemoArgs),
    Up(commands::up::UpArgs),
    Bootstrap(commands::bootstrap::BootstrapArgs),
    Down(commands::down::DownArgs),
    Status(commands::status::StatusArgs),
    Events(commands::events::EventsArgs),
    Switchover(commands::switchover::SwitchoverArgs),
    Failover(commands::failover::FailoverArgs),
    Pause(commands::pause::PauseArgs),
    Resume(commands::resume::ResumeArgs),
    Restart(commands::restart::RestartArgs),
    Reload(commands::reload::ReloadArgs),
    Clone(commands::clone::CloneArgs),
    Rejoin(commands::rejoin::RejoinArgs),
    Remove(commands::remove::RemoveArgs),
    Config(commands::config::ConfigArgs),
    Backup(commands::backup::BackupArgs),
    Diverged(commands::diverged::DivergedArgs),
    SmokeTest(commands::smoke_test::SmokeTestArgs),
    Dsn(commands::dsn::DsnArgs),
    Export(commands::export::ExportArgs),
    Witness(commands::witness::WitnessArgs),
    Node(commands::node::NodeArgs),
    Image(commands::image::ImageArgs),
    Compose(commands::compose::ComposeArgs),
    Wal(commands::wal::WalArgs),
    Agent(commands::agent::AgentArgs),
    #[command(hide = true)]
    Deadman(commands::deadman::DeadmanArgs),
    Completions(commands::completions::CompletionsArgs),
}
