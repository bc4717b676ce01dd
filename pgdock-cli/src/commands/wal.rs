//! `pgdock wal`

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use pgdock_core::Result;
use pgdock_core::backup::Repository;
use pgdock_core::backup::wal::client::{self, Ask};
use pgdock_core::backup::wal::{WalStore, fetch};

use crate::context::Context;
use crate::exit::Exit;

/// What PostgreSQL runs to archive WAL, and to get it back
#[derive(Debug, Args)]
pub(crate) struct WalArgs {
    #[command(subcommand)]
    command: WalCommand,
}

#[derive(Debug, Subcommand)]
enum WalCommand {
    Push(PushArgs),
    Fetch(FetchArgs),
}

/// Ask the agent whether a file of WAL is in the archive: PostgreSQL's archive_command
///
/// Agents write it into postgresql.conf. Ends with 0 once PostgreSQL may give the file up, with 1 where it should ask again,
/// and with 130 while PostgreSQL is being stopped.
#[derive(Debug, Args)]
struct PushArgs {
    /// The agent's socket
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The name of the file: %f
    #[arg(value_name = "FILE")]
    file: String,
}

/// Fetch a file of WAL from the archive: PostgreSQL's restore_command
///
/// `restore_command = 'pgdock --config DIR wal fetch %f %p'`. Ends with 0 once the file is there, with 1 where the archive has none
/// of this name, which ends recovery, and with 130 where that cannot be told, which stops it.
#[derive(Debug, Args)]
struct FetchArgs {
    /// A socket that gives WAL, instead of the archive that the settings name
    #[arg(long, value_name = "PATH", conflicts_with = "system")]
    socket: Option<PathBuf>,
    /// The database system [default: that of the data directory in which this is run]
    #[arg(long, value_name = "NUMBER")]
    system: Option<u64>,
    /// The name of the file: %f
    #[arg(value_name = "FILE")]
    file: String,
    /// Where to put it: %p
    #[arg(value_name = "PATH")]
    to: PathBuf,
}

/// There is no such file.
const MISSING: Exit = Exit::Of(1);
/// PostgreSQL must not go on as if there were none.
const ABORT: Exit = Exit::Of(130);

pub(crate) async fn run(context: &Context, args: WalArgs) -> Result<Exit> {
    match args.command {
        WalCommand::Push(args) => Ok(Exit::Of(client::run(&args.socket, &Ask::Push(args.file)))),
        WalCommand::Fetch(FetchArgs { socket: Some(socket), file, to, .. }) => {
            Ok(Exit::Of(client::run(&socket, &Ask::Fetch(file, to))))
        }
        WalCommand::Fetch(args) => match fetched(context, &args).await {
            Ok(true) => Ok(Exit::Done),
            Ok(false) => Ok(MISSING),
            // Any other status that is low would be taken for the end of the archive.
            Err(error) => {
                crate::complain(&error);
                Ok(ABORT)
            }
        },
    }
}

async fn fetched(context: &Context, args: &FetchArgs) -> Result<bool> {
    let repository = Repository::open(&context.settings()?).await?;
    let system = args.system.map_or_else(|| fetch::system_of(Path::new(".")), Ok)?;
    let store = WalStore::new(repository.sink, repository.codec, system);
    fetch::fetch_to(&store, &args.file, &args.to).await
}
