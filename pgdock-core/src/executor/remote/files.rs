//! Files, through the node's `cat`: no other program is needed there.
//!
//! The node cannot tell the end of a file from the end of the connection. So a file arrives beside its place, the
//! node counts it, and only a second word from here, after the count was compared, puts it there.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use super::script;
use crate::{Error, Result};

/// How much is kept of what a script says.
pub(in crate::executor) const SAID_MAX: usize = 4 << 10;
/// The status of a script whose file is in its place, in a folder that cannot be synced.
const NOT_SYNCED: u32 = 4;

/// A node whose shell can be talked to.
#[async_trait]
pub(in crate::executor) trait Shell: Send + Sync + 'static {
    /// The node, for errors.
    fn node(&self) -> &str;

    /// Runs a script; what it says after the mark goes to `to`. Dropped, the script ends.
    async fn converse(
        &self,
        mark: &str,
        script: Vec<u8>,
        content: Content<'_>,
        to: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<Ended>;
}

/// How a script ended.
pub(in crate::executor) struct Ended {
    pub(in crate::executor) status: Option<u32>,
    pub(in crate::executor) said: String,
    pub(in crate::executor) bytes: u64,
}

/// Writes a file.
pub(in crate::executor) async fn put(
    shell: &Arc<dyn Shell>,
    mark: &str,
    from: &mut (dyn AsyncRead + Send + Unpin),
    path: &Path,
    mode: u32,
) -> Result<()> {
    let target = text(path)?;
    let what = "a file cannot be written";
    if path.file_name().is_none() {
        return Err(refused(what, shell.node(), path, "Is a directory"));
    }
    let dir = match path.parent().map(text).transpose()? {
        None | Some("") => ".",
        Some(dir) => dir,
    };
    let temporary = format!("{dir}/{}{mark}", script::TEMPORARY);
    let mut leftover = Leftover { shell: Arc::clone(shell), mark: mark.to_owned(), temporary, armed: true };
    let receive = script::receive(target, mark, dir, &leftover.temporary)?;
    let mut sent = 0;
    let mut counted = Vec::new();
    let content = Content { from: Some(from), path, sent: &mut sent };
    let received = shell.converse(mark, receive, content, &mut counted).await;
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
        return Err(refused(what, shell.node(), path, &why));
    }
    let land = script::land(target, mark, dir, &leftover.temporary, mode)?;
    let landed = shell.converse(mark, land, Content::none(path, &mut 0), &mut Vec::new()).await;
    let landed = landed.map_err(Error::outcome_unknown)?;
    match landed.status {
        Some(0) => {
            leftover.armed = false;
            Ok(())
        }
        Some(NOT_SYNCED) => {
            leftover.armed = false;
            Err(refused("a file was written, and may not outlive a crash", shell.node(), path, &landed.said)
                .outcome_unknown())
        }
        _ => {
            leftover.discard().await;
            Err(refused(what, shell.node(), path, &landed.said))
        }
    }
}

/// Reads a file.
pub(in crate::executor) async fn get(
    shell: &dyn Shell,
    mark: &str,
    path: &Path,
    to: &mut (dyn AsyncWrite + Send + Unpin),
) -> Result<u64> {
    let what = "a file cannot be read";
    let send = script::send(text(path)?, mark)?;
    let ended = shell.converse(mark, send, Content::none(path, &mut 0), to).await;
    let ended = ended.map_err(|e| e.at(format_args!("path={}", path.display())))?;
    match ended.status {
        Some(0) => Ok(ended.bytes),
        _ => Err(refused(what, shell.node(), path, &ended.said)),
    }
}

/// What a script reads after itself.
pub(in crate::executor) struct Content<'a> {
    pub(in crate::executor) from: Option<&'a mut (dyn AsyncRead + Send + Unpin)>,
    pub(in crate::executor) path: &'a Path,
    pub(in crate::executor) sent: &'a mut u64,
}

impl<'a> Content<'a> {
    fn none(path: &'a Path, sent: &'a mut u64) -> Self {
        Self { from: None, path, sent }
    }
}

/// What is beside a file's place until it is whole. Dropped, it is removed.
struct Leftover {
    shell: Arc<dyn Shell>,
    mark: String,
    temporary: String,
    armed: bool,
}

impl Leftover {
    /// Removes it now. What cannot be removed, a later file in the same folder sweeps away.
    async fn discard(mut self) {
        self.armed = false;
        remove(&*self.shell, &self.mark, &self.temporary).await;
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.armed, tokio::runtime::Handle::try_current()) {
            let (shell, mark, temporary) =
                (Arc::clone(&self.shell), std::mem::take(&mut self.mark), std::mem::take(&mut self.temporary));
            runtime.spawn(async move { remove(&*shell, &mark, &temporary).await });
        }
    }
}

async fn remove(shell: &dyn Shell, mark: &str, temporary: &str) {
    let removed = async {
        let script = script::discard(mark, temporary)?;
        shell.converse(mark, script, Content::none(Path::new(temporary), &mut 0), &mut Vec::new()).await
    };
    if let Err(error) = removed.await {
        tracing::debug!(node = shell.node(), %error, "half a file was left, and is swept later");
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| Error::invalid(format!("a path is not UTF-8. path={}", path.display())))
}

/// An error by what the node's programs said, in the language C.
fn refused(what: &str, node: &str, path: &Path, said: &str) -> Error {
    let message = format!("{what}. node={node}, path={}", path.display());
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
