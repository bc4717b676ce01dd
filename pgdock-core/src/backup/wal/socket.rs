//! The Unix socket between PostgreSQL's `archive_command` or `restore_command` and who knows the archive.
//!
//! ```text
//! push NAME     ──▶  ok | not-yet WHY | stopping
//! fetch NAME    ──▶  ok LENGTH, and the content | missing | failed WHY
//! ```
//!
//! One request a connection, one line each way. The socket lies in a folder that only PostgreSQL's user can enter. It gives
//! away nothing that this user could not read anyway, and takes nothing but names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::archiver::{Answer, Archiver};
use super::fetch::Fetcher;
use crate::postgres::os_user::OsUser;
use crate::{Error, Result};

/// The longest request, in bytes.
const LINE_MAX: u64 = 200;
/// How long a client may take to ask.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// How many are served at the same time.
const CLIENTS_MAX: usize = 32;

/// What a socket serves. Either may be missing.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Takes WAL.
    pub archiver: Option<Arc<Archiver>>,
    /// Gives WAL.
    pub fetcher: Option<Arc<Fetcher>>,
}

/// Makes the socket, for one user to connect to. One that is left from before is replaced.
///
/// # Errors
/// `Internal` when it cannot be made.
pub fn listen(path: &Path, user: &OsUser) -> Result<UnixListener> {
    let make = || {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        user.take_path(path)?;
        Ok(listener)
    };
    make().map_err(|e| Error::internal(format!("cannot make the socket. path={}", path.display())).because(e))
}

/// Serves until it is told to end.
pub async fn serve(listener: UnixListener, service: Service, end: CancellationToken) {
    let places = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let stream = tokio::select! {
            () = end.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for WAL");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (service, end) = (service.clone(), end.clone());
        tokio::spawn(async move {
            let served = tokio::select! {
                () = end.cancelled() => return,
                served = answer(stream, &service) => served,
            };
            drop(place);
            if let Err(error) = served {
                tracing::debug!(%error, "a request for WAL broke off");
            }
        });
    }
}

async fn answer(stream: UnixStream, service: &Service) -> std::io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut line = String::new();
    let mut reading = BufReader::new(reading.take(LINE_MAX));
    match tokio::time::timeout(ASK_LIMIT, reading.read_line(&mut line)).await {
        Ok(read) => read?,
        Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
    };
    let (head, content) = match (line.trim_end().split_once(' '), service) {
        (Some(("push", name)), Service { archiver: Some(archiver), .. }) => match archiver.push(name).await {
            Answer::Done => ("ok".to_owned(), None),
            Answer::NotYet(why) => (format!("not-yet {}", one_line(&why)), None),
            Answer::Stopping => ("stopping".to_owned(), None),
        },
        (Some(("fetch", name)), Service { fetcher: Some(fetcher), .. }) => match fetcher.fetch(name).await {
            Ok(Some(content)) => (format!("ok {}", content.len()), Some(content)),
            Ok(None) => ("missing".to_owned(), None),
            Err(error) => (format!("failed {}", one_line(&error.chain())), None),
        },
        _ => ("failed this is not served here".to_owned(), None),
    };
    writing.write_all(format!("{head}\n").as_bytes()).await?;
    if let Some(content) = content {
        writing.write_all(&content).await?;
    }
    writing.shutdown().await
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
