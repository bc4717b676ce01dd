//! [`LocalExecutor`]: this machine.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use super::command::{Command, Exit, Stdin, Stream};
use super::{Executor, OnOutput, path_error, shown};
use crate::durable::Staged;
use crate::{Error, Result};

const CHUNK: usize = 64 << 10;
/// More than a pipe holds, unless root has made it larger.
const PIPE_MAX: usize = 1 << 20;
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Runs commands as processes of this machine, as the user that the caller runs as.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalExecutor;

impl std::fmt::Display for LocalExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("local")
    }
}

#[async_trait]
impl Executor for LocalExecutor {
    async fn run(&self, command: &Command, output: &mut OnOutput<'_>) -> Result<Exit> {
        let run = async { Group::spawn(command).await?.watch(command, output).await };
        match tokio::time::timeout(command.timeout, run).await {
            Ok(exit) => exit,
            // Dropping the group kills it.
            Err(_) => Err(Error::unavailable(format!(
                "a command took too long and was killed. seconds={}, command={command}",
                command.timeout.as_secs_f64()
            ))
            .outcome_unknown()),
        }
    }

    async fn put_file(&self, from: &mut (dyn AsyncRead + Send + Unpin), path: &Path, mode: u32) -> Result<()> {
        let cannot = |e| path_error("a file cannot be written", self, path, e);
        if path.is_dir() {
            return Err(cannot(io::ErrorKind::IsADirectory.into()));
        }
        let target = path.to_owned();
        let mut staged = blocking(move || Staged::create(&target, mode)).await.map_err(cannot)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = from.read(&mut buffer).await.map_err(|e| {
                Error::unavailable(format!("the source of a file failed. path={}", path.display())).because(e)
            })?;
            if read == 0 {
                break;
            }
            (staged, buffer) = blocking(move || {
                staged.file().write_all(&buffer[..read])?;
                Ok((staged, buffer))
            })
            .await
            .map_err(cannot)?;
        }
        blocking(move || {
            // Only tidiness depends on it.
            let _ = staged.sweep_beside();
            Ok(staged.replace())
        })
        .await
        .and_then(|landed| landed.map_err(|e| e.source))
        .map_err(cannot)
    }

    async fn get_file(&self, path: &Path, to: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<u64> {
        let cannot = |e| path_error("a file cannot be read", self, path, e);
        let mut file = tokio::fs::File::open(path).await.map_err(cannot)?;
        if file.metadata().await.map_err(cannot)?.is_dir() {
            return Err(cannot(io::ErrorKind::IsADirectory.into()));
        }
        let copied = tokio::io::copy(&mut file, to).await.map_err(cannot)?;
        to.flush().await.map_err(cannot)?;
        Ok(copied)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|died| Err(io::Error::other(died)))
}

/// A running program with all its children that have not left for a session of their own.
struct Group {
    child: Child,
    /// Its number, until it has been reaped: afterwards it may be another's.
    id: Option<Pid>,
}

impl Group {
    async fn spawn(command: &Command) -> Result<Self> {
        let mut process = tokio::process::Command::new(&command.program);
        process
            .args(&command.args)
            .env_clear()
            .envs(command.environment())
            .current_dir(command.dir.as_deref().unwrap_or(Path::new("/")))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let cannot = |e: io::Error| {
            let message = format!("a command cannot be started. command={command}{}", shown(command.dir.as_ref()));
            match e.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Error::unavailable(message).because(e),
                _ => Error::invalid(message).because(e),
            }
        };
        let mut tries = 0;
        let child = loop {
            process.stdin(input(&command.stdin)?);
            match process.spawn() {
                // A file that was just written stays busy while another thread is between fork and exec.
                Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                    tries += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                spawned => break spawned.map_err(cannot)?,
            }
        };
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { child, id })
    }

    async fn watch(&mut self, command: &Command, output: &mut OnOutput<'_>) -> Result<Exit> {
        let broken = |e| Error::internal(format!("a command was lost sight of. command={command}")).because(e);
        let mut stdout = self.child.stdout.take();
        let mut stderr = self.child.stderr.take();
        let mut feeding = Box::pin(feed(self.child.stdin.take(), &command.stdin));
        let mut fed = false;
        let (mut out, mut err) = (vec![0; CHUNK], vec![0; CHUNK]);
        let status = loop {
            tokio::select! {
                // The end is looked for first: a child that writes without pause must not hide it.
                biased;
                status = self.child.wait() => {
                    self.id = None;
                    break status.map_err(broken)?;
                }
                read = read(&mut stdout, &mut out), if stdout.is_some() => match read.map_err(broken)? {
                    0 => stdout = None,
                    n => output(Stream::Stdout, &out[..n]),
                },
                read = read(&mut stderr, &mut err), if stderr.is_some() => match read.map_err(broken)? {
                    0 => stderr = None,
                    n => output(Stream::Stderr, &err[..n]),
                },
                () = &mut feeding, if !fed => fed = true,
            }
        };
        let rest = |pipe: Option<io::Result<OwnedFd>>, stream, output: &mut OnOutput<'_>| match pipe {
            Some(pipe) => pipe.and_then(|pipe| drain(pipe, |bytes| output(stream, bytes))).map_err(broken),
            None => Ok(()),
        };
        rest(stdout.map(ChildStdout::into_owned_fd), Stream::Stdout, output)?;
        rest(stderr.map(ChildStderr::into_owned_fd), Stream::Stderr, output)?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        })
    }
}

/// Reads what a program left in a pipe when it ended.
///
/// Children may hold the other end for as long as they like, so neither the end of the stream nor more than
/// a pipe can hold is waited for.
fn drain(pipe: OwnedFd, mut output: impl FnMut(&[u8])) -> io::Result<()> {
    rustix::fs::fcntl_setfl(&pipe, rustix::fs::OFlags::NONBLOCK)?;
    let mut buffer = vec![0; CHUNK];
    let mut drained = 0;
    while drained < PIPE_MAX {
        match rustix::io::read(&pipe, &mut buffer) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(n) => {
                output(&buffer[..n]);
                drained += n;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn input(stdin: &Stdin) -> Result<Stdio> {
    Ok(match stdin {
        Stdin::Empty => Stdio::null(),
        Stdin::Bytes(_) => Stdio::piped(),
        Stdin::File(path) => std::fs::File::open(path)
            .map_err(|e| {
                Error::invalid(format!("the input of a command cannot be read. path={}", path.display())).because(e)
            })?
            .into(),
    })
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // It may be gone this moment; then there is nothing to kill. The runtime reaps it.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// A program may end, or close its input, without having read all of it: that is its right.
async fn feed(stdin: Option<ChildStdin>, content: &Stdin) {
    if let (Some(mut stdin), Stdin::Bytes(bytes)) = (stdin, content) {
        let _ = stdin.write_all(bytes).await;
        let _ = stdin.shutdown().await;
    }
}

async fn read(from: &mut Option<impl AsyncRead + Unpin>, to: &mut [u8]) -> io::Result<usize> {
    match from {
        Some(from) => from.read(to).await,
        None => std::future::pending().await,
    }
}
