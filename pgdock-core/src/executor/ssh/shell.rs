//! Files over SSH: the scripts of [`remote::files`](crate::executor::remote::files), each in a session of its own.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelWriteHalf};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::connect::{Connection, Purpose, Session, within};
use crate::executor::remote::Preface;
use crate::executor::remote::files::{Content, Ended, SAID_MAX, Shell};
use crate::executor::remote::script;
use crate::{Error, Result};

const CHUNK: usize = 32 << 10;

/// The shell of a connection's node.
pub(super) struct SshShell {
    connection: Arc<Connection>,
    /// What the first script runs in.
    first: Mutex<Option<Session>>,
}

impl SshShell {
    pub(super) fn new(first: Session) -> Self {
        Self { connection: Arc::clone(&first.connection), first: Mutex::new(Some(first)) }
    }
}

#[async_trait]
impl Shell for SshShell {
    fn node(&self) -> &str {
        self.connection.node()
    }

    async fn converse(
        &self,
        mark: &str,
        script: Vec<u8>,
        content: Content<'_>,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<Ended> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let session = match first {
            Some(session) => session,
            None => self.connection.session(Purpose::File).await?,
        };
        converse(session, mark, script, content, to).await
    }
}

/// Sends the script and the content, each piece within the patience of the connection.
async fn feed(
    content: Content<'_>,
    open: (&Connection, &ChannelWriteHalf<Msg>, &Notify),
    script: Vec<u8>,
) -> Result<()> {
    let (connection, write, begun) = open;
    let say = async |bytes: Bytes| {
        let said = within(connection.patience(), "the node took no bytes", connection.node(), write.data_bytes(bytes));
        said.await?
            .map_err(|e| Error::unavailable(format!("the connection was lost. node={}", connection.node())).because(e))
    };
    say(script.into()).await?;
    let Some(from) = content.from else { return Ok(()) };
    // Then what is to be removed, if it comes to nothing, is there.
    within(connection.patience(), "the node did not begin with a file", connection.node(), begun.notified()).await?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer).await.map_err(|e| {
            Error::unavailable(format!("the source of a file failed. path={}", content.path.display())).because(e)
        })?;
        if read == 0 {
            return Ok(());
        }
        say(Bytes::copy_from_slice(&buffer[..read])).await?;
        *content.sent += read as u64;
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
    let mut feeding = Box::pin(feed(content, (&connection, write, &begun), script));
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
