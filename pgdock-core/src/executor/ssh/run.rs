//! A command on its way: started, listened to, and killed when nobody waits for it any more.
//!
//! The shell says under a random mark, on both outputs, who it is, before it becomes the program. What comes before
//! is what the user's login shell had to say, and is nobody's output.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::AsyncReadExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::connect::{Connection, Purpose, Session, within};
use crate::executor::OnOutput;
use crate::executor::command::{Command, Exit, Stream};
use crate::executor::remote::script::{self, Process};
use crate::executor::remote::{self, Input, Preface, introduced};
use crate::{Error, Result};

const CHUNK: usize = 32 << 10;
/// How much of the outputs is waited for once the program has ended, while a child writes on.
const REST_MAX: usize = 1 << 20;
/// How often the server has to say that there is nothing more. It answers before it sends what it has just read, so
/// once is not enough.
const QUIET: u32 = 3;
/// How long a command that is to be killed is given to say its number.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// A session's program. Dropped before it has ended, it is killed.
pub(super) struct Running(Option<Parts>);

struct Parts {
    connection: Arc<Connection>,
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    permit: OwnedSemaphorePermit,
    mark: String,
    stdout: Preface,
    stderr: Preface,
    /// Known once the shell has introduced itself.
    process: Option<Process>,
    /// Whether anything was started.
    asked: bool,
    ended: bool,
}

impl Running {
    pub(super) fn new(session: Session, mark: String) -> Self {
        let (read, write) = session.channel.split();
        let (stdout, stderr) = (Preface::default(), Preface::default());
        let (connection, permit) = (session.connection, session.permit);
        Self(Some(Parts {
            connection,
            read,
            write,
            permit,
            mark,
            stdout,
            stderr,
            process: None,
            asked: false,
            ended: false,
        }))
    }

    /// Starts it and sees it to its end.
    pub(super) async fn watch(
        &mut self,
        command: &Command,
        script: Vec<u8>,
        input: Input,
        output: &mut OnOutput<'_>,
    ) -> Result<Exit> {
        let Some(parts) = &mut self.0 else { return Err(Error::internal("a command was used after its end")) };
        let Parts { connection, read, write, mark, stdout, stderr, process, asked, ended, .. } = parts;
        let lost = || {
            Error::unavailable(format!(
                "the connection was lost while a command ran. node={}, command={command}",
                connection.node()
            ))
            .hint("what it had started is killed as soon as the node's server notices; look what it has done")
            .outcome_unknown()
        };
        *asked = true;
        write.exec(false, script::bootstrap()).await.map_err(|e| lost().because(e))?;
        let mut feeding = Box::pin(feed(write, script, input));
        let mut fed = false;
        let mut exit = None;
        let (mut quiet, mut rest) = (0, 0);
        while quiet < QUIET && rest < REST_MAX {
            let message = tokio::select! {
                biased;
                message = read.wait() => message,
                result = &mut feeding, if !fed => {
                    fed = true;
                    result.map_err(|e| e.at(format_args!("command={command}")).outcome_unknown())?;
                    continue;
                }
                () = connection.ping(), if exit.is_some() => {
                    quiet += 1;
                    continue;
                }
            };
            let (stream, data) = match message {
                None => return Err(lost()),
                Some(ChannelMsg::Data { data }) => (Stream::Stdout, data),
                Some(ChannelMsg::ExtendedData { data, ext: 1 }) => (Stream::Stderr, data),
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    exit = Some(Exit::Code(exit_status.cast_signed()));
                    *ended = true;
                    continue;
                }
                Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                    exit = Some(Exit::Signal(number(&signal_name)));
                    *ended = true;
                    continue;
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close) if exit.is_some() => break,
                Some(ChannelMsg::Close) => return Err(lost()),
                Some(_) => continue,
            };
            quiet = 0;
            if exit.is_some() {
                rest += data.len();
            }
            let preface = if stream == Stream::Stdout { &mut *stdout } else { &mut *stderr };
            if let Some(data) =
                preface.take(mark, data).map_err(|e| e.at(format_args!("node={}", connection.node())))?
            {
                if process.is_none() {
                    *process = preface.said.as_deref().and_then(introduced);
                }
                if process.is_some() && !data.is_empty() {
                    output(stream, &data);
                }
            }
        }
        let Some(exit) = exit else { return Err(lost()) };
        drop(feeding);
        // The session is not needed any more; children of the program may hold its outputs.
        let _ = write.close().await;
        if process.is_some() {
            return Ok(exit);
        }
        let node = connection.node();
        let hint = "the user needs a shell such as /bin/sh, and no forced command in sshd_config or authorized_keys";
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
        if let Some(parts) = self.0.take()
            // Without a runtime there is no connection either.
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(parts.end());
        }
    }
}

