//! The index of a base backup: which file lies where in which pack. It is written and read in chunks, so that the number of files
//! takes no memory.
//!
//! A chunk is one JSON value a line, in an order that a restore can follow in one pass: a folder comes before what is in it, a file
//! before the packs that hold its content.

use std::path::{Component, Path};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::frame::{Codec, Encoder};
use super::label::Label;
use super::layout::Name;
use super::manifest::Manifest;
use super::object::{self, Stored};
use crate::backup_sink::BackupSink;
use crate::{Error, Result};

/// A chunk ends with the line that passes this size.
const CHUNK: u64 = 2 << 20;
/// The most bytes of a chunk: one line may be as long as a pack with many parts makes it.
const CHUNK_MAX: usize = 16 << 20;

/// A line of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A folder below the data directory.
    Folder {
        /// Its path from there.
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// A file. What no pack holds of it is zero.
    File {
        /// Its path from the data directory.
        path: String,
        /// How many bytes it has.
        size: u64,
        /// Its permissions.
        mode: u32,
        /// When it was changed last, in seconds since 1970.
        mtime: i64,
    },
    /// A pack of content.
    Pack(Pack),
}

/// A pack: the content of many files, or a part of that of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pack {
    /// Its number.
    pub number: u32,
    /// How many bytes are stored.
    pub stored: u64,
    /// The digest of those: no other object can take its place.
    pub digest: Digest,
    /// What it holds, one after the other.
    pub parts: Vec<Part>,
}

/// A piece of a file in a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The file.
    pub path: String,
    /// Where in the file the piece begins.
    pub at: u64,
    /// How many bytes it has.
    pub length: u64,
    /// Their digest.
    pub digest: Digest,
}

impl Line {
    /// Refuses paths that lead out of the data directory, whoever has written them.
    fn check(&self) -> Result<()> {
        let paths: &mut dyn Iterator<Item = &String> = match self {
            Self::Folder { path, .. } | Self::File { path, .. } => &mut std::iter::once(path),
            Self::Pack(pack) => &mut pack.parts.iter().map(|part| &part.path),
        };
        for path in paths {
            let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
            if path.is_empty() || !inside || path.contains('\0') {
                return Err(Error::invalid(format!("the index of a backup names a path outside of it. path={path:?}")));
            }
        }
        Ok(())
    }
}

/// Reads the lines of a chunk.
///
/// # Errors
/// `Invalid` for a line that is not understood.
pub fn parse(chunk: &[u8]) -> Result<Vec<Line>> {
    let lines = chunk.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let odd = |e| Error::invalid("a line of the index of a backup is not understood").because(e);
            let line: Line = serde_json::from_slice(line).map_err(odd)?;
            line.check().map(|()| line)
        })
        .collect()
}

/// Reads a chunk of a backup's index, by its number.
///
/// # Errors
/// Those of the sink; `Invalid` when it is missing, damaged, or not the one that the manifest names.
pub async fn load(sink: &dyn BackupSink, codec: &Codec, manifest: &Manifest, number: u32) -> Result<Vec<Line>> {
    let key = Name::Index(manifest.label.clone(), number).key()?;
    let chunk = object::fetch_patiently(sink, codec, &key, CHUNK_MAX).await?;
    let chunk = chunk.ok_or_else(|| Error::invalid(format!("an object of the backup is missing. key={key}")))?;
    if manifest.index.get(number as usize) != Some(&Digest::of(&chunk)) {
        return Err(Error::invalid(format!("an object is not the one that the backup's manifest names. key={key}")));
    }
    parse(&chunk).map_err(|e| e.at(format_args!("key={key}")))
}

/// Writes an index.
#[derive(Debug)]
pub(super) struct IndexWriter {
    sink: Arc<dyn BackupSink>,
    codec: Codec,
    label: Label,
    open: Option<(crate::backup_sink::Key, Encoder)>,
    done: Vec<Digest>,
}

impl IndexWriter {
    pub(super) fn new(sink: Arc<dyn BackupSink>, codec: Codec, label: Label) -> Self {
        Self { sink, codec, label, open: None, done: Vec::new() }
    }

    pub(super) async fn push(&mut self, line: &Line) -> Result<()> {
        line.check()?;
        let mut text =
            serde_json::to_vec(line).map_err(|e| Error::internal("cannot write a line of the index").because(e))?;
        text.push(b'\n');
        if self.open.is_none() {
            let number = u32::try_from(self.done.len()).map_err(|_| Error::internal("the index is too long"))?;
            let key = Name::Index(self.label.clone(), number).key()?;
            let encoder = Encoder::new(&self.codec, &key)?;
            self.open = Some((key, encoder));
        }
        let Some((_, encoder)) = &mut self.open else { return Ok(()) };
        encoder.push(&text)?;
        if encoder.plain_len() >= CHUNK { self.close().await } else { Ok(()) }
    }

    async fn close(&mut self) -> Result<()> {
        let Some((key, encoder)) = self.open.take() else { return Ok(()) };
        let encoded = encoder.finish()?;
        self.done.push(encoded.plain_digest);
        match object::store_patiently(&*self.sink, &self.codec, &key, &encoded).await? {
            Stored::Created | Stored::Same => Ok(()),
            Stored::Different => Err(object::taken(&key)),
        }
    }

    /// Ends it, and answers with the digests of its chunks.
    pub(super) async fn finish(mut self) -> Result<Vec<Digest>> {
        self.close().await?;
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_sink::MemorySink;

    #[tokio::test]
    async fn many_lines_make_many_chunks_that_come_back() {
        let sink = Arc::new(MemorySink::new());
        let mut manifest = super::super::manifest::tests::sample(1_800_000_000, 1, 1, 2);
        let codec = Codec::default();
        let mut writer = IndexWriter::new(sink.clone(), codec.clone(), manifest.label.clone());
        let line = |i: u64| Line::File { path: format!("base/1/{i}"), size: i, mode: 0o600, mtime: 0 };
        for i in 0..60_000 {
            writer.push(&line(i)).await.unwrap();
        }
        manifest.index = writer.finish().await.unwrap();
        assert!(manifest.index.len() > 1, "{}", manifest.index.len());
        let mut next = 0;
        for number in 0..manifest.index.len() as u32 {
            for found in load(&*sink, &codec, &manifest, number).await.unwrap() {
                assert_eq!(found, line(next));
                next += 1;
            }
        }
        assert_eq!(next, 60_000);
        manifest.index.swap(0, 1);
        let error = load(&*sink, &codec, &manifest, 0).await.unwrap_err();
        assert!(error.to_string().contains("not the one"), "{error}");
    }

    #[test]
    fn no_path_leads_out() {
        for path in ["../x", "/etc/passwd", "base/../../x", "", "a\\u0000b", "./x"] {
            let line = format!("{{\"folder\":{{\"path\":\"{path}\",\"mode\":448}}}}\n");
            assert!(parse(line.as_bytes()).is_err(), "{path}");
        }
        assert!(parse(b"{\"folder\":{\"path\":\"base/1\",\"mode\":448}}\n").is_ok());
        assert!(parse(b"{\"pack\":3}\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), at in 0usize..50, with: u8) {
            let _ = parse(&bytes);
            let mut line = b"{\"file\":{\"path\":\"base/1/2\",\"size\":3,\"mode\":384,\"mtime\":0}}\n".to_vec();
            line[at] = with;
            for line in parse(&line).unwrap_or_default() {
                proptest::prop_assert!(line.check().is_ok());
            }
        }
    }
}
