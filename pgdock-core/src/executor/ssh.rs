//! [`SshExecutor`]: another machine, over SSH.
//!
//! ```text
//! run ──► connection (one, made when needed) ──► session ──► sh reads script ──► becomes the program
//!             │ its key is known, user logged in     │                └─ watchdog: kills the group when the
//!             └─ lost? the next call makes another   └─ kill: another      connection is gone
//! ```
//!
//! Nothing has to be installed on the node: `/bin/sh`, `setsid`, and the core utilities are enough.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use super::command::{Command, Exit};
use super::remote::files::{self, Shell};
use super::remote::{Input, mark, out_of_time, script};
use super::{Executor, OnOutput};
use crate::Result;

mod auth;
mod config;
mod connect;
mod known_hosts;
mod run;
mod shell;

pub use config::{HostKeys, Identity, SshConfig, SshTimeouts};

use connect::{Connection, Purpose, Session};
use run::Running;
use shell::SshShell;

/// Runs commands on a node as a user that may log in there over SSH.
///
/// One connection carries everything, at most [`SshConfig::sessions_max`] commands and files at a time. It is made by
/// the first call; when it was lost, the next call makes another.
///
/// # What differs from a local node
/// - A node that cannot be heard kills a command once its server has noticed that the connection is gone; if it
///   does not notice, a minute after the command's timeout.
/// - A program whose interpreter is missing is seen to end with 126 or 127; it is not told apart from one that ends so.
/// - Where the connection is lost, the program finds the end of its input before it is killed, within a second.
/// - Names of variables are what a shell can set: letters, digits, `_`.
/// - Of signals that SSH has no name for, the number is not known: 0.
#[derive(Debug)]
pub struct SshExecutor {
    link: Link,
}

/// The way to a node: one connection, made when it is needed, and made anew when it was lost.
#[derive(Debug)]
pub(super) struct Link {
    config: SshConfig,
    current: Mutex<Option<Arc<Connection>>>,
}

impl SshExecutor {
    /// For a node. Nothing is opened yet.
    #[must_use]
    pub fn new(config: SshConfig) -> Self {
        Self { link: Link::new(config) }
    }
}

impl Link {
    pub(super) fn new(config: SshConfig) -> Self {
        Self { config, current: Mutex::new(None) }
    }

    /// Opens a way to a socket of the node.
    #[cfg_attr(not(feature = "docker"), expect(dead_code, reason = "engines are reached by it"))]
    pub(super) async fn forward(&self, socket: &Path) -> Result<russh::ChannelStream<russh::client::Msg>> {
        let connection = self.connection().await?;
        match connection.forward(socket).await {
            // As with a session.
            Err(_) if !connection.is_open() => self.connection().await?.forward(socket).await,
            stream => stream,
        }
    }

    async fn connection(&self) -> Result<Arc<Connection>> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| connection.is_open()) {
            return Ok(Arc::clone(connection));
        }
        *current = None;
        let connection = Connection::open(&self.config).await?;
        *current = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn session(&self, purpose: Purpose) -> Result<Session> {
        let connection = self.connection().await?;
        match connection.session(purpose).await {
            // It was lost since it was last used. Nothing has been asked of it.
            Err(_) if !connection.is_open() => self.connection().await?.session(purpose).await,
            session => session,
        }
    }
}

/// As a URL: `ssh://user@host:port`.
impl std::fmt::Display for SshExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.link.config.fmt(f)
    }
}

#[async_trait]
impl Executor for SshExecutor {
    async fn run(&self, command: &Command, output: &mut OnOutput<'_>) -> Result<Exit> {
        let (_, stdin, timeout) = command.surroundings();
        let mut running = None;
        let run = async {
            let input = Input::open(stdin).await?;
            let mark = mark();
            let script = script::run(command, &mark, !input.is_empty())?;
            let session = self.link.session(Purpose::Command).await?;
            running.insert(Running::new(session, mark)).watch(command, script, input, output).await
        };
        let ended = tokio::time::timeout(timeout, run).await;
        if let Ok(ended) = ended {
            return ended;
        }
        let started = running.is_some();
        if let Some(running) = running {
            running.kill().await;
        }
        Err(out_of_time(&self.to_string(), command, timeout, started))
    }

    async fn put_file(&self, from: &mut (dyn AsyncRead + Send + Unpin), path: &Path, mode: u32) -> Result<()> {
        let session = self.link.session(Purpose::File).await?;
        let shell: Arc<dyn Shell> = Arc::new(SshShell::new(session));
        files::put(&shell, &mark(), from, path, mode).await
    }

    async fn get_file(&self, path: &Path, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64> {
        let session = self.link.session(Purpose::File).await?;
        files::get(&SshShell::new(session), &mark(), path, to).await
    }
}
