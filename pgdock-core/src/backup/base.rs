//! Taking a base backup of the local PostgreSQL, file by file and several at a time.
//!
//! ```text
//! pg_backup_start ─▶ walk ──pieces──▶ pack (threads) ──packs──▶ put (tasks) ──lines──▶ index
//!                                        │ all read                                       │
//!                                        └──▶ pg_control ──▶ put                          ▼
//!                         manifest ◀── all of its WAL is archived ◀── pg_backup_stop ◀─── done
//! ```
//!
//! Each arrow is a short queue, so that memory is bounded by the number of threads, whatever the size of the database and the
//! number of its files. Until the manifest is there, there is no backup: whatever fails before leaves objects that nobody lists.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::frame::Codec;
use super::index::{IndexWriter, Line};
use super::label::Label;
use super::layout::Name;
use super::manifest::{FORMAT, Manifest, Pages, Tablespace};
use super::object::{self, Stored, blocking};
use crate::backup_sink::{BackupSink, Key};
use crate::clock::Clock;
use crate::postgres::Instance;
use crate::{Error, Lsn, NodeName, Result, TimelineId};

mod pack;
mod page;
mod session;
pub(crate) mod walk;

use pack::{PIECE, Packed, Packing, Piece};
use page::Seen;
use session::{BackupSession, End, Facts};
use walk::{CONTROL, Found};

/// How many damaged pages are named.
const EXAMPLES: usize = 20;
/// How many pieces wait for a thread; each holds a file open.
const QUEUE: usize = 32;

/// The PostgreSQL whose files are copied.
#[derive(Clone, Debug)]
pub struct Source {
    /// The folder of its Unix socket.
    pub socket_dir: PathBuf,
    /// Its port.
    pub port: u16,
    /// Its data directory.
    pub data: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// The node.
    pub node: NodeName,
}

impl Source {
    /// That of a node.
    #[must_use]
    pub fn of(instance: &Instance) -> Self {
        let (layout, config) = (instance.layout(), instance.config());
        Self {
            socket_dir: layout.run.clone(),
            port: config.port,
            data: layout.data.clone(),
            cluster: config.cluster.clone(),
            node: config.node.clone(),
        }
    }
}

/// What follows when a page has a wrong checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadPage {
    /// The backup fails: an older one, with the page as it was, is worth more.
    #[default]
    Fail,
    /// The page is copied as it is, and the backup tells of it.
    Warn,
}

/// How a backup is taken.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub label: Label,
    /// How many threads read and pack.
    pub processes: usize,
    /// What follows when a page has a wrong checksum.
    pub checksums: OnBadPage,
}

/// How far a backup or a restore is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How many bytes of content there are, about.
    pub total: u64,
    /// How many of them are done.
    pub done: u64,
    /// How many bytes were stored, or fetched.
    pub stored: u64,
    /// How many files there are so far.
    pub files: u64,
    /// All content is copied: what is left is waiting, for WAL to be archived or for disks.
    pub settling: bool,
}

/// The WAL that a backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeededWal {
    /// The database system.
    pub system_identifier: u64,
    /// The timeline that it lies on.
    pub timeline: TimelineId,
    /// Where recovery begins.
    pub start: Lsn,
    /// Up to where it is needed.
    pub stop: Lsn,
    /// The size of a segment.
    pub segment_bytes: u64,
}

/// Who knows when WAL is archived.
#[async_trait]
pub trait WalReady: std::fmt::Debug + Send + Sync {
    /// Returns once all segments of this WAL are in the archive, also the last one, which the primary may have to be asked to end.
    ///
    /// # Errors
    /// Why they are not there after a bounded time.
    async fn wal_ready(&self, needed: &NeededWal) -> Result<()>;
}

/// What says that a backup was begun. It is for people and for who sweeps what failed backups left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The node that makes it.
    pub node: NodeName,
    /// When it began.
    pub began: Timestamp,
    /// Where recovery of it would begin.
    pub start: Lsn,
}

