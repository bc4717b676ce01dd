//! [`DockerExecutor`]: a container of an engine.
//!
//! ```text
//! run ──► engine: a process in the container ──► sh reads script ──► becomes the program
//!            │ unix socket · TLS · a socket over SSH │                  └─ watchdog: kills the group when its
//!            └─ a connection for each request        └─ kill: another      time is over
//! ```
//!
//! Nothing has to be installed in the container: `/bin/sh`, `env`, `setsid`, and the core utilities are enough.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use super::command::{Command, Exit};
use super::remote::files::{self, Shell};
use super::remote::{Input, mark, out_of_time, script};
use super::{Executor, OnOutput};
use crate::Result;

mod container;
mod engine;
mod exec;
mod image;
mod run;
mod shell;
mod transport;

pub use container::{ContainerState, LogOptions};
pub use engine::{Engine, EngineAbout};
pub use image::ImageAbout;
pub use transport::EngineAddress;

use run::Running;
use shell::DockerShell;

/// Runs commands in a container as the user that the container runs as.
///
/// # What differs from a local node
/// - An engine tells a signal as a code above 128: a program that ends by itself with such a code, up to 192, is taken for
///   one that was killed.
/// - A program that ends while a child of it has its outputs is noticed within half a second, and its last output is waited
///   for until there was none for as long.
/// - If this program itself is killed, the command runs on until a minute after its timeout.
/// - Names of variables are what a shell can set: letters, digits, `_`.
#[derive(Debug)]
pub struct DockerExecutor {
    engine: Engine,
    container: String,
}

impl DockerExecutor {
    /// For a container by its name. Nothing is opened yet.
    pub fn new(engine: Engine, container: impl Into<String>) -> Self {
        Self { engine, container: container.into() }
    }

    /// The engine that has the container.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn shell(&self) -> DockerShell {
        DockerShell { engine: self.engine.clone(), container: self.container.clone(), node: self.to_string() }
    }
}

/// `CONTAINER@ENGINE`
impl std::fmt::Display for DockerExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.container, self.engine)
    }
}

#[async_trait]
impl Executor for DockerExecutor {
    async fn run(&self, command: &Command, output: &mut OnOutput<'_>) -> Result<Exit> {
        let (_, stdin, timeout) = command.surroundings();
        let node = self.to_string();
        let mut running = None;
        let run = async {
            let input = Input::open(stdin).await?;
            let mark = mark();
            let script = script::run(command, &mark, !input.is_empty())?;
            let started = Running::start(&self.engine, &self.container, mark).await?;
            running.insert(started).watch(&node, command, script, input, output).await
        };
        let ended = tokio::time::timeout(timeout, run).await;
        if let Ok(ended) = ended {
            return ended;
        }
        let started = running.is_some();
        if let Some(running) = running {
            running.kill().await;
        }
        Err(out_of_time(&node, command, timeout, started))
    }

    async fn put_file(&self, from: &mut (dyn AsyncRead + Send + Unpin), path: &Path, mode: u32) -> Result<()> {
        let shell: Arc<dyn Shell> = Arc::new(self.shell());
        files::put(&shell, &mark(), from, path, mode).await
    }

    async fn get_file(&self, path: &Path, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64> {
        files::get(&self.shell(), &mark(), path, to).await
    }
}
