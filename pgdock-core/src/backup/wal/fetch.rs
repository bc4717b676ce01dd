//! [`Fetcher`]: gives WAL from the archive to a recovery, with the next segments ahead of time.
//!
//! What recovery asks for and what it must be told are strict: "there is no such file" ends recovery, so a store that does
//! not answer, and an object that is damaged, never look like it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, join_all};

use super::archiver::stream;
use super::file::{Segment, WalFile};
use super::store::{SEGMENT_BYTES_MAX, WalStore};
use crate::{Error, ErrorKind, Result};

/// How long a store may be away before recovery is stopped.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// How much WAL is fetched ahead, in bytes: it lies in memory, or in the folder that a recovery without an agent uses.
const AHEAD_BYTES: u64 = 48 << 20;
/// The past of a timeline that nobody has begun.
const UNUSED: &[u8] = b"# pgdock: the number of a promotion that came to nothing here\n";
/// The folder beside the segments in which the ones fetched ahead lie.
const SPOOL: &str = "pgdock.fetched";

type Coming = Shared<BoxFuture<'static, Option<Arc<Vec<u8>>>>>;

/// Gives WAL to one recovery.
#[derive(Debug)]
pub struct Fetcher {
    store: WalStore,
    patience: Duration,
    ahead: Mutex<Ahead>,
}

#[derive(Debug, Default)]
struct Ahead {
    segment_bytes: u64,
    coming: BTreeMap<Segment, Coming>,
}

impl Fetcher {
    /// From an archive.
    #[must_use]
    pub fn new(store: WalStore) -> Self {
        Self { store, patience: PATIENCE, ahead: Mutex::default() }
    }

    /// Gives up on a store that does not answer after another time.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// A file of WAL; `None` only where the archive is known not to have it.
    ///
    /// # Errors
    /// `Invalid` when the object is damaged, `Unavailable` when the store did not answer for a minute.
    pub async fn fetch(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let file = WalFile::parse(name)?;
        let WalFile::Segment(segment) = file else { return self.get(file, name).await };
        if let Some(ahead) = self.taken(segment)
            && let Some(content) = ahead.await
        {
            self.go_ahead(segment, content.len() as u64);
            return Ok(Some(Arc::unwrap_or_clone(content)));
        }
        let found = self.get(file, name).await?;
        if let Some(content) = &found {
            self.go_ahead(segment, content.len() as u64);
        }
        Ok(found)
    }

    /// One of those that were fetched ahead. Those before it are not asked for any more.
    fn taken(&self, segment: Segment) -> Option<Coming> {
        let mut ahead = self.ahead();
        let taken = ahead.coming.remove(&segment);
        ahead.coming.retain(|coming, _| *coming > segment);
        taken
    }

    fn go_ahead(&self, segment: Segment, length: u64) {
        if !length.is_power_of_two() {
            return;
        }
        let mut ahead = self.ahead();
        ahead.segment_bytes = length;
        let mut next = segment;
        for _ in 0..AHEAD_BYTES / length {
            next = next.next(length);
            ahead.coming.entry(next).or_insert_with(|| {
                let (store, name) = (self.store.clone(), next.to_string());
                // Whoever needs it and does not find it here asks again, and is told why it is not to be had.
                let fetching = async move { store.get(next.timeline, &name).await.ok().flatten().map(Arc::new) };
                let running = tokio::spawn(fetching);
                async move { running.await.ok().flatten() }.boxed().shared()
            });
        }
    }

