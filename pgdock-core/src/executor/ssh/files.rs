//! Files, through the node's `cat`: no other program is needed there.
//!
//! The node cannot tell the end of a file from the end of the connection. So a file arrives beside its place, the
//! node counts it, and only a second word from here, after the count was compared, puts it there.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::connect::{Connection, Purpose, Session, within};
use super::run::Preface;
use super::script;
use crate::{Error, Result};

const CHUNK: usize = 32 << 10;
/// How much is kept of what a script says.
const SAID_MAX: usize = 4 << 10;
/// The status of a script whose file is in its place, in a folder that cannot be synced.
const NOT_SYNCED: u32 = 4;

/// How a script ended.
struct Ended {
    status: Option<u32>,
    said: String,
    bytes: u64,
}

/// Writes a file.
pub(super) async fn put(
    session: Session,
    mark: &str,
    from: &mut (dyn AsyncRead + Send + Unpin),
    path: &Path,
    mode: u32,
) -> Result<()> {
    let target = text(path)?;
    let connection = &Arc::clone(&session.connection);
    let what = "a file cannot be written";
    if path.file_name().is_none() {
        return Err(refused(what, connection, path, "Is a directory"));
    }
    let dir = match path.parent().map(text).transpose()? {
        None | Some("") => ".",
        Some(dir) => dir,
    };
    let temporary = format!("{dir}/{}{mark}", script::TEMPORARY);
    let mut leftover = Leftover { connection: Arc::clone(connection), mark: mark.to_owned(), temporary, armed: true };
    let receive = script::receive(target, mark, dir, &leftover.temporary)?;
    let mut sent = 0;
    let mut counted = Vec::new();
    let content = Content { from: Some(from), path, sent: &mut sent };
    let received = converse(session, mark, receive, content, &mut counted).await;
    let received = match received {
        Ok(received) => received,
        Err(e) => {
            leftover.discard().await;
            return Err(e);
        }
    };
    let count = String::from_utf8_lossy(&counted).trim().parse::<u64>().ok();
    if received.status != Some(0) || count != Some(sent) {
        leftover.discard().await;
        let why = if received.said.is_empty() {
            format!("{sent} bytes were sent, and {} arrived", count.unwrap_or(0))
        } else {
            received.said
        };
        return Err(refused(what, connection, path, &why));
    }
    let land = script::land(target, mark, dir, &leftover.temporary, mode)?;
    let session = connection.session(Purpose::File).await?;
    let landed = converse(session, mark, land, Content::none(path, &mut 0), &mut Vec::new()).await;
    let landed = landed.map_err(Error::outcome_unknown)?;
    match landed.status {
        Some(0) => {
            leftover.armed = false;
            Ok(())
        }
        Some(NOT_SYNCED) => {
            leftover.armed = false;
            Err(refused("a file was written, and may not outlive a crash", connection, path, &landed.said)
                .outcome_unknown())
        }
        _ => {
            leftover.discard().await;
            Err(refused(what, connection, path, &landed.said))
        }
    }
}

/// Reads a file.
pub(super) async fn get(
    session: Session,
    mark: &str,
    path: &Path,
    to: &mut (dyn AsyncWrite + Send + Unpin),
) -> Result<u64> {
    let what = "a file cannot be read";
    let send = script::send(text(path)?, mark)?;
    let connection = &Arc::clone(&session.connection);
    let ended = converse(session, mark, send, Content::none(path, &mut 0), to).await;
    let ended = ended.map_err(|e| e.at(format_args!("path={}", path.display())))?;
    match ended.status {
        Some(0) => Ok(ended.bytes),
        _ => Err(refused(what, connection, path, &ended.said)),
    }
}

/// What a script reads after itself.
struct Content<'a> {
    from: Option<&'a mut (dyn AsyncRead + Send + Unpin)>,
    path: &'a Path,
    sent: &'a mut u64,
}

impl<'a> Content<'a> {
    fn none(path: &'a Path, sent: &'a mut u64) -> Self {
        Self { from: None, path, sent }
    }

    /// Sends the script and the content, each piece within the patience of the connection.
    async fn feed(self, open: (&Connection, &ChannelWriteHalf<Msg>, &Notify), script: Vec<u8>) -> Result<()> {
        let (connection, write, begun) = open;
        let say = async |bytes: Bytes| {
            let said =
                within(connection.patience(), "the node took no bytes", connection.node(), write.data_bytes(bytes));
            said.await?.map_err(|e| {
                Error::unavailable(format!("the connection was lost. node={}", connection.node())).because(e)
            })
        };
        say(script.into()).await?;
        let Some(from) = self.from else { return Ok(()) };
        // Then what is to be removed, if it comes to nothing, is there.
        within(connection.patience(), "the node did not begin with a file", connection.node(), begun.notified())
            .await?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = from.read(&mut buffer).await.map_err(|e| {
                Error::unavailable(format!("the source of a file failed. path={}", self.path.display())).because(e)
            })?;
            if read == 0 {
                return Ok(());
            }
            say(Bytes::copy_from_slice(&buffer[..read])).await?;
            *self.sent += read as u64;
        }
    }
}