/// Takes a base backup. Nothing is listed before it returns.
///
/// # Errors
/// Those of PostgreSQL and of the sink; `Invalid` when pages are damaged; `Unavailable` when the timeline changed meanwhile.
pub async fn take(
    source: &Source,
    sink: Arc<dyn BackupSink>,
    codec: &Codec,
    options: &Options,
    wal: &dyn WalReady,
    clock: &dyn Clock,
    progress: &watch::Sender<Progress>,
) -> Result<Manifest> {
    let began = clock.wall();
    let (session, facts) = BackupSession::open(&source.socket_dir, source.port).await?;
    let start = session.start(options.label.as_str()).await?;
    let begun = Begun { node: source.node.clone(), began, start };
    let begun = serde_json::to_vec(&begun).map_err(|e| Error::internal("cannot write what was begun").because(e))?;
    put(&*sink, codec, &Name::Begun(options.label.clone()).key()?, &begun).await?;

    let copied = copy(source, &facts, start, sink.clone(), codec, options, progress).await?;
    progress.send_modify(|p| p.settling = true);
    let End { stop, timeline, next_xid, backup_label } = session.stop().await?;
    drop(session);
    let pages = copied.bad.verdict(stop, facts.checksums)?;
    let system_identifier = facts.system_identifier;
    let needed = NeededWal { system_identifier, timeline, start, stop, segment_bytes: facts.wal_segment_bytes };
    wal.wal_ready(&needed).await?;

    let manifest = Manifest {
        format: FORMAT,
        label: options.label.clone(),
        cluster: source.cluster.clone(),
        node: source.node.clone(),
        from_standby: facts.standby,
        system_identifier,
        server_version: facts.server_version,
        began,
        ended: clock.wall(),
        timeline,
        start,
        stop,
        wal_segment_bytes: facts.wal_segment_bytes,
        next_xid,
        settings: facts.settings,
        tablespaces: copied.tablespaces,
        backup_label,
        pages,
        files: copied.files,
        plain: copied.plain,
        stored: copied.stored,
        packs: copied.packs,
        index: copied.index,
    };
    put(&*sink, codec, &Name::Manifest(options.label.clone()).key()?, &manifest.to_bytes()?).await?;
    Ok(manifest)
}

async fn put(sink: &dyn BackupSink, codec: &Codec, key: &Key, content: &[u8]) -> Result<()> {
    let encoded = object::encode(codec, key, content)?;
    match object::store_patiently(sink, codec, key, &encoded).await? {
        Stored::Created | Stored::Same => Ok(()),
        Stored::Different => Err(object::taken(key)),
    }
}

struct Copied {
    tablespaces: Vec<Tablespace>,
    bad: Arc<BadPages>,
    files: u64,
    plain: u64,
    stored: u64,
    packs: u32,
    index: Vec<super::Digest>,
}