    fn ahead(&self) -> std::sync::MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the store until it answers.
    async fn get(&self, file: WalFile, name: &str) -> Result<Option<Vec<u8>>> {
        let asking = async {
            let mut last = None;
            loop {
                match self.get_once(file, name).await {
                    Err(error) if error.is_retryable() => {
                        tracing::warn!(error = %error.chain(), file = name, "WAL could not be fetched");
                        last = Some(error);
                    }
                    answer => return (answer, last),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout(self.patience, asking).await {
            Ok((answer, _)) => answer,
            Err(_) => Err(Error::unavailable(format!(
                "the backup store does not give a file of WAL. file={name}, waited={:?}",
                self.patience
            ))),
        }
    }

    async fn get_once(&self, file: WalFile, name: &str) -> Result<Option<Vec<u8>>> {
        let found = self.store.get(file.timeline(), name).await?;
        match file {
            WalFile::Segment(segment) if found.is_none() => {
                // The last segment of a timeline that a promotion cut off: all that there is of it.
                let partial = self.store.get(file.timeline(), &format!("{name}.partial")).await?;
                if partial.is_some() {
                    return Ok(partial);
                }
                Ok(stream::assemble(&self.store, segment).await?.and_then(whole))
            }
            // PostgreSQL looks for the newest timeline number by number. Not each number that was given to a promotion was used.
            WalFile::History(timeline) if found.is_none() && self.store.has_timeline_after(timeline).await? => {
                Ok(Some(UNUSED.to_vec()))
            }
            _ => Ok(found),
        }
    }
}

/// The beginning of a segment, filled up to its size, which its first page tells. WAL ends where nothing was written.
fn whole(mut beginning: Vec<u8>) -> Option<Vec<u8>> {
    let size = usize::try_from(u32::from_ne_bytes(*beginning.get(32..)?.first_chunk()?)).ok()?;
    if !size.is_power_of_two() || size < beginning.len() || size > SEGMENT_BYTES_MAX {
        return None;
    }
    beginning.resize(size, 0);
    Some(beginning)
}

/// Fetches a file of WAL to where a recovery wants it, without a process that stays: the next segments are put into a
/// folder beside it, where the next call finds them. Returns whether there is such a file.
///
/// # Errors
/// As [`Fetcher::fetch`], and `Internal` when a file cannot be written.
pub async fn fetch_to(store: &WalStore, name: &str, to: &Path) -> Result<bool> {
    let file = WalFile::parse(name)?;
    let folder = to.parent().unwrap_or(Path::new("")).join(SPOOL);
    let WalFile::Segment(segment) = file else {
        return match Fetcher::new(store.clone()).fetch(name).await? {
            Some(content) => write(to, &content).map(|()| true),
            None => Ok(false),
        };
    };
    sweep(&folder, name);
    if std::fs::rename(folder.join(name), to).is_ok() {
        return Ok(true);
    }
    // Without going ahead: what it fetches in the background would end with this process.
    let found = Fetcher::new(store.clone()).get(file, name).await?;
    let Some(content) = found else {
        // As a rule recovery has come to its end.
        let _ = std::fs::remove_dir_all(&folder);
        return Ok(false);
    };
    let length = content.len() as u64;
    write(to, &content)?;
    drop(content);
    if length.is_power_of_two() && std::fs::create_dir_all(&folder).is_ok() {
        let next = std::iter::successors(Some(segment.next(length)), |s| Some(s.next(length)));
        let coming = next.take(usize::try_from(AHEAD_BYTES / length).unwrap_or(0)).map(|segment| {
            let folder = &folder;
            async move {
                let name = segment.to_string();
                // What fails here is asked for again, and then its failure is told.
                if let Ok(Some(content)) = store.get(segment.timeline, &name).await {
                    let staged = folder.join(format!("{name}.new"));
                    let _ = write(&staged, &content)
                        .and_then(|()| std::fs::rename(&staged, folder.join(&name)).map_err(|e| failed(&staged, e)));
                }
            }
        });
        join_all(coming).await;
    }
    Ok(true)
}

/// Removes what was fetched ahead and is not asked for any more.
fn sweep(folder: &Path, name: &str) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().as_ref() < name {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn write(to: &Path, content: &[u8]) -> Result<()> {
    let write = || {
        let mut file = std::fs::File::create(to)?;
        std::io::Write::write_all(&mut file, content)?;
        file.sync_all()
    };
    write().map_err(|e| failed(to, e))
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("cannot write WAL. path={}", path.display())).because(error)
}

/// The identifier of the database system of a data directory: the first number of its control file.
///
/// # Errors
/// `Invalid` when it cannot be read: the present folder is then no data directory.
pub fn system_of(data: &Path) -> Result<u64> {
    let path: PathBuf = data.join("global/pg_control");
    let read = || {
        let mut first = [0; 8];
        std::io::Read::read_exact(&mut std::fs::File::open(&path)?, &mut first)?;
        Ok(u64::from_ne_bytes(first))
    };
    read().map_err(|e: std::io::Error| {
        Error::invalid(format!("there is no control file. path={}", path.display()))
            .because(e)
            .hint("PostgreSQL runs this in its data directory; elsewhere name the database system with --system")
    })
}

#[cfg(test)]
mod tests;
