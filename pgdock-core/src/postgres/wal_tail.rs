//! The end of a dead server's WAL, read from its files, and put into those of a standby.
//!
//! ```text
//!   segment file   ┌──────── page ────────┬──────── page ────────┬──────── page ────────┐
//!                  │ header: own position │ header: own position │ header: another one, │
//!                  │ and records          │ and records      ▪ end   or none: recycled, │
//!                  └──────────────────────┴──────────────────────┴── never used ────────┘
//! ```
//!
//! Each page says at which position it lies. The first one that says something else was never written in this
//! life of the file, so that the WAL ends before it. Where exactly the last record ends is PostgreSQL's to find:
//! it checks each record when it replays it.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::lsn::Lsn;
use super::os_user::OsUser;
use super::timeline::TimelineId;
use crate::{Error, Result};

/// The length of a short page header (`SizeOfXLogShortPHD`).
const HEADER_BYTES: usize = 24;
/// The length of a long one, at the beginning of a segment (`SizeOfXLogLongPHD`).
const LONG_HEADER_BYTES: usize = 40;

/// What stands at the beginning of a page of WAL (`XLogPageHeaderData`, in the machine's own byte order).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PageHeader {
    /// Which version of PostgreSQL wrote it.
    magic: u16,
    /// The timeline that it was begun on.
    timeline: u32,
    /// Where it lies.
    at: Lsn,
}

impl PageHeader {
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let four = |at: usize| <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap_or_default();
        Self {
            magic: u16::from_ne_bytes([bytes[0], bytes[1]]),
            timeline: u32::from_ne_bytes(four(4)),
            at: Lsn(u64::from_ne_bytes(<[u8; 8]>::try_from(&bytes[8..16]).unwrap_or_default())),
        }
    }
}

/// WAL from a page's beginning on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalTail {
    /// Where it begins.
    pub start: Lsn,
    /// Whole pages.
    pub bytes: Vec<u8>,
}

impl WalTail {
    /// Behind its last page.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn(self.start.0 + self.bytes.len() as u64)
    }
}

/// How large segments of a data directory are.
///
/// # Errors
/// `Internal` when its folder of WAL cannot be read.
pub fn segment_bytes(data: &Path) -> Result<u64> {
    super::wal_aside::segments(data, None).map(|(_, size)| size)
}

/// The name of a segment's file.
fn segment_name(timeline: TimelineId, number: u64, segment_bytes: u64) -> String {
    let per_id = (1u64 << 32) / segment_bytes;
    format!("{:08X}{:08X}{:08X}", timeline.0, number / per_id, number % per_id)
}

/// Reads the WAL of a server of which no process is left, from the page on that holds `from`, up to its end.
///
/// What is read is on this machine's disk for certain before it is returned: whoever takes it may be ahead of
/// what a crash of this machine would otherwise leave here.
///
/// # Errors
/// `NotReady` when there is no WAL at that position on that timeline, `Conflict` when there is more of it
/// than `limit` bytes, `Internal` when the files cannot be read.
pub fn read(data: &Path, timeline: TimelineId, from: Lsn, segment_bytes: u64, limit: usize) -> Result<WalTail> {
    let wal = data.join("pg_wal");
    let path = |number| wal.join(segment_name(timeline, number, segment_bytes));
    // The segment behind the very end of another need not be there yet.
    let before = path(from.0.saturating_sub(1) / segment_bytes);
    let page =
        page_bytes(&path(from.0 / segment_bytes), segment_bytes).or_else(|_| page_bytes(&before, segment_bytes))?;
    let start = Lsn(from.0 - from.0 % page as u64);
    let mut tail = WalTail { start, bytes: Vec::new() };
    let mut magic = None;
    let mut at = start;
    'segments: loop {
        let path = path(at.0 / segment_bytes);
        let cannot = |e| Error::internal(format!("cannot read WAL. path={}", path.display())).because(e);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
            Err(e) => return Err(cannot(e)),
        };
        // The server died, perhaps between writing and syncing.
        file.sync_all().map_err(cannot)?;
        file.seek(SeekFrom::Start(at.0 % segment_bytes)).map_err(cannot)?;
        let mut buffer = vec![0; page];
        loop {
            match std::io::Read::read_exact(&mut file, &mut buffer) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => break 'segments,
                Err(e) => return Err(cannot(e)),
            }
            let header = PageHeader::parse(buffer[..HEADER_BYTES].try_into().unwrap_or(&[0; HEADER_BYTES]));
            let known = *magic.get_or_insert(header.magic);
            if header.at != at || header.magic != known || header.timeline > timeline.0 {
                break 'segments;
            }
            if tail.bytes.len() + page > limit {
                return Err(Error::conflict(format!(
                    "there is more WAL than is asked for. from={from}, limit={limit}"
                )));
            }
            tail.bytes.extend_from_slice(&buffer);
            at = tail.end();
            if at.0.is_multiple_of(segment_bytes) {
                break;
            }
        }
    }
    File::open(&wal)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| Error::internal(format!("cannot sync WAL. path={}", wal.display())).because(e))?;
    if tail.bytes.is_empty() && !from.0.is_multiple_of(page as u64) {
        return Err(Error::not_ready(format!("there is no WAL at this position. timeline={timeline}, from={from}")));
    }
    Ok(tail)
}