/// A session that is closed when it is dropped: its script then reads the end of its input, or cannot write.
struct Open(Option<(ChannelWriteHalf<Msg>, OwnedSemaphorePermit)>);

impl Drop for Open {
    fn drop(&mut self) {
        if let (Some((write, permit)), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                // Where the connection was lost, so is the session.
                let _ = write.close().await;
                drop(permit);
            });
        }
    }
}

/// Runs a script in a session; its output goes to `to`.
async fn converse(
    session: Session,
    mark: &str,
    script: Vec<u8>,
    content: Content<'_>,
    to: &mut (dyn AsyncWrite + Send + Unpin),
) -> Result<Ended> {
    let Session { connection, channel, permit } = session;
    let node = connection.node();
    let (mut read, write) = channel.split();
    let open = Open(Some((write, permit)));
    let Some((write, _)) = &open.0 else { return Err(Error::internal("a session was closed before its use")) };
    let lost = || Error::unavailable(format!("the connection was lost. node={node}"));
    write.exec(false, script::bootstrap()).await.map_err(|e| lost().because(e))?;
    let mut ended = Ended { status: None, said: String::new(), bytes: 0 };
    let mut stderr = Vec::new();
    let mut preface = Preface::default();
    let begun = Notify::new();
    let mut feeding = Box::pin(content.feed((&connection, write, &begun), script));
    let mut fed = false;
    loop {
        let heard = async {
            if fed {
                within(connection.patience(), "the node said nothing more", node, read.wait()).await
            } else {
                Ok(read.wait().await)
            }
        };
        let message = tokio::select! {
            biased;
            message = heard => message?,
            result = &mut feeding, if !fed => {
                fed = true;
                result?;
                // It is the end of what the script reads.
                let _ = write.eof().await;
                continue;
            }
        };
        match message {
            None => return Err(lost()),
            Some(ChannelMsg::Data { data }) => {
                let Some(data) = preface.take(mark, data).map_err(|e| e.at(format_args!("node={node}")))? else {
                    continue;
                };
                begun.notify_one();
                let failed = |e| Error::unavailable(format!("what a file is copied to failed. node={node}")).because(e);
                to.write_all(&data).await.map_err(failed)?;
                ended.bytes += data.len() as u64;
            }
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                stderr.extend_from_slice(&data);
                stderr.drain(..stderr.len().saturating_sub(SAID_MAX));
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                ended.status = Some(exit_status);
                // It reads nothing more.
                fed = true;
            }
            Some(ChannelMsg::ExitSignal { .. }) => fed = true,
            Some(ChannelMsg::Close) => break,
            Some(_) => {}
        }
    }
    to.flush()
        .await
        .map_err(|e| Error::unavailable(format!("what a file is copied to failed. node={node}")).because(e))?;
    if preface.said.is_none() {
        ended.status = None;
    }
    ended.said = String::from_utf8_lossy(stderr.trim_ascii()).into_owned();
    Ok(ended)
}

/// What is beside a file's place until it is whole. Dropped, it is removed.
struct Leftover {
    connection: Arc<Connection>,
    mark: String,
    temporary: String,
    armed: bool,
}

impl Leftover {
    /// Removes it now. What cannot be removed, a later file in the same folder sweeps away.
    async fn discard(mut self) {
        self.armed = false;
        remove(&self.connection, &self.mark, &self.temporary).await;
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.armed, tokio::runtime::Handle::try_current()) {
            let (connection, mark, temporary) =
                (Arc::clone(&self.connection), std::mem::take(&mut self.mark), std::mem::take(&mut self.temporary));
            runtime.spawn(async move { remove(&connection, &mark, &temporary).await });
        }
    }
}

async fn remove(connection: &Arc<Connection>, mark: &str, temporary: &str) {
    let removed = async {
        let session = connection.session(Purpose::File).await?;
        let script = script::discard(mark, temporary)?;
        converse(session, mark, script, Content::none(Path::new(temporary), &mut 0), &mut Vec::new()).await
    };
    if let Err(error) = removed.await {
        tracing::debug!(node = connection.node(), %error, "half a file was left, and is swept later");
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::invalid(format!("a path is not UTF-8. path={}", path.display())))
}

/// An error by what the node's programs said, in the language C.
fn refused(what: &str, connection: &Connection, path: &Path, said: &str) -> Error {
    let message = format!("{what}. node={}, path={}", connection.node(), path.display());
    let callers = [
        "No such file",
        "nonexistent",
        "ermission denied",
        "Is a directory",
        "Not a directory",
        "not permitted",
        "too long",
    ];
    let error = if callers.iter().any(|why| said.contains(why)) {
        Error::invalid(message)
    } else if ["No space left", "quota exceeded"].iter().any(|why| said.contains(why)) {
        Error::unavailable(message).hint("make room on that disk")
    } else {
        Error::unavailable(message)
    };
    if said.is_empty() { error } else { error.because(said.to_owned()) }
}
