//! The continuous mode: what is flushed of the segment that is being written goes into the archive piece by piece.
//!
//! ```text
//!   segment      │▓▓▓▓▓▓▓▓▓▓│▓▓▓▓│▓▓▓▓▓▓▓│░░░░░░░░░░░░░░░│
//!   pieces        +00000000  +…   +…       not written yet
//! ```
//!
//! The pieces of a segment follow each other without a gap, and are deleted once the whole segment is there. A recovery that
//! asks for the segment before gets what there is of it, and so comes as far as the last piece.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Archiver, limited};
use crate::backup::Stored;
use crate::backup::object::blocking;
use crate::backup::wal::{Segment, WalFile, WalStore};
use crate::postgres::lsn::Lsn;
use crate::postgres::timeline::TimelineId;
use crate::{Error, Result};

/// Pieces of so many segments before the present one are looked for, and deleted, when a node begins to lead.
const LOOK_BACK: u64 = 64;
/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How far the WAL of a timeline is in the archive.
#[derive(Debug)]
struct Tail {
    timeline: TimelineId,
    /// Up to where.
    at: Lsn,
    /// The segments of which there may be pieces.
    in_pieces: BTreeSet<Segment>,
}

impl Archiver {
    /// Stores what is flushed, every so often, while the node leads; until it is told to end.
    pub async fn stream(&self, every: Duration, end: CancellationToken) {
        let (mut tail, mut pause) = (None, every);
        loop {
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            match self.advance(&mut tail).await {
                Ok(()) => pause = every,
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "the end of the WAL was not archived");
                    // What of it has landed is looked up.
                    tail = None;
                    pause = (pause * 2).min(PAUSE_MAX).max(every);
                }
            }
        }
    }

    async fn advance(&self, tail: &mut Option<Tail>) -> Result<()> {
        let situation = (self.situation)();
        let (true, Some(history), Some(system)) =
            (situation.standing.leads, &situation.standing.history, situation.system)
        else {
            *tail = None;
            self.state().streamed = None;
            return Ok(());
        };
        let (timeline, flushed) = (history.timeline, situation.flushed);
        let segment_bytes = self.segment_bytes().await?;
        let store = self.store(system).await?;
        let known = tail.take().filter(|tail| tail.timeline == timeline);
        let mut now = match known {
            Some(known) => known,
            None => limited(begin(&store, timeline, flushed, segment_bytes)).await?,
        };
        // Whole segments are archived as such.
        now.at = now.at.max(Lsn(flushed.0 / segment_bytes * segment_bytes));
        if now.at < flushed {
            let segment = Segment::at(timeline, now.at, segment_bytes);
            now.in_pieces.insert(segment);
            let bytes = self.read(segment, now.at, flushed, segment_bytes).await?;
            now.at = limited(put(&store, segment, now.at, bytes, segment_bytes)).await?;
        }
        let present = Segment::at(timeline, now.at, segment_bytes);
        let past: Vec<_> = now.in_pieces.range(..present).copied().collect();
        self.state().streamed = Some(now.at);
        for segment in past {
            if limited(sweep(&store, segment)).await? {
                now.in_pieces.remove(&segment);
            }
        }
        *tail = Some(now);
        Ok(())
    }

    /// Reads a part of a segment that PostgreSQL has flushed.
    async fn read(&self, segment: Segment, from: Lsn, to: Lsn, segment_bytes: u64) -> Result<Vec<u8>> {
        let path = self.data.join("pg_wal").join(segment.to_string());
        blocking(move || {
            let cannot = |e| Error::internal(format!("cannot read WAL. path={}", path.display())).because(e);
            let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let file = std::fs::OpenOptions::new().read(true).custom_flags(no_follow).open(&path).map_err(cannot)?;
            let mut bytes = vec![0; usize::try_from(to.0 - from.0).unwrap_or(0)];
            file.read_exact_at(&mut bytes, from.0 % segment_bytes).map_err(cannot)?;
            Ok(bytes)
        })
        .await
    }
}

/// The name of the piece of a segment that begins at a position.
fn piece(segment: Segment, at: Lsn, segment_bytes: u64) -> String {
    format!("{segment}+{:08X}", at.0 % segment_bytes)
}

/// Finds out what an earlier life, or this one before a failure, has stored.
async fn begin(store: &WalStore, timeline: TimelineId, flushed: Lsn, segment_bytes: u64) -> Result<Tail> {
    let present = Segment::at(timeline, flushed, segment_bytes);
    let first = Segment::numbered(timeline, present.number(segment_bytes).saturating_sub(LOOK_BACK), segment_bytes);
    let names = store.names(timeline, &first.to_string(), None).await?;
    let in_pieces = names.iter().filter_map(|name| of_piece(name)).collect();
    let got = assemble(store, present).await?.map_or(0, |bytes| bytes.len() as u64);
    Ok(Tail { timeline, at: Lsn(present.begin(segment_bytes).0 + got), in_pieces })
}

/// Which segment a piece is of.
fn of_piece(name: &str) -> Option<Segment> {
    match WalFile::parse(name.split_once('+')?.0) {
        Ok(WalFile::Segment(segment)) => Some(segment),
        _ => None,
    }
}

/// Puts a piece, and says up to where the segment is in the archive then.
async fn put(store: &WalStore, segment: Segment, from: Lsn, bytes: Vec<u8>, segment_bytes: u64) -> Result<Lsn> {
    let name = piece(segment, from, segment_bytes);
    let end = Lsn(from.0 + bytes.len() as u64);
    match store.put_bytes(segment.timeline, &name, bytes).await? {
        Stored::Created | Stored::Same => Ok(end),
        Stored::Different => {
            Err(Error::conflict(format!("the archive holds another piece of this segment, and keeps it. file={name}")))
        }
    }
}

/// Deletes the pieces of a segment once it is in the archive as a whole. Says whether it is.
async fn sweep(store: &WalStore, segment: Segment) -> Result<bool> {
    let name = segment.to_string();
    let names = store.names(segment.timeline, &name, Some(&format!("{name}+~"))).await?;
    if !names.contains(&name) {
        return Ok(false);
    }
    for piece in names.iter().filter(|found| of_piece(found) == Some(segment)) {
        store.delete(segment.timeline, piece).await?;
    }
    Ok(true)
}

/// The beginning of a segment, as far as its pieces reach without a gap; `None` where there is none.
pub(in crate::backup::wal) async fn assemble(store: &WalStore, segment: Segment) -> Result<Option<Vec<u8>>> {
    let name = segment.to_string();
    let names = store.names(segment.timeline, &name, Some(&format!("{name}+~"))).await?;
    let mut all: Vec<u8> = Vec::new();
    for (piece, offset) in names.iter().filter_map(|found| Some((found, found.strip_prefix(&name)?.strip_prefix('+')?)))
    {
        if usize::from_str_radix(offset, 16) != Ok(all.len()) {
            break;
        }
        // Deleted since: the whole segment is there by now.
        let Some(bytes) = store.get(segment.timeline, piece).await? else { break };
        all.extend(bytes);
    }
    Ok((!all.is_empty()).then_some(all))
}
