//! A command in a container: started, listened to, and killed when nobody waits for it any more.
//!
//! The engine knows no request that ends a process, and leaves it alone when whoever started it is gone. So the
//! shell says who it is, as over SSH, and another process of the container kills it.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, WriteHalf};

use super::engine::Engine;
use super::exec::{Exec, Frames, Handle};
use crate::executor::OnOutput;
use crate::executor::command::{Command, Exit, Stream};
use crate::executor::remote::script::{self, Process};
use crate::executor::remote::{self, Input, Preface, introduced};
use crate::{Error, Result};

const CHUNK: usize = 32 << 10;
/// How often a process is looked at that keeps its outputs open.
const LOOK: Duration = Duration::from_millis(500);
/// How long the outputs of a program that has ended may be silent before they are taken for those of a child.
const SILENCE: Duration = Duration::from_millis(500);
/// How much of the outputs is waited for once the program has ended, while a child writes on.
const REST_MAX: usize = 1 << 20;
/// How long a command that is to be killed is given to say its number.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// How long killing may take.
const KILL: Duration = Duration::from_secs(30);

/// A shell in a container that becomes a program, or takes a file. Dropped before it has ended, it is killed.
pub(super) struct Running(Option<Parts>);

pub(super) struct Parts {
    engine: Engine,
    container: String,
    pub(super) handle: Handle,
    pub(super) input: WriteHalf<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>>,
    pub(super) output: Frames,
    pub(super) mark: String,
    pub(super) stdout: Preface,
    pub(super) stderr: Preface,
    /// Known once the shell has introduced itself.
    pub(super) process: Option<Process>,
    pub(super) ended: bool,
}

impl Running {
    pub(super) async fn start(engine: &Engine, container: &str, mark: String) -> Result<Self> {
        let exec = Exec::shell(engine, container).await?;
        let handle = exec.handle();
        let Exec { input, output, .. } = exec;
        let (stdout, stderr) = (Preface::default(), Preface::default());
        let (engine, container) = (engine.clone(), container.to_owned());
        Ok(Self(Some(Parts {
            engine,
            container,
            handle,
            input,
            output,
            mark,
            stdout,
            stderr,
            process: None,
            ended: false,
        })))
    }

    pub(super) fn parts(&mut self) -> Result<&mut Parts> {
        self.0.as_mut().ok_or_else(|| Error::internal("a command was used after its end"))
    }

    /// Sees it to its end.
    pub(super) async fn watch(
        &mut self,
        node: &str,
        command: &Command,
        script: Vec<u8>,
        input: Input,
        output: &mut OnOutput<'_>,
    ) -> Result<Exit> {
        let parts = self.parts()?;
        let lost = || {
            Error::unavailable(format!("the engine was lost while a command ran. node={node}, command={command}"))
                .hint("what it had started runs on until a minute after its timeout; look what it has done")
                .outcome_unknown()
        };
        let Parts { handle, input: to, output: from, mark, stdout, stderr, process, ended, .. } = parts;
        let mut feeding = Box::pin(feed(to, script, input));
        let mut fed = false;
        let mut watching = Box::pin(handle.watched(LOOK));
        let mut exit = None;
        let mut rest = 0;
        while rest < REST_MAX {
            let piece = tokio::select! {
                biased;
                piece = from.next() => piece.map_err(|e| lost().because(e))?,
                result = &mut feeding, if !fed => {
                    fed = true;
                    result.map_err(|e| e.at(format_args!("command={command}")).outcome_unknown())?;
                    continue;
                }
                // The outputs are open still: a child has them, or the last pieces are on their way.
                found = &mut watching, if exit.is_none() => {
                    exit = Some(found.map_err(|e| lost().because(e))?);
                    continue;
                }
                () = tokio::time::sleep(SILENCE), if exit.is_some() => break,
            };
            let Some((stream, data)) = piece else { break };
            if exit.is_some() {
                rest += data.len();
            }
            let preface = if stream == Stream::Stdout { &mut *stdout } else { &mut *stderr };
            if let Some(data) = preface.take(mark, data).map_err(|e| e.at(format_args!("node={node}")))? {
                if process.is_none() {
                    *process = preface.said.as_deref().and_then(introduced);
                }
                if process.is_some() && !data.is_empty() {
                    output(stream, &data);
                }
            }
        }
        drop(feeding);
        let exit = match exit {
            Some(exit) => exit,
            None => handle.ended().await.map_err(|e| lost().because(e))?,
        };
        *ended = true;
        if process.is_some() {
            return Ok(exit);
        }
        let hint = "the container's image needs /bin/sh and env";
        Err(remote::not_started((node, hint), command, stdout, stderr, exit))
    }

    /// Kills it, and returns when that is done or cannot be done.
    pub(super) async fn kill(mut self) {
        if let Some(parts) = self.0.take() {
            parts.end().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(parts) = self.0.take().filter(|parts| !parts.ended)
            // Without a runtime there is no connection either.
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(parts.end());
        }
    }
}

impl Parts {
    async fn end(mut self) {
        if self.ended {
            return;
        }
        if self.process.is_none() {
            // Its own input ends here: without a line it does nothing. It may have heard one, and not said its name yet.
            let _ = self.input.shutdown().await;
            let _ = tokio::time::timeout(INTRODUCTION, self.listen()).await;
        }
        let Some(process) = self.process.take() else { return };
        let killing = kill(&self.engine, &self.container, &process);
        match tokio::time::timeout(KILL, killing).await {
            Ok(Ok(Exit::Code(0))) => {}
            // Then the watchdog does it, once its time is over.
            failed => tracing::warn!(container = %self.container, ?failed, "a command cannot be killed"),
        }
    }

    /// Waits for the shell's introduction, or its end.
    async fn listen(&mut self) {
        while self.process.is_none() {
            match self.output.next().await {
                Ok(Some((Stream::Stdout, data))) => {
                    if !matches!(self.stdout.take(&self.mark, data), Ok(None)) {
                        self.process = self.stdout.said.as_deref().and_then(introduced);
                        return;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// Kills a group, from a process of its own.
async fn kill(engine: &Engine, container: &str, process: &Process) -> Result<Exit> {
    let mut exec = Exec::shell(engine, container).await?;
    let cannot = |e: std::io::Error| Error::unavailable("a command cannot be killed").because(e);
    exec.input.write_all(&script::kill(process)?).await.map_err(cannot)?;
    exec.input.shutdown().await.map_err(cannot)?;
    while exec.output.next().await.map_err(cannot)?.is_some() {}
    exec.handle().ended().await
}

/// Sends the script, and what the program is to read. A program may end, or close its input, without having read all of
/// it: that is its right.
async fn feed(to: &mut (impl tokio::io::AsyncWrite + Unpin), script: Vec<u8>, input: Input) -> Result<()> {
    let _ = to.write_all(&script).await;
    match input {
        Input::Empty => {}
        Input::Bytes(bytes) => {
            let _ = to.write_all(&bytes).await;
        }
        Input::File(mut file) => {
            let mut buffer = vec![0; CHUNK];
            loop {
                let read = file.read(&mut buffer).await;
                // The program would take half of it for the whole.
                let read = read.map_err(|e| Error::unavailable("the input of a command failed").because(e))?;
                if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown().await;
    Ok(())
}
