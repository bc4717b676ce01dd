//! [`MemoryExecutor`]: a node that exists only in a test. Files are kept in memory, commands answer as told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::command::{Command, Exit, Stream};
use super::{Executor, OnOutput, path_error};
use crate::{Error, Result};

/// What a scripted command does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reply {
    /// It writes this and ends with a code.
    Ends {
        /// How it ends.
        exit: Exit,
        /// Its standard output.
        stdout: Vec<u8>,
        /// Its standard error.
        stderr: Vec<u8>,
    },
    /// It never ends by itself.
    Hangs,
}

impl Reply {
    /// It ends well, with this output.
    #[must_use]
    pub fn says(stdout: impl Into<Vec<u8>>) -> Self {
        Self::Ends { exit: Exit::Code(0), stdout: stdout.into(), stderr: Vec::new() }
    }

    /// It fails with a code, and says why.
    #[must_use]
    pub fn fails(code: i32, stderr: impl Into<Vec<u8>>) -> Self {
        Self::Ends { exit: Exit::Code(code), stdout: Vec::new(), stderr: stderr.into() }
    }
}

type Script = dyn Fn(&Command) -> Option<Reply> + Send;

/// A node in memory.
pub struct MemoryExecutor {
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    scripts: Vec<Box<Script>>,
    calls: Vec<Command>,
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
}

impl MemoryExecutor {
    /// A node without files, that knows no command.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), state: Mutex::default() }
    }

    /// Lets a function answer commands: the newest that gives a reply counts. Without any, a program is not there.
    pub fn on(&self, script: impl Fn(&Command) -> Option<Reply> + Send + 'static) -> &Self {
        self.state().scripts.push(Box::new(script));
        self
    }

    /// Lets a program answer the same each time, whatever its arguments are.
    pub fn program(&self, program: impl Into<String>, reply: Reply) -> &Self {
        let program = program.into();
        self.on(move |command| (command.program() == program).then(|| reply.clone()))
    }

    /// Every command so far, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Command> {
        self.state().calls.clone()
    }

    /// A file and its mode.
    #[must_use]
    pub fn file(&self, path: impl AsRef<Path>) -> Option<(Vec<u8>, u32)> {
        self.state().files.get(path.as_ref()).cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MemoryExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryExecutor").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Display for MemoryExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl Executor for MemoryExecutor {
    async fn run(&self, command: &Command, output: &mut OnOutput<'_>) -> Result<Exit> {
        let reply = {
            let mut state = self.state();
            state.calls.push(command.clone());
            state.scripts.iter().rev().find_map(|script| script(command))
        };
        match reply {
            None => Err(Error::invalid(format!("a command cannot be started. command={command}"))
                .because(std::io::Error::from(std::io::ErrorKind::NotFound))),
            Some(Reply::Hangs) => {
                tokio::time::sleep(command.timeout).await;
                Err(Error::unavailable(format!("a command took too long and was killed. command={command}"))
                    .outcome_unknown())
            }
            Some(Reply::Ends { exit, stdout, stderr }) => {
                for (stream, bytes) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
                    if !bytes.is_empty() {
                        output(stream, &bytes);
                    }
                }
                Ok(exit)
            }
        }
    }

    async fn put_file(&self, from: &mut (dyn AsyncRead + Send + Unpin), path: &Path, mode: u32) -> Result<()> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).await.map_err(|e| {
            Error::unavailable(format!("the source of a file failed. path={}", path.display())).because(e)
        })?;
        self.state().files.insert(path.to_owned(), (bytes, mode));
        Ok(())
    }

    async fn get_file(&self, path: &Path, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64> {
        let cannot = |e| path_error("a file cannot be read", self, path, e);
        let (bytes, _) = self.file(path).ok_or_else(|| cannot(std::io::ErrorKind::NotFound.into()))?;
        to.write_all(&bytes).await.map_err(cannot)?;
        to.flush().await.map_err(cannot)?;
        Ok(bytes.len() as u64)
    }
}