impl Parts {
    async fn end(mut self) {
        if self.asked && !self.ended && self.connection.is_open() {
            if self.process.is_none() {
                // It may not have introduced itself, or not even have heard its name.
                let _ = tokio::time::timeout(INTRODUCTION, self.listen()).await;
            }
            let Self { read, process, .. } = self;
            // Unread output would hold up all other sessions.
            drop(read);
            let killed = match &process {
                Some(process) => kill(&self.connection, process).await,
                None => self.stdout.said.is_some() || self.ended,
            };
            if !killed {
                // Then the node's own watchdog does it, for all that came by this connection.
                tracing::warn!(node = self.connection.node(), "a command cannot be killed: its connection is given up");
                self.connection.end("a command cannot be killed").await;
            }
        }
        let _ = self.write.close().await;
        drop(self.permit);
    }

    /// Waits for the shell's introduction, or its end. Its own input ends here: without a line it does nothing.
    async fn listen(&mut self) {
        let _ = self.write.eof().await;
        while self.process.is_none() {
            match self.read.wait().await {
                Some(ChannelMsg::Data { data }) => {
                    if !matches!(self.stdout.take(&self.mark, data), Ok(None)) {
                        self.process = self.stdout.said.as_deref().and_then(introduced);
                        return;
                    }
                }
                Some(ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. }) => {
                    self.ended = true;
                    return;
                }
                None | Some(ChannelMsg::Close) => return,
                Some(_) => {}
            }
        }
    }
}

/// Kills a group from a session of its own, and says whether that was done.
async fn kill(connection: &Arc<Connection>, process: &Process) -> bool {
    let attempt = async {
        let Session { mut channel, permit, .. } = connection.session(Purpose::Kill).await?;
        let cannot = |e: russh::Error| Error::unavailable("a command cannot be killed").because(e);
        channel.exec(false, script::bootstrap()).await.map_err(cannot)?;
        channel.data_bytes(script::kill(process)?).await.map_err(cannot)?;
        channel.eof().await.map_err(cannot)?;
        let mut done = false;
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::ExitStatus { exit_status } => done = exit_status == 0,
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        let _ = channel.close().await;
        drop(permit);
        Ok::<_, Error>(done)
    };
    let attempt = within(connection.patience(), "a command was not killed", connection.node(), attempt).await;
    matches!(attempt, Ok(Ok(true)))
}

/// Sends the script, and what the program is to read. A program may end, or close its input, without having read all of
/// it: that is its right.
async fn feed(write: &ChannelWriteHalf<Msg>, script: Vec<u8>, input: Input) -> Result<()> {
    let _ = write.data_bytes(script).await;
    match input {
        Input::Empty => {}
        Input::Bytes(bytes) => {
            let _ = write.data_bytes(bytes).await;
        }
        Input::File(mut file) => {
            let mut buffer = vec![0; CHUNK];
            loop {
                let read = file.read(&mut buffer).await;
                // The program would take half of it for the whole.
                let read = read.map_err(|e| Error::unavailable("the input of a command failed").because(e))?;
                if read == 0 || write.data_bytes(Bytes::copy_from_slice(&buffer[..read])).await.is_err() {
                    break;
                }
            }
        }
    }
    let _ = write.eof().await;
    Ok(())
}

/// A signal's number on Linux; 0 where the server does not name it.
fn number(signal: &Sig) -> i32 {
    use rustix::process::Signal;
    let signal = match signal {
        Sig::ABRT => Signal::ABORT,
        Sig::ALRM => Signal::ALARM,
        Sig::FPE => Signal::FPE,
        Sig::HUP => Signal::HUP,
        Sig::ILL => Signal::ILL,
        Sig::INT => Signal::INT,
        Sig::KILL => Signal::KILL,
        Sig::PIPE => Signal::PIPE,
        Sig::QUIT => Signal::QUIT,
        Sig::SEGV => Signal::SEGV,
        Sig::TERM => Signal::TERM,
        Sig::USR1 => Signal::USR1,
        Sig::Custom(_) => return 0,
    };
    signal.as_raw()
}
