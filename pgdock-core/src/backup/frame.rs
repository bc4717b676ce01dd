//! The format of every object in an archive: compressed frames, sealed where it is encrypted, and digests at the end.
//!
//! ```text
//! header    "PGDKOBJ1", flags (1 byte); encrypted: what `cipher` needs (68 bytes)
//! frame*    stored length, plain length (u32 LE each), content: one zstd frame with checksum, of 1 to 2^20 bytes plain
//! trailer   two lengths of 0, plain length (u64 LE), digest of the plain content, digest of all bytes stored before it
//! ```
//!
//! Encrypted, frames and trailer are sealed, 16 bytes longer each. By the digests every flipped bit and every truncation is
//! found without looking anywhere else; that the object is the one that was meant is told by its name, which an encrypted
//! one is bound to, or by the digest that whoever refers to it has noted. No more than one frame lies in memory to decode.

use std::io::Cursor;
use std::sync::Arc;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, compress_bound};

use super::cipher::{Cipher, ObjectKey, Part, TAG, WRAPPED};
use super::digest::Digest;
use crate::backup_sink::Key;
use crate::{Error, Result};

const MAGIC: &[u8; 8] = b"PGDKOBJ1";
const ENCRYPTED: u8 = 1;
const HEADER: usize = MAGIC.len() + 1;
const LENGTHS: usize = 8;
const TRAILER: usize = 8 + 2 * Digest::BYTES;

/// The most plain bytes of one frame.
pub const FRAME: usize = 1 << 20;
/// The compression that is used where nobody asks for another: the fastest that compresses well.
pub const LEVEL: i32 = 1;

/// How objects are written, and what is needed to read them.
#[derive(Clone, Debug)]
pub struct Codec {
    /// The level of zstd for what is written, from 1 to 19.
    pub level: i32,
    /// The archive's key, where it is encrypted. Objects that are not are refused then, and the other way round.
    pub cipher: Option<Arc<Cipher>>,
}

impl Default for Codec {
    fn default() -> Self {
        Self { level: LEVEL, cipher: None }
    }
}

/// An object ready to be put.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    /// What is stored.
    pub bytes: Vec<u8>,
    /// The digest of that.
    pub stored_digest: Digest,
    /// The digest of the content.
    pub plain_digest: Digest,
    /// How many bytes the content has.
    pub plain_len: u64,
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, plain_len, plain_digest, .. } = self;
        f.debug_struct("Encoded")
            .field("stored", &bytes.len())
            .field("plain", plain_len)
            .field("digest", plain_digest)
            .finish_non_exhaustive()
    }
}

/// Makes an object in memory. It works on the caller's thread: for more than a few kilobytes let that be a blocking one.
pub struct Encoder {
    compressor: Compressor<'static>,
    sealer: Option<ObjectKey>,
    pending: Vec<u8>,
    out: Vec<u8>,
    stored: blake3::Hasher,
    plain: blake3::Hasher,
    plain_len: u64,
}

