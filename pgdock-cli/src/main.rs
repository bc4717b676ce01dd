//! `pgdock`: runs a highly available PostgreSQL on a handful of servers.
//!
//! A thin shell around `pgdock_core`: each command is a file in `commands/`. This file does what a library
//! must not: it installs the crypto provider and the log, reads the environment, and ends the process.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod commands;
mod context;
mod demo;
mod exit;
mod init;
mod local;
mod membership;
mod output;
mod reach;
mod sql;
mod takeover;
mod wait;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use pgdock_core::Error;
use pgdock_core::agent::deadman;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};
use context::Context;

fn main() -> ExitCode {
    // An agent starts this program anew as its deadman, which needs nothing of what follows.
    if let Some(code) = deadman::intercept(std::env::args_os()) {
        return code;
    }
    let cli = Cli::parse();
    log(&cli);
    // The other way to fail is that a provider is installed already, which only this file does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // An agent is idle most of the time, and cheaper on one thread: what blocks has threads of its own.
    let runtime = match &cli.command {
        Command::Agent(_) => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build(),
    };
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(commands::run(cli.command, &Context::new(cli.globals)));
            // A blocking read that still waits must not keep the process from ending.
            runtime.shutdown_background();
            ended
        }
        Err(e) => Err(Error::internal("cannot start the runtime").because(e)),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            complain(&error);
            exit::of(&error).into()
        }
    }
}

/// Says what went wrong, and what a person can do. Where nobody reads it, there is nobody to tell.
pub(crate) fn complain(error: &Error) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "error: {}", error.chain());
    for hint in error.hints() {
        let _ = writeln!(err, "hint: {hint}");
    }
}

fn log(cli: &Cli) {
    let usual = match (&cli.command, cli.globals.verbose) {
        (_, true) => "warn,pgdock=debug,pgdock_core=debug",
        (Command::Agent(_), false) => "warn,pgdock=info,pgdock_core=info",
        (_, false) => "warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
