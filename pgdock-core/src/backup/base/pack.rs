//! Pieces of files, packed: what the threads do that read, check, digest, compress and seal.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::page::{self, PAGE, Seen};
use super::walk::{CONTROL, Relation};
use super::{BadPages, Meter};
use crate::backup::digest::Digest;
use crate::backup::frame::{Codec, Encoded, Encoder, FRAME};
use crate::backup::index::{Line, Pack, Part};
use crate::backup::label::Label;
use crate::backup::layout::Name;
use crate::backup_sink::Key;
use crate::{Error, Lsn, Result};

/// A pack ends with the frame that passes this size in the store …
const STORED: usize = 8 << 20;
/// … or this one of content, however well that compresses …
const PLAIN: u64 = 256 << 20;
/// … or with that many parts, so that its line of the index stays short.
const PARTS: usize = 4096;
/// A file is handed out in pieces of this size, so that several threads share a large one. A multiple of [`FRAME`].
pub(super) const PIECE: u64 = 64 << 20;

/// How often a page with a wrong checksum is read again: it may have been read while it was written.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(5);

/// A piece of a file to be packed.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) path: String,
    pub(super) file: std::sync::Arc<File>,
    pub(super) at: u64,
    pub(super) length: u64,
    pub(super) relation: Option<Relation>,
}

/// A pack ready to be put.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) key: Key,
    pub(super) encoded: Encoded,
    pub(super) line: Pack,
}

/// What all packing threads share.
#[derive(Debug)]
pub(super) struct Packing {
    pub(super) label: Label,
    pub(super) codec: Codec,
    pub(super) pieces: Mutex<Receiver<Piece>>,
    pub(super) packs: tokio::sync::mpsc::Sender<Packed>,
    pub(super) next: AtomicU32,
    /// The backup has failed or was given up.
    pub(super) over: std::sync::Arc<AtomicBool>,
    /// Where recovery begins, if pages are checked.
    pub(super) check_from: Option<Lsn>,
    pub(super) segment_blocks: u32,
    pub(super) bad: std::sync::Arc<BadPages>,
    pub(super) meter: std::sync::Arc<Meter>,
}

struct Open {
    number: u32,
    key: Key,
    encoder: Encoder,
    parts: Vec<Part>,
}

impl Packing {
    /// Packs pieces until there are no more.
    pub(super) fn run(&self) -> Result<()> {
        let mut buffer = vec![0; FRAME];
        let mut open = None;
        loop {
            let piece = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(piece) = piece else { break };
            self.pack(&piece, &mut buffer, &mut open)?;
        }
        match open {
            Some(last) => self.close(last),
            None => Ok(()),
        }
    }

    fn pack(&self, piece: &Piece, buffer: &mut [u8], open: &mut Option<Open>) -> Result<()> {
        let end = piece.at + piece.length;
        let mut at = piece.at;
        while at < end {
            let mut pack = match open.take() {
                Some(pack) => pack,
                None => self.begin()?,
            };
            let start = at;
            // What the first part of a pack holds, the pack holds until then: that digest is there for nothing.
            let mut hasher = (!pack.parts.is_empty()).then(blake3::Hasher::new);
            let mut full = false;
            while at < end && !full {
                if self.over.load(Ordering::Relaxed) {
                    return Err(super::given_up());
                }
                let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                let came = read(&piece.file, &mut buffer[..want], at).map_err(|e| unreadable(&piece.path, e))?;
                if came == 0 {
                    // Cut off since it was found: recovery does the same again, and finds zeros until then.
                    self.meter.read(end - at);
                    at = end;
                    break;
                }
                if let (Some(relation), Some(from)) = (piece.relation, self.check_from) {
                    self.check(piece, relation, from, at, &mut buffer[..came])?;
                }
                let content = &buffer[..came];
                if let Some(hasher) = &mut hasher {
                    hasher.update(content);
                }
                pack.encoder.push(content)?;
                at += came as u64;
                self.meter.read(came as u64);
                full = pack.encoder.stored_len() >= STORED || pack.encoder.plain_len() >= PLAIN;
            }
            let before: u64 = pack.parts.iter().map(|part| part.length).sum();
            let length = pack.encoder.plain_len() - before;
            if length > 0 {
                let digest: Digest = hasher.map_or_else(|| pack.encoder.plain_digest(), |h| h.finalize().into());
                pack.parts.push(Part { path: piece.path.clone(), at: start, length, digest });
            }
            if full || pack.parts.len() >= PARTS {
                self.close(pack)?;
            } else {
                *open = Some(pack);
            }
        }
        Ok(())
    }