impl Encoder {
    /// Begins the object of that name.
    ///
    /// # Errors
    /// `Internal` when compression or encryption is not to be had; also from the other methods.
    pub fn new(codec: &Codec, key: &Key) -> Result<Self> {
        let mut compressor = Compressor::new(codec.level).map_err(no_zstd)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true)).map_err(no_zstd)?;
        let mut out = MAGIC.to_vec();
        let mut sealer = None;
        match &codec.cipher {
            None => out.push(0),
            Some(cipher) => {
                let (own, wrapped) = cipher.draw(key)?;
                sealer = Some(own);
                out.push(ENCRYPTED);
                out.extend_from_slice(&wrapped);
            }
        }
        let mut stored = blake3::Hasher::new();
        stored.update(&out);
        let plain = blake3::Hasher::new();
        Ok(Self { compressor, sealer, pending: Vec::new(), out, stored, plain, plain_len: 0 })
    }

    /// Appends content. In pieces of [`FRAME`] bytes, or a multiple of that, it is not copied before it is compressed.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn push(&mut self, mut content: &[u8]) -> Result<()> {
        self.plain.update(content);
        self.plain_len += content.len() as u64;
        if !self.pending.is_empty() {
            let (now, later) = content.split_at(content.len().min(FRAME - self.pending.len()));
            self.pending.extend_from_slice(now);
            content = later;
            if self.pending.len() == FRAME {
                let mut full = std::mem::take(&mut self.pending);
                self.frame(&full)?;
                full.clear();
                self.pending = full;
            }
        }
        while content.len() >= FRAME {
            let (now, later) = content.split_at(FRAME);
            self.frame(now)?;
            content = later;
        }
        if !content.is_empty() {
            self.pending.extend_from_slice(content);
        }
        Ok(())
    }

    /// How many plain bytes were pushed.
    #[must_use]
    pub fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// The digest of what was pushed so far.
    #[must_use]
    pub fn plain_digest(&self) -> Digest {
        self.plain.finalize().into()
    }

    /// How many bytes are stored so far; up to one frame of what was pushed is still to come.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        self.out.len()
    }

    /// Ends the object.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn finish(mut self) -> Result<Encoded> {
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            self.frame(&rest)?;
        }
        let plain_digest = self.plain_digest();
        let end = self.out.len();
        let mut whole = self.stored.clone();
        self.out.extend_from_slice(&[0; LENGTHS]);
        self.out.extend_from_slice(&self.plain_len.to_le_bytes());
        self.out.extend_from_slice(plain_digest.as_bytes());
        self.stored.update(&self.out[end..]);
        let before: Digest = self.stored.finalize().into();
        self.out.extend_from_slice(before.as_bytes());
        if let Some(sealer) = &mut self.sealer {
            sealer.seal(Part::Trailer, &mut self.out, end + LENGTHS)?;
        }
        // Of the object as it lies in the store, sealed trailer and all.
        whole.update(&self.out[end..]);
        let stored_digest = whole.finalize().into();
        Ok(Encoded { bytes: self.out, stored_digest, plain_digest, plain_len: self.plain_len })
    }

    fn frame(&mut self, plain: &[u8]) -> Result<()> {
        let start = self.out.len();
        let content = start + LENGTHS;
        self.out.reserve(LENGTHS + compress_bound(plain.len()) + TAG);
        self.out.extend_from_slice(&[0; LENGTHS]);
        let mut cursor = Cursor::new(&mut self.out);
        cursor.set_position(content as u64);
        let compressed = self.compressor.compress_to_buffer(plain, &mut cursor).map_err(no_zstd)?;
        self.out.truncate(content + compressed);
        if let Some(sealer) = &mut self.sealer {
            sealer.seal(Part::Frame, &mut self.out, content)?;
        }
        let lengths = [self.out.len() - content, plain.len()];
        for (at, length) in [start, start + 4].into_iter().zip(lengths) {
            let length = u32::try_from(length).map_err(|_| Error::internal("a frame has no size of a frame"))?;
            self.out[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        self.stored.update(&self.out[start..]);
        Ok(())
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("Encoder");
        text.field("plain", &self.plain_len).field("stored", &self.out.len()).finish_non_exhaustive()
    }
}

/// What an object was found to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The digest of the content.
    pub plain_digest: Digest,
    /// How many bytes it has.
    pub plain_len: u64,
}

/// Reads an object, piece by piece: give it what it [`wants`](Self::wants) until that is nothing, then there must be no more.
///
/// Content that it yields is not proven before the end was reached. It works on the caller's thread.
pub struct Decoder {
    key: Key,
    cipher: Option<Arc<Cipher>>,
    opener: Option<ObjectKey>,
    decompressor: Decompressor<'static>,
    next: Next,
    stored: blake3::Hasher,
    plain: blake3::Hasher,
    plain_len: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Header,
    ObjectKey,
    Lengths,
    Frame { stored: usize, plain: usize },
    Trailer,
    End(Content),
}

impl Decoder {
    /// For the object of that name.
    ///
    /// # Errors
    /// `Internal` when there is no decompression to be had.
    pub fn new(codec: &Codec, key: &Key) -> Result<Self> {
        let decompressor = Decompressor::new().map_err(no_zstd)?;
        let (stored, plain) = (blake3::Hasher::new(), blake3::Hasher::new());
        let (key, cipher) = (key.clone(), codec.cipher.clone());
        Ok(Self { key, cipher, opener: None, decompressor, next: Next::Header, stored, plain, plain_len: 0 })
    }

    /// How many bytes to [`take`](Self::take) next; never much more than [`FRAME`]. Zero means that the object is whole, and ends here.
    #[must_use]
    pub fn wants(&self) -> usize {
        match self.next {
            Next::Header => HEADER,
            Next::ObjectKey => WRAPPED,
            Next::Lengths => LENGTHS,
            Next::Frame { stored, .. } => stored,
            Next::Trailer => TRAILER + if self.opener.is_some() { TAG } else { 0 },
            Next::End(_) => 0,
        }
    }

    /// What the object holds, once all of it was read and proven.
    #[must_use]
    pub fn content(&self) -> Option<Content> {
        match self.next {
            Next::End(content) => Some(content),
            _ => None,
        }
    }

