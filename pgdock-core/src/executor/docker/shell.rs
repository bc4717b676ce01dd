//! Files in a container: the scripts of [`remote::files`](crate::executor::remote::files), each a process of its own.
//!
//! The engine's own way for files, an archive that it unpacks, neither syncs nor replaces a file in one step.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::engine::Engine;
use super::run::{Parts, Running};
use crate::executor::command::{Exit, Stream};
use crate::executor::remote::files::{Content, Ended, SAID_MAX, Shell};
use crate::executor::remote::introduced;
use crate::{Error, Result};

const CHUNK: usize = 64 << 10;
/// How long a file may stand still.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shell of a container.
pub(super) struct DockerShell {
    pub(super) engine: Engine,
    pub(super) container: String,
    pub(super) node: String,
}

#[async_trait]
impl Shell for DockerShell {
    fn node(&self) -> &str {
        &self.node
    }

    async fn converse(
        &self,
        mark: &str,
        script: Vec<u8>,
        content: Content<'_>,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<Ended> {
        let node = self.node.as_str();
        let lost = |e: std::io::Error| Error::unavailable(format!("the engine was lost. node={node}")).because(e);
        let failed = |e| Error::unavailable(format!("what a file is copied to failed. node={node}")).because(e);
        let mut running = Running::start(&self.engine, &self.container, mark.to_owned()).await?;
        let Parts { handle, input, output, mark, stdout, process, ended: done, .. } = running.parts()?;
        let begun = Notify::new();
        let mut ended = Ended { status: None, said: String::new(), bytes: 0 };
        let mut stderr = Vec::new();
        let mut feeding = Box::pin(feed(content, input, &begun, script, node));
        let mut fed = false;
        loop {
            let next = async {
                if fed {
                    within("the node said nothing more", node, output.next()).await
                } else {
                    Ok(output.next().await)
                }
            };
            let piece = tokio::select! {
                biased;
                piece = next => piece?.map_err(lost)?,
                result = &mut feeding, if !fed => {
                    fed = true;
                    result?;
                    continue;
                }
            };
            match piece {
                None => break,
                Some((Stream::Stdout, data)) => {
                    let data = stdout.take(mark, data).map_err(|e| e.at(format_args!("node={node}")))?;
                    if process.is_none() {
                        *process = stdout.said.as_deref().and_then(introduced);
                    }
                    let Some(data) = data else { continue };
                    begun.notify_one();
                    to.write_all(&data).await.map_err(failed)?;
                    ended.bytes += data.len() as u64;
                }
                Some((Stream::Stderr, data)) => {
                    stderr.extend_from_slice(&data);
                    stderr.drain(..stderr.len().saturating_sub(SAID_MAX));
                }
            }
        }
        to.flush().await.map_err(failed)?;
        if let Exit::Code(code) = within("the node did not end with a file", node, handle.ended()).await?? {
            ended.status = u32::try_from(code).ok();
        }
        *done = true;
        if stdout.said.is_none() {
            ended.status = None;
        }
        ended.said = String::from_utf8_lossy(stderr.trim_ascii()).into_owned();
        Ok(ended)
    }
}

async fn within<T>(what: &str, node: &str, step: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(PATIENCE, step)
        .await
        .map_err(|_| Error::unavailable(format!("{what} in time. node={node}, seconds={}", PATIENCE.as_secs())))
}

/// Sends the script and the content, each piece within bounds, and then the end.
async fn feed(
    content: Content<'_>,
    to: &mut (impl AsyncWrite + Unpin),
    begun: &Notify,
    script: Vec<u8>,
    node: &str,
) -> Result<()> {
    let lost = |e: std::io::Error| Error::unavailable(format!("the engine was lost. node={node}")).because(e);
    let mut say =
        async |bytes: Bytes| within("the node took no bytes", node, to.write_all(&bytes)).await?.map_err(lost);
    say(script.into()).await?;
    if let Some(from) = content.from {
        // Then what is to be removed, if it comes to nothing, is there.
        within("the node did not begin with a file", node, begun.notified()).await?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = from.read(&mut buffer).await.map_err(|e| {
                Error::unavailable(format!("the source of a file failed. path={}", content.path.display())).because(e)
            })?;
            if read == 0 {
                break;
            }
            say(Bytes::copy_from_slice(&buffer[..read])).await?;
            *content.sent += read as u64;
        }
    }
    // It is the end of what the script reads; a script that has ended hears nothing.
    let _ = to.shutdown().await;
    Ok(())
}
