//! `pgdock completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use pgdock_core::Result;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::output;

/// Print the completions for a shell
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pgdock", &mut script);
    output::data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