/// The size of a page, which a segment tells in its first header.
fn page_bytes(segment: &Path, segment_bytes: u64) -> Result<usize> {
    let mut header = [0; LONG_HEADER_BYTES];
    File::open(segment).and_then(|file| file.read_exact_at(&mut header, 0)).map_err(|e| {
        Error::not_ready(format!("there is no WAL at this position. path={}", segment.display())).because(e)
    })?;
    let four = |at: usize| u32::from_ne_bytes(<[u8; 4]>::try_from(&header[at..at + 4]).unwrap_or_default());
    let (segment_says, page) = (u64::from(four(32)), four(36));
    if segment_says != segment_bytes || !page.is_power_of_two() || !(1024..=65536).contains(&page) {
        return Err(Error::internal(format!(
            "a segment of WAL has an odd header. path={}, segment_bytes={segment_says}, page_bytes={page}",
            segment.display()
        )));
    }
    Ok(page as usize)
}

/// Adds WAL behind what a standby's files hold up to `flushed`, durably. What both have must be the same. A
/// standby that waits for WAL looks into its files now and then, as into those that a receiver writes; no
/// receiver may run.
///
/// # Errors
/// `Conflict` when what both have differs: nothing was written. `Internal` when a file cannot be written.
pub fn add(
    data: &Path,
    timeline: TimelineId,
    flushed: Lsn,
    tail: &WalTail,
    segment_bytes: u64,
    owner: &OsUser,
) -> Result<()> {
    let wal = data.join("pg_wal");
    let path = |number| wal.join(segment_name(timeline, number, segment_bytes));
    if tail.start > flushed {
        return Err(Error::conflict(format!(
            "the WAL that was served begins too late. start={}, flushed={flushed}",
            tail.start
        )));
    }
    if tail.end() <= flushed {
        return Ok(());
    }
    // What both have, within one page, and so within one segment.
    let common = usize::try_from(flushed.0 - tail.start.0).unwrap_or(usize::MAX);
    if common > 0 {
        let segment = path(tail.start.0 / segment_bytes);
        let mut mine = vec![0; common];
        File::open(&segment)
            .and_then(|file| file.read_exact_at(&mut mine, tail.start.0 % segment_bytes))
            .map_err(|e| Error::internal(format!("cannot read WAL. path={}", segment.display())).because(e))?;
        if mine != tail.bytes[..common] {
            return Err(Error::conflict(format!(
                "the WAL that was served differs from this node's. from={}, to={flushed}",
                tail.start
            )));
        }
    }
    let mut at = flushed;
    while at < tail.end() {
        let number = at.0 / segment_bytes;
        let end = Lsn(((number + 1) * segment_bytes).min(tail.end().0));
        let offset = |lsn: Lsn| usize::try_from(lsn.0 - tail.start.0).unwrap_or(usize::MAX);
        let segment = path(number);
        let write = || {
            let file = open_segment(&wal, &segment, segment_bytes, owner)?;
            file.write_all_at(&tail.bytes[offset(at)..offset(end)], at.0 % segment_bytes)?;
            file.sync_all()
        };
        write().map_err(|e| Error::internal(format!("cannot write WAL. path={}", segment.display())).because(e))?;
        at = end;
    }
    File::open(&wal)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| Error::internal(format!("cannot sync WAL. path={}", wal.display())).because(e))
}