/// Tells the threads of a backup that is given up to end.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn copy(
    source: &Source,
    facts: &Facts,
    start: Lsn,
    sink: Arc<dyn BackupSink>,
    codec: &Codec,
    options: &Options,
    progress: &watch::Sender<Progress>,
) -> Result<Copied> {
    let (data, major) = (source.data.clone(), facts.server_version / 10_000);
    let (tablespaces, total) = blocking({
        let data = data.clone();
        move || Ok((walk::tablespaces(&data)?, total(&data, major)?))
    })
    .await?;
    progress.send_replace(Progress { total, ..Progress::default() });
    let over = Arc::new(AtomicBool::new(false));
    let _give_up = GiveUp(over.clone());
    let meter = Arc::new(Meter { progress: progress.clone(), plain: AtomicU64::new(0) });
    let bad = Arc::new(BadPages::new(options.checksums));
    let check = facts.checksums && facts.block_bytes as usize == page::PAGE;

    let processes = options.processes.max(1);
    let (to_pack, pieces) = std::sync::mpsc::sync_channel(QUEUE);
    let (to_put, packs) = mpsc::channel(1);
    let (to_index, lines) = mpsc::channel(256);
    let packing = Arc::new(Packing {
        label: options.label.clone(),
        codec: codec.clone(),
        pieces: Mutex::new(pieces),
        packs: to_put.clone(),
        next: AtomicU32::new(0),
        over: over.clone(),
        check_from: check.then_some(start),
        segment_blocks: facts.segment_blocks,
        bad: bad.clone(),
        meter: meter.clone(),
    });
    let mut work = JoinSet::new();
    for _ in 0..processes {
        let packing = packing.clone();
        work.spawn_blocking(move || packing.run().map(|()| Done::Read));
    }
    let packs = Arc::new(tokio::sync::Mutex::new(packs));
    for _ in 0..=processes {
        let (packs, sink, codec) = (packs.clone(), sink.clone(), codec.clone());
        let (to_index, meter) = (to_index.clone(), meter.clone());
        work.spawn(async move { upload(&packs, &*sink, &codec, &to_index, &meter).await });
    }
    drop(packs);
    let walker_lines = to_index.clone();
    work.spawn_blocking(move || {
        let files = hand_out(&data, major, &to_pack, &walker_lines)?;
        Ok(Done::Walked { files })
    });
    let index = IndexWriter::new(sink, codec.clone(), options.label.clone());
    work.spawn(write_index(index, lines));

    // The queues end when nobody holds their beginnings any more: who reads, and this one for the control file.
    let mut last = Some((packing, to_put, to_index));
    let mut reading = processes + 1;
    let (mut files, mut stored, mut packs, mut index) = (0, 0, 0, Vec::new());
    while let Some(ended) = work.join_next().await {
        match ended.unwrap_or_else(|died| Err(Error::internal("a task of the backup died").because(died))) {
            Ok(Done::Read) => reading -= 1,
            Ok(Done::Walked { files: found }) => {
                reading -= 1;
                // And the control file.
                files = found + 1;
            }
            Ok(Done::Uploaded { bytes, count }) => {
                stored += bytes;
                packs += count;
            }
            Ok(Done::Index(digests)) => index = digests,
            Ok(Done::Control) => {}
            Err(error) => {
                over.store(true, Ordering::Relaxed);
                // What the others say now is only that the queues are closed, unless they met the cause.
                return Err(first_cause(error, &mut work).await);
            }
        }
        // A backup of a standby is consistent where the control file says: so it is read after every page.
        if reading == 0
            && let Some((packing, to_put, to_index)) = last.take()
        {
            let path = source.data.join(CONTROL);
            work.spawn_blocking(move || {
                let (line, packed) = packing.pack_control(&path)?;
                to_index.blocking_send(line).map_err(|_| given_up())?;
                to_put.blocking_send(packed).map_err(|_| given_up())?;
                Ok(Done::Control)
            });
        }
    }
    Ok(Copied { tablespaces, bad, files, plain: meter.plain.load(Ordering::Relaxed), stored, packs, index })
}

/// Of several errors the one that the others follow from: closed queues are only what somebody else's failure looks like.
async fn first_cause(first: Error, work: &mut JoinSet<Result<Done>>) -> Error {
    let follows = |error: &Error| error.to_string().contains("given up");
    if !follows(&first) {
        return first;
    }
    while let Some(ended) = work.join_next().await {
        if let Ok(Err(error)) = ended
            && !follows(&error)
        {
            return error;
        }
    }
    first
}

enum Done {
    Walked { files: u64 },
    Uploaded { bytes: u64, count: u32 },
    Index(Vec<super::Digest>),
    Read,
    Control,
}

fn total(data: &std::path::Path, major: u32) -> Result<u64> {
    let mut total = 0;
    walk::walk(data, major, &mut |found| {
        if let Found::File { size, .. } = found {
            total += size;
        }
        Ok(())
    })?;
    Ok(total)
}

/// Hands all files but the control file out in pieces, and tells of them in the index. Answers how many there are.
fn hand_out(
    data: &std::path::Path,
    major: u32,
    to_pack: &std::sync::mpsc::SyncSender<Piece>,
    to_index: &mpsc::Sender<Line>,
) -> Result<u64> {
    let mut files = 0;
    let mut hand = |path: String, full: &std::path::Path, relation| {
        let file = match File::open(full) {
            Ok(file) => file,
            // Of a table that was dropped, or a file that only lived for a moment.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::unavailable(format!("a file cannot be read. path={path}")).because(e)),
        };
        let metadata = file
            .metadata()
            .map_err(|e| Error::unavailable(format!("a file cannot be read. path={path}")).because(e))?;
        let (size, mode) = (metadata.len(), metadata.permissions().mode() & 0o777);
        files += 1;
        let line = Line::File { path: path.clone(), size, mode, mtime: metadata.mtime() };
        to_index.blocking_send(line).map_err(|_| given_up())?;
        let file = Arc::new(file);
        let mut at = 0;
        while at < size {
            let length = PIECE.min(size - at);
            let piece = Piece { path: path.clone(), file: file.clone(), at, length, relation };
            to_pack.send(piece).map_err(|_| given_up())?;
            at += length;
        }
        Ok(())
    };
    walk::walk(data, major, &mut |found| match found {
        Found::Folder { path, mode } => to_index.blocking_send(Line::Folder { path, mode }).map_err(|_| given_up()),
        Found::File { path, full, relation, .. } => hand(path, &full, relation),
    })?;
    Ok(files)
}

