//! `pgdock deadman`

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use pgdock_core::Result;
use pgdock_core::agent::deadman;

use crate::exit::Exit;

/// Kill PostgreSQL when its right to be primary ends; agents start it themselves
///
/// The program's `main` runs it before anything else; it gets here only when called with options before it.
#[derive(Debug, Args)]
pub(crate) struct DeadmanArgs {
    /// Its own arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(args: DeadmanArgs) -> Result<Exit> {
    let ended = deadman::run(args.args);
    Ok(if ended == ExitCode::SUCCESS { Exit::Done } else { Exit::Failed })
}