/// A segment's file, made whole and empty where there is none, as a receiver does.
fn open_segment(wal: &Path, segment: &PathBuf, segment_bytes: u64, owner: &OsUser) -> std::io::Result<File> {
    match OpenOptions::new().write(true).open(segment) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        result => return result,
    }
    // PostgreSQL removes files of such a name when it starts.
    let fresh = wal.join("xlogtemp.pgdock");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    owner.take(&file)?;
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < segment_bytes {
        let length = usize::try_from(segment_bytes - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(&zeros[..length], at)?;
        at += length as u64;
    }
    file.sync_all()?;
    std::fs::rename(&fresh, segment)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1 << 20;
    const PAGE: usize = 8192;
    const TL: TimelineId = TimelineId(2);

    /// A page at a position, with a letter for its records.
    fn page(at: u64, letter: u8) -> Vec<u8> {
        let mut page = vec![letter; PAGE];
        page[..HEADER_BYTES].fill(0);
        page[0..2].copy_from_slice(&0xD110u16.to_ne_bytes());
        page[4..8].copy_from_slice(&TL.0.to_ne_bytes());
        page[8..16].copy_from_slice(&at.to_ne_bytes());
        if at.is_multiple_of(SEGMENT) {
            page[24..40].fill(0);
            page[32..36].copy_from_slice(&u32::try_from(SEGMENT).unwrap().to_ne_bytes());
            page[36..40].copy_from_slice(&u32::try_from(PAGE).unwrap().to_ne_bytes());
        }
        page
    }

    /// A data directory with so many pages of WAL from segment 3 on. What is behind them in the last segment is
    /// left from when its file was segment 1.
    fn data(pages: u64, letter: u8) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pg_wal")).unwrap();
        let per_segment = SEGMENT / PAGE as u64;
        let mut bytes = Vec::new();
        for n in 0..pages.next_multiple_of(per_segment) {
            let at = 3 * SEGMENT + n * PAGE as u64;
            bytes.extend(page(if n < pages { at } else { at - 2 * SEGMENT }, letter));
        }
        for (number, segment) in (3..).zip(bytes.chunks(usize::try_from(SEGMENT).unwrap())) {
            std::fs::write(dir.path().join("pg_wal").join(segment_name(TL, number, SEGMENT)), segment).unwrap();
        }
        dir
    }

    fn me() -> OsUser {
        OsUser::current().unwrap()
    }

    #[test]
    fn names_are_those_of_postgresql() {
        assert_eq!(segment_name(TimelineId(1), 3, 16 << 20), "000000010000000000000003");
        assert_eq!(segment_name(TimelineId(10), 256, 16 << 20), "0000000A0000000100000000");
    }

    #[test]
    fn it_ends_before_the_first_page_that_lies_elsewhere() {
        let dead = data(200, b'x');
        let from = Lsn(3 * SEGMENT + 5 * PAGE as u64 + 100);
        let tail = read(dead.path(), TL, from, SEGMENT, usize::MAX).unwrap();
        assert_eq!(tail.start, Lsn(3 * SEGMENT + 5 * PAGE as u64));
        assert_eq!(tail.end(), Lsn(3 * SEGMENT + 200 * PAGE as u64), "over the end of a segment");
        let limited = read(dead.path(), TL, from, SEGMENT, 10 * PAGE).unwrap_err();
        assert_eq!(limited.kind(), crate::ErrorKind::Conflict);
    }

    #[test]
    fn where_there_is_none_it_says_so() {
        let dead = data(10, b'x');
        for (timeline, from) in
            [(TimelineId(3), 3 * SEGMENT + 10), (TL, 9 * SEGMENT), (TL, 3 * SEGMENT + 20 * PAGE as u64 + 1)]
        {
            let error = read(dead.path(), timeline, Lsn(from), SEGMENT, usize::MAX).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::NotReady, "{error}");
        }
        // At the very end there is nothing more, and nothing wrong.
        let end = Lsn(3 * SEGMENT + 10 * PAGE as u64);
        assert!(read(dead.path(), TL, end, SEGMENT, usize::MAX).unwrap().bytes.is_empty());
    }

    #[test]
    fn a_standby_then_holds_the_same() {
        let (dead, standby) = (data(200, b'x'), data(6, b'x'));
        let flushed = Lsn(3 * SEGMENT + 5 * PAGE as u64 + 100);
        let tail = read(dead.path(), TL, flushed, SEGMENT, usize::MAX).unwrap();
        add(standby.path(), TL, flushed, &tail, SEGMENT, &me()).unwrap();
        let here = read(standby.path(), TL, Lsn(3 * SEGMENT), SEGMENT, usize::MAX).unwrap();
        assert_eq!(here, read(dead.path(), TL, Lsn(3 * SEGMENT), SEGMENT, usize::MAX).unwrap());
        // Taken again, it changes nothing.
        add(standby.path(), TL, flushed, &tail, SEGMENT, &me()).unwrap();
        assert_eq!(read(standby.path(), TL, Lsn(3 * SEGMENT), SEGMENT, usize::MAX).unwrap(), here);
        let made = standby.path().join("pg_wal").join(segment_name(TL, 4, SEGMENT));
        assert_eq!(made.metadata().unwrap().len(), SEGMENT, "a new segment is whole");
    }

    #[test]
    fn wal_that_differs_is_refused_and_changes_nothing() {
        let (dead, standby) = (data(10, b'x'), data(6, b'y'));
        let flushed = Lsn(3 * SEGMENT + 5 * PAGE as u64 + 100);
        let tail = read(dead.path(), TL, flushed, SEGMENT, usize::MAX).unwrap();
        let before = std::fs::read(standby.path().join("pg_wal").join(segment_name(TL, 3, SEGMENT))).unwrap();
        let error = add(standby.path(), TL, flushed, &tail, SEGMENT, &me()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Conflict, "{error}");
        let late = WalTail { start: Lsn(flushed.0 + 1), bytes: vec![0; PAGE] };
        assert!(add(standby.path(), TL, flushed, &late, SEGMENT, &me()).is_err());
        assert_eq!(std::fs::read(standby.path().join("pg_wal").join(segment_name(TL, 3, SEGMENT))).unwrap(), before);
    }
}