fn given_up() -> Error {
    Error::unavailable("the backup was given up")
}

async fn upload(
    packs: &tokio::sync::Mutex<mpsc::Receiver<Packed>>,
    sink: &dyn BackupSink,
    codec: &Codec,
    to_index: &mpsc::Sender<Line>,
    meter: &Meter,
) -> Result<Done> {
    let (mut bytes, mut count) = (0, 0);
    loop {
        let next = packs.lock().await.recv().await;
        let Some(Packed { key, encoded, line }) = next else { return Ok(Done::Uploaded { bytes, count }) };
        match object::store_patiently(sink, codec, &key, &encoded).await? {
            Stored::Created | Stored::Same => {}
            Stored::Different => return Err(object::taken(&key)),
        }
        bytes += line.stored;
        count += 1;
        meter.stored(line.stored);
        to_index.send(Line::Pack(line)).await.map_err(|_| given_up())?;
    }
}

async fn write_index(mut index: IndexWriter, mut lines: mpsc::Receiver<Line>) -> Result<Done> {
    while let Some(line) = lines.recv().await {
        index.push(&line).await?;
    }
    Ok(Done::Index(index.finish().await?))
}

/// Counts what was done.
#[derive(Debug)]
struct Meter {
    progress: watch::Sender<Progress>,
    plain: AtomicU64,
}

impl Meter {
    fn read(&self, bytes: u64) {
        self.plain.fetch_add(bytes, Ordering::Relaxed);
        self.progress.send_modify(|p| p.done += bytes);
    }

    fn stored(&self, bytes: u64) {
        self.progress.send_modify(|p| p.stored += bytes);
    }
}

/// Pages with wrong checksums.
#[derive(Debug)]
struct BadPages {
    then: OnBadPage,
    checked: AtomicU64,
    found: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    wrong: u64,
    examples: Vec<String>,
    /// Pages that recovery is to write anew: the one that claims to be changed last.
    torn: Option<(Lsn, String)>,
}

impl BadPages {
    fn new(then: OnBadPage) -> Self {
        Self { then, checked: AtomicU64::new(0), found: Mutex::default() }
    }

    fn checked(&self, pages: u64) {
        self.checked.fetch_add(pages, Ordering::Relaxed);
    }

    fn saw(&self, seen: Seen, path: &str, block: u32) -> Result<()> {
        if seen == Seen::Fine {
            return Ok(());
        }
        let page = format!("{path} block {block}");
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Seen::Fine => {}
            Seen::Torn(changed) => {
                if found.torn.as_ref().is_none_or(|(last, _)| changed > *last) {
                    found.torn = Some((changed, page));
                }
            }
            Seen::Wrong if self.then == OnBadPage::Fail => return Err(damaged(&page)),
            Seen::Wrong => {
                found.wrong += 1;
                if found.examples.len() < EXAMPLES {
                    found.examples.push(page);
                }
            }
        }
        Ok(())
    }

    /// With the end of the backup: a page cannot have been changed behind it.
    fn verdict(&self, stop: Lsn, checksums: bool) -> Result<Pages> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, page)) = found.torn.take_if(|(changed, _)| *changed > stop) {
            if self.then == OnBadPage::Fail {
                return Err(damaged(&page));
            }
            found.wrong += 1;
            found.examples.push(page);
        }
        let checked = self.checked.load(Ordering::Relaxed);
        Ok(Pages { checksums, checked, damaged: found.wrong, examples: std::mem::take(&mut found.examples) })
    }
}

fn damaged(page: &str) -> Error {
    Error::invalid(format!("a page of the data directory is damaged: its checksum is wrong. page={page}"))
        .hint("the disk or the memory of this node is at fault: take the backup from another node, and clone this one anew")
        .hint("with `checksums = \"warn\"` the page is copied as it is")
}
