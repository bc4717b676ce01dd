//! [`Gently`]: what runs on a node runs at a low priority, behind the database.

use std::path::Path;

use async_trait::async_trait;
use pgdock_core::executor::{Command, Executor, Exit, LocalExecutor, OnOutput, Stream};
use pgdock_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};

/// Runs every program of this machine by `nice`.
#[derive(Debug)]
pub struct Gently {
    niceness: u8,
    inner: LocalExecutor,
}

impl Gently {
    /// How much lower the priority is: up to 19.
    #[must_use]
    pub fn new(niceness: u8) -> Self {
        Self { niceness: niceness.min(19), inner: LocalExecutor }
    }
}

impl std::fmt::Display for Gently {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at niceness {}", self.inner, self.niceness)
    }
}

#[async_trait]
impl Executor for Gently {
    async fn run(&self, command: &Command, output: &mut OnOutput<'_>) -> Result<Exit> {
        let (dir, stdin, timeout) = command.surroundings();
        let mut nicely = Command::new("nice").arg("-n").arg(self.niceness.to_string()).arg(command.program());
        nicely = nicely.args(command.arguments().iter().cloned()).stdin(stdin.clone()).timeout(timeout);
        for (name, value) in command.environment() {
            nicely = nicely.env(name, value.to_owned());
        }
        if let Some(dir) = dir {
            nicely = nicely.dir(dir);
        }
        // `nice` becomes the program. Where it cannot, it says so itself, which no program does in its place.
        let mut refused = false;
        let mut listen = |stream, bytes: &[u8]| {
            refused |= stream == Stream::Stderr && bytes.starts_with(b"nice: ");
            output(stream, bytes);
        };
        match self.inner.run(&nicely, &mut listen).await? {
            Exit::Code(126 | 127) if refused => {
                Err(Error::invalid(format!("the program cannot be started. node={self}, program={}", command.program())))
            }
            exit => Ok(exit),
        }
    }

    async fn put_file(&self, from: &mut (dyn AsyncRead + Send + Unpin), path: &Path, mode: u32) -> Result<()> {
        self.inner.put_file(from, path, mode).await
    }

    async fn get_file(&self, path: &Path, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64> {
        self.inner.get_file(path, to).await
    }
}