    /// Takes exactly the bytes that it wants, and appends the content that they hold to `out`. What is sealed is opened in place.
    ///
    /// # Errors
    /// `Invalid` when the object is damaged, or not what it should be.
    pub fn take(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> Result<()> {
        if bytes.len() != self.wants() || bytes.is_empty() {
            return Err(self.damaged("it is too short or too long"));
        }
        match self.next {
            Next::Header => {
                self.stored.update(bytes);
                self.header(bytes)
            }
            Next::ObjectKey => {
                self.stored.update(bytes);
                let wrapped = bytes.first_chunk::<WRAPPED>().ok_or_else(|| self.damaged("it has no key"))?;
                let cipher = self.cipher.as_ref().ok_or_else(|| self.damaged("it has no key"))?;
                self.opener = Some(cipher.open(wrapped, &self.key)?);
                self.next = Next::Lengths;
                Ok(())
            }
            Next::Lengths => {
                self.stored.update(bytes);
                let [stored, plain] =
                    [&bytes[..4], &bytes[4..]].map(|b| b.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b)));
                self.next = match (stored, plain) {
                    (0, 0) => Next::Trailer,
                    (1.., 1..=FRAME) if stored <= compress_bound(FRAME) + TAG => Next::Frame { stored, plain },
                    _ => return Err(self.damaged("a frame has an impossible size")),
                };
                Ok(())
            }
            Next::Frame { plain, .. } => {
                self.stored.update(bytes);
                self.frame(bytes, plain, out)
            }
            Next::Trailer => self.trailer(bytes),
            Next::End(_) => Ok(()),
        }
    }

    fn header(&mut self, bytes: &[u8]) -> Result<()> {
        let key = &self.key;
        if bytes[..MAGIC.len()] != *MAGIC {
            return Err(self.damaged("it does not begin as an object of an archive does"));
        }
        self.next = match (bytes[MAGIC.len()], &self.cipher) {
            (0, None) => Next::Lengths,
            (ENCRYPTED, Some(_)) => Next::ObjectKey,
            (0, Some(_)) => {
                return Err(Error::invalid(format!("the object is not encrypted, as all of this archive should be. key={key}"))
                    .hint("an archive is encrypted from its beginning or not at all: for the other begin a new one, at another url"));
            }
            (ENCRYPTED, None) => {
                return Err(Error::invalid(format!("the object is encrypted, and no key is given. key={key}"))
                    .hint("give the key that the archive was begun with"));
            }
            _ => return Err(self.damaged("its flags are unknown").hint("or a newer pgdock has written it")),
        };
        Ok(())
    }

    fn frame(&mut self, bytes: &mut [u8], plain: usize, out: &mut Vec<u8>) -> Result<()> {
        let compressed = match &mut self.opener {
            None => &*bytes,
            Some(opener) => match opener.open(Part::Frame, bytes) {
                Some(opened) => opened,
                None => return Err(self.damaged("a frame does not open")),
            },
        };
        let start = out.len();
        out.reserve(plain);
        let mut cursor = Cursor::new(&mut *out);
        cursor.set_position(start as u64);
        let came = self.decompressor.decompress_to_buffer(compressed, &mut cursor);
        if !matches!(came, Ok(came) if came == plain) || out.len() != start + plain {
            out.truncate(start);
            return Err(self.damaged("a frame cannot be decompressed"));
        }
        self.plain.update(&out[start..]);
        self.plain_len += plain as u64;
        self.next = Next::Lengths;
        Ok(())
    }

    fn trailer(&mut self, bytes: &mut [u8]) -> Result<()> {
        let opened = match &mut self.opener {
            None => &*bytes,
            Some(opener) => match opener.open(Part::Trailer, bytes) {
                Some(opened) => opened,
                None => return Err(self.damaged("its end does not open")),
            },
        };
        let (told, stored) = opened.split_at(TRAILER - Digest::BYTES);
        self.stored.update(told);
        let content = Content { plain_digest: self.plain.finalize().into(), plain_len: self.plain_len };
        let found = [&content.plain_len.to_le_bytes()[..], content.plain_digest.as_bytes()].concat();
        if told != found {
            return Err(self.damaged("its content is not what was written"));
        }
        if stored != self.stored.finalize().as_bytes() {
            return Err(self.damaged("its bytes are not those that were written"));
        }
        self.next = Next::End(content);
        Ok(())
    }

    fn damaged(&self, why: &str) -> Error {
        Error::invalid(format!("an object of the archive is damaged: {why}. key={}", self.key))
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("key", &self.key).field("plain", &self.plain_len).finish_non_exhaustive()
    }
}

fn no_zstd(error: std::io::Error) -> Error {
    Error::internal("zstd failed").because(error)
}

#[cfg(test)]
mod tests;
