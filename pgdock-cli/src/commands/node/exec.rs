//! `pgdock node exec`

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use clap::Args;
use pgdock_core::executor::{Command, Exit as Ended, Stdin, Stream};
use pgdock_core::{Error, NodeName, Result};

use crate::context::Context;
use crate::exit::Exit;
use crate::reach;

/// Run a program on a node: on its machine, or in its container
///
/// What it writes is passed on as it comes; the exit code is its own. What is piped into this command, it reads. When this
/// command is interrupted, it is killed.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The node
    node: NodeName,
    /// How long it may run, in seconds
    #[arg(long, default_value_t = 3_600, value_name = "SECONDS")]
    timeout: u64,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: ExecArgs) -> Result<Exit> {
    let mut words = args.command.into_iter();
    let program = words.next().unwrap_or_default();
    let command = Command::new(program).args(words).timeout(Duration::from_secs(args.timeout));
    pass_through(context, &args.node, command).await
}

/// Runs a command on a node as if it ran here: inputs, outputs, and how it ends.
pub(super) async fn pass_through(context: &Context, node: &NodeName, command: Command) -> Result<Exit> {
    let settings = context.settings()?;
    let executor = reach::opener().executor(&settings, node)?;
    let command = command.stdin(piped()?);
    let mut broken = false;
    let mut pass = |stream: Stream, bytes: &[u8]| {
        let written = match stream {
            Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
            Stream::Stderr => std::io::stderr().write_all(bytes),
        };
        broken |= written.is_err();
    };
    let ended = tokio::select! {
        ended = executor.run(&command, &mut pass) => ended?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|e| Error::internal("cannot listen for signals").because(e))?;
            return Err(Error::unavailable(format!("interrupted: the command is killed. node={node}")).outcome_unknown());
        }
    };
    Ok(match ended {
        _ if broken => Exit::Failed,
        Ended::Code(0) => Exit::Done,
        Ended::Code(code) => Exit::Of(u8::try_from(code).unwrap_or(1)),
        // As a shell tells it.
        Ended::Signal(signal) => Exit::Of(u8::try_from(signal.saturating_add(128)).unwrap_or(255)),
    })
}

/// What was piped into this command.
fn piped() -> Result<Stdin> {
    let stdin = std::io::stdin();
    let kind = rustix::fs::fstat(&stdin).map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
    // A terminal, or what is no input at all, as under a timer, is not waited for.
    if stdin.is_terminal() || !matches!(kind, Ok(rustix::fs::FileType::Fifo | rustix::fs::FileType::RegularFile)) {
        return Ok(Stdin::Empty);
    }
    let mut bytes = Vec::new();
    stdin.lock().read_to_end(&mut bytes).map_err(|e| Error::invalid("the input cannot be read").because(e))?;
    Ok(if bytes.is_empty() { Stdin::Empty } else { Stdin::Bytes(bytes.into()) })
}
