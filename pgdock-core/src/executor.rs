//! [`Executor`]: runs commands and moves files on one node, wherever that is.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Error, Result};

pub mod command;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "docker")]
pub mod docker;
pub mod faulty;
pub mod local;
pub mod memory;
pub mod open;
#[cfg(feature = "ssh")]
mod remote;
#[cfg(feature = "ssh")]
pub mod ssh;

pub use command::{Command, Exit, Output, Stdin, Stream};
#[cfg(feature = "docker")]
pub use docker::DockerExecutor;
pub use faulty::FaultyExecutor;
pub use local::LocalExecutor;
pub use memory::MemoryExecutor;
pub use open::Opener;
#[cfg(feature = "ssh")]
pub use ssh::{SshConfig, SshExecutor};

/// Takes the output of a command while it runs, piece by piece.
pub type OnOutput<'a> = dyn FnMut(Stream, &[u8]) + Send + 'a;

/// Runs commands and moves files on one node.
///
/// # Contract
/// - `run` answers how the program ended, also when it failed: only what kept it from running, or from being
///   seen to its end, is an error. A program that is not there is `Invalid`; a command that outlived its
///   timeout is `Unavailable` with an unknown outcome.
/// - Output is passed on as it comes, in the order of each stream, and is never held back as a whole. What
///   the program wrote before it ended has been passed on when `run` returns.
/// - When the timeout passes, or the caller drops the call, everything that the command started is killed,
///   children included. A program that makes a session of its own (a daemon) has left on purpose, and stays.
/// - The program gets only the environment of [`Command`], and a `PATH`; never the agent's own.
/// - `put_file` is atomic: whoever opens the path finds the old file or the whole new one, also after a
///   crash. The folder must exist. A symbolic link at the path is replaced, not followed.
/// - Neither arguments nor output are secrets; environment, standard input and files may be: an
///   implementation logs none of these.
#[async_trait]
pub trait Executor: std::fmt::Debug + std::fmt::Display + Send + Sync + 'static {
    /// Runs a program to its end.
    ///
    /// # Errors
    /// `Invalid` when it cannot be started, `Unavailable` when the node does not answer or the time is over.
    async fn run(&self, command: &Command, output: &mut OnOutput<'_>) -> Result<Exit>;

    /// Writes a file, of which `from` gives the content, with permission bits `mode`.
    ///
    /// # Errors
    /// `Invalid` when the path cannot be written, `Unavailable` when the node does not answer, or `from` fails.
    async fn put_file(&self, from: &mut (dyn AsyncRead + Send + Unpin), path: &Path, mode: u32) -> Result<()>;

    /// Copies a file's content to `to`, and says how many bytes that was.
    ///
    /// # Errors
    /// `Invalid` when there is no such file, `Unavailable` when the node does not answer, or `to` fails.
    async fn get_file(&self, path: &Path, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64>;
}

fn _object_safe(_: &dyn Executor) {}

/// Comfort for every [`Executor`].
#[async_trait]
pub trait ExecutorExt: Executor {
    /// Runs a program and keeps what it wrote, of each stream at most [`Command::output_max`] bytes.
    ///
    /// # Errors
    /// As [`Executor::run`].
    async fn output(&self, command: &Command) -> Result<Output> {
        let mut kept = command::Kept::new(command.output_max);
        let exit = self.run(command, &mut |stream, bytes| kept.take(stream, bytes)).await?;
        Ok(kept.output(exit))
    }

    /// As [`output`](Self::output), but a program that failed is an error with the end of what it said.
    ///
    /// # Errors
    /// As [`Executor::run`]; `Internal` when the program failed, or wrote more than is kept of it.
    async fn run_checked(&self, command: &Command) -> Result<Output> {
        let output = self.output(command).await?;
        output.check(&format!("{self}"), command)?;
        Ok(output)
    }

    /// Writes a file from bytes. See [`Executor::put_file`].
    ///
    /// # Errors
    /// As [`Executor::put_file`].
    async fn put_bytes(&self, bytes: &[u8], path: &Path, mode: u32) -> Result<()> {
        let mut from = bytes;
        self.put_file(&mut from, path, mode).await
    }

    /// Reads a file of at most `max` bytes.
    ///
    /// # Errors
    /// As [`Executor::get_file`]; `Invalid` when the file is larger.
    async fn get_bytes(&self, path: &Path, max: usize) -> Result<Vec<u8>> {
        let mut to = command::Bounded::new(max);
        match self.get_file(path, &mut to).await {
            _ if to.overflowed() => {
                Err(Error::invalid(format!("the file is larger than expected. path={}, max={max}", path.display())))
            }
            Ok(_) => Ok(to.into_bytes()),
            Err(error) => Err(error),
        }
    }
}

impl<E: Executor + ?Sized> ExecutorExt for E {}

/// An error about a path on a node.
fn path_error(what: &str, executor: &dyn std::fmt::Display, path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    let message = format!("{what}. node={executor}, path={}", path.display());
    match error.kind() {
        Io::NotFound | Io::PermissionDenied | Io::IsADirectory | Io::NotADirectory | Io::InvalidInput => {
            Error::invalid(message).because(error)
        }
        Io::StorageFull | Io::QuotaExceeded => {
            Error::unavailable(message).because(error).hint("make room on that disk")
        }
        _ => Error::unavailable(message).because(error),
    }
}

/// The path of a program's working folder, for errors.
fn shown(dir: Option<&PathBuf>) -> String {
    dir.map(|dir| format!(", dir={}", dir.display())).unwrap_or_default()
}