    /// The control file as it is at one moment, in a pack of its own.
    pub(super) fn pack_control(&self, path: &Path) -> Result<(Line, Packed)> {
        let file = File::open(path).map_err(|e| unreadable(CONTROL, e))?;
        let metadata = file.metadata().map_err(|e| unreadable(CONTROL, e))?;
        let content = settled(&file, metadata.len()).map_err(|e| unreadable(CONTROL, e))?;
        let mut pack = self.begin()?;
        pack.encoder.push(&content)?;
        let (size, digest) = (content.len() as u64, pack.encoder.plain_digest());
        pack.parts.push(Part { path: CONTROL.to_owned(), at: 0, length: size, digest });
        self.meter.read(size);
        let mode = metadata.permissions().mode() & 0o777;
        let line = Line::File { path: CONTROL.to_owned(), size, mode, mtime: metadata.mtime() };
        Ok((line, Self::finish(pack)?))
    }

    fn begin(&self) -> Result<Open> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let key = Name::Data(self.label.clone(), number).key()?;
        let encoder = Encoder::new(&self.codec, &key)?;
        Ok(Open { number, key, encoder, parts: Vec::new() })
    }

    fn close(&self, pack: Open) -> Result<()> {
        self.packs.blocking_send(Self::finish(pack)?).map_err(|_| super::given_up())
    }

    fn finish(pack: Open) -> Result<Packed> {
        let encoded = pack.encoder.finish()?;
        let (stored, digest) = (encoded.bytes.len() as u64, encoded.stored_digest);
        let line = Pack { number: pack.number, stored, digest, parts: pack.parts };
        Ok(Packed { key: pack.key, encoded, line })
    }

    fn check(&self, piece: &Piece, relation: Relation, from: Lsn, at: u64, content: &mut [u8]) -> Result<()> {
        let first = u64::from(relation.segment) * u64::from(self.segment_blocks) + at / PAGE as u64;
        let (pages, _) = content.as_chunks_mut::<PAGE>();
        for (number, page) in pages.iter_mut().enumerate() {
            let Ok(block) = u32::try_from(first + number as u64) else { continue };
            let mut seen = page::look(page, block, from);
            for _ in 0..TRIES {
                if seen == Seen::Fine {
                    break;
                }
                std::thread::sleep(PAUSE);
                let place = at + (number * PAGE) as u64;
                match piece.file.read_exact_at(page, place) {
                    Ok(()) => seen = page::look(page, block, from),
                    // Cut off meanwhile: what was read before is as good as nothing, and recovery takes it away.
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                        page.fill(0);
                        seen = Seen::Fine;
                    }
                    Err(e) => return Err(unreadable(&piece.path, e)),
                }
            }
            self.bad.saw(seen, &piece.path, block)?;
        }
        self.bad.checked(pages.len() as u64);
        Ok(())
    }
}

/// The content of a small file that is overwritten in place, and so could be read half new: twice the same is whole.
fn settled(file: &File, size: u64) -> std::io::Result<Vec<u8>> {
    let read = || {
        let mut content = vec![0; usize::try_from(size).unwrap_or(0)];
        file.read_exact_at(&mut content, 0).map(|()| content)
    };
    let mut last = read()?;
    for _ in 0..TRIES * 10 {
        std::thread::sleep(PAUSE);
        let again = read()?;
        if again == last {
            return Ok(last);
        }
        last = again;
    }
    Err(std::io::Error::other("it changed all the time that it was read"))
}

/// Reads until the buffer is full or the file ends.
fn read(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut came = 0;
    while came < buffer.len() {
        match file.read_at(&mut buffer[came..], at + came as u64) {
            Ok(0) => break,
            Ok(read) => came += read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(came)
}

fn unreadable(path: &str, error: std::io::Error) -> Error {
    Error::unavailable(format!("a file of the data directory cannot be read. path={path}")).because(error)
}
