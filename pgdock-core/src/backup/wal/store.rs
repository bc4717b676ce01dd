//! [`WalStore`]: the WAL of one database system in an archive.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::file::{Segment, WalFile};
use crate::backup::frame::FRAME;
use crate::backup::layout::{self, Name};
use crate::backup::object::{self, Stored};
use crate::backup::{Codec, Encoder};
use crate::backup_sink::{BackupSink, Key, PAGE};
use crate::postgres::timeline::TimelineId;
use crate::{Error, Result};

/// The largest segment that PostgreSQL can be built for, in bytes.
pub(super) const SEGMENT_BYTES_MAX: usize = 1 << 30;

/// The WAL of one database system in an archive. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WalStore {
    sink: Arc<dyn BackupSink>,
    codec: Codec,
    system: u64,
}

impl WalStore {
    /// The WAL of the database system with this identifier.
    #[must_use]
    pub fn new(sink: Arc<dyn BackupSink>, codec: Codec, system: u64) -> Self {
        Self { sink, codec, system }
    }

    /// Which database system it is of.
    #[must_use]
    pub fn system(&self) -> u64 {
        self.system
    }

    /// The sink that it lies in.
    pub(super) fn sink(&self) -> &dyn BackupSink {
        &*self.sink
    }

    /// The name of the object of a file.
    pub(super) fn key(&self, timeline: TimelineId, file: &str) -> Result<Key> {
        Name::Wal { system: self.system, timeline, file: file.to_owned() }.key()
    }

    /// Puts a file of `pg_wal`, in one request where it is not there yet. What is there is compared, and never replaced.
    ///
    /// # Errors
    /// `Internal` when the file cannot be read or is no plain file, else those of the sink.
    pub async fn put_file(&self, file: WalFile, path: &Path) -> Result<Stored> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let key = self.key(file.timeline(), name)?;
        let (codec, path, of) = (self.codec.clone(), path.to_owned(), key.clone());
        let encoded = object::blocking(move || {
            let cannot = |e| Error::internal(format!("cannot read WAL. path={}", path.display())).because(e);
            let mut encoder = Encoder::new(&codec, &of)?;
            // The folder is the database user's, who could link to what only the agent may read.
            let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
            let mut opened =
                std::fs::OpenOptions::new().read(true).custom_flags(no_follow).open(&path).map_err(cannot)?;
            if !opened.metadata().map_err(cannot)?.is_file() {
                return Err(cannot(std::io::Error::other("it is no file")));
            }
            let mut buffer = vec![0; FRAME];
            loop {
                let read = fill(&mut opened, &mut buffer).map_err(cannot)?;
                encoder.push(&buffer[..read])?;
                if read < buffer.len() {
                    return encoder.finish();
                }
            }
        });
        object::store(self.sink(), &self.codec, &key, &encoded.await?).await
    }

    /// Puts bytes under a name beside the segments of a timeline.
    ///
    /// # Errors
    /// Those of the sink.
    pub(super) async fn put_bytes(&self, timeline: TimelineId, file: &str, bytes: Vec<u8>) -> Result<Stored> {
        let key = self.key(timeline, file)?;
        let (codec, of) = (self.codec.clone(), key.clone());
        let encoded = object::blocking(move || object::encode(&codec, &of, &bytes)).await?;
        object::store(self.sink(), &self.codec, &key, &encoded).await
    }

    /// The content of what lies under a name beside the segments of a timeline; `None` where there is nothing.
    ///
    /// # Errors
    /// Those of the sink; `Invalid` when the object is damaged.
    pub(super) async fn get(&self, timeline: TimelineId, file: &str) -> Result<Option<Vec<u8>>> {
        let key = self.key(timeline, file)?;
        object::fetch(self.sink(), &self.codec, &key, SEGMENT_BYTES_MAX).await
    }

    /// Deletes what lies under a name beside the segments of a timeline.
    ///
    /// # Errors
    /// Those of the sink.
    pub(super) async fn delete(&self, timeline: TimelineId, file: &str) -> Result<()> {
        self.sink().delete(&self.key(timeline, file)?).await
    }

    /// The names of all that is archived of a timeline, from `first` on, up to `last`, by the order of names. A request a
    /// thousand names.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn names(&self, timeline: TimelineId, first: &str, last: Option<&str>) -> Result<BTreeSet<String>> {
        let folder = layout::wal_folder(self.system, timeline);
        let mut found = BTreeSet::new();
        // What begins as `first` does comes after its beginning: little is listed that lies before it.
        let beginning = first.char_indices().next_back().map(|(at, _)| &first[..at]).unwrap_or_default();
        let mut after = Key::new(format!("{folder}{beginning}")).ok();
        loop {
            let page = self.sink.list(&folder, after.as_ref()).await?;
            let full = page.len() >= PAGE;
            after = page.last().map(|entry| entry.key.clone());
            for entry in page {
                let name = entry.key.as_str().strip_prefix(&folder).unwrap_or_default();
                if last.is_some_and(|last| name > last) {
                    return Ok(found);
                }
                if name >= first {
                    found.insert(name.to_owned());
                }
            }
            if !full {
                return Ok(found);
            }
        }
    }

    /// Whether the past of a timeline with a higher number is archived.
    ///
    /// # Errors
    /// Those of the sink.
    pub(super) async fn has_timeline_after(&self, timeline: TimelineId) -> Result<bool> {
        let after = Key::new(format!("{}z", layout::wal_folder(self.system, timeline))).ok();
        // In each folder the history comes first.
        let page = self.sink.list(&layout::wal_system(self.system), after.as_ref()).await?;
        Ok(page.iter().any(|entry| {
            let name = entry.key.as_str().rsplit('/').next().unwrap_or_default();
            matches!(WalFile::parse(name), Ok(WalFile::History(_)))
        }))
    }

    /// Every whole segment that is archived, of all timelines.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn segments(&self) -> Result<BTreeSet<Segment>> {
        let folder = layout::wal_system(self.system);
        let (mut found, mut after) = (BTreeSet::new(), None);
        loop {
            let page = self.sink.list(&folder, after.as_ref()).await?;
            let full = page.len() >= PAGE;
            after = page.last().map(|entry| entry.key.clone());
            found.extend(page.iter().filter_map(|entry| {
                match WalFile::parse(entry.key.as_str().rsplit('/').next().unwrap_or_default()) {
                    Ok(WalFile::Segment(segment)) => Some(segment),
                    _ => None,
                }
            }));
            if !full {
                return Ok(found);
            }
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut std::fs::File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup_sink::MemorySink;

    const TL: TimelineId = TimelineId(1);

    fn store() -> WalStore {
        WalStore::new(Arc::new(MemorySink::default()), Codec::default(), 7)
    }

    #[tokio::test]
    async fn a_file_comes_back_as_it_was_and_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("000000010000000000000003");
        let file = WalFile::parse("000000010000000000000003").unwrap();
        let content: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(&path, &content).unwrap();
        let store = store();
        assert_eq!(store.put_file(file, &path).await.unwrap(), Stored::Created);
        assert_eq!(store.put_file(file, &path).await.unwrap(), Stored::Same);
        std::fs::write(&path, b"other").unwrap();
        assert_eq!(store.put_file(file, &path).await.unwrap(), Stored::Different);
        assert_eq!(store.get(TL, "000000010000000000000003").await.unwrap(), Some(content));
        assert_eq!(store.get(TL, "000000010000000000000004").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_link_in_the_folder_of_the_database_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, path) = (dir.path().join("secret"), dir.path().join("00000002.history"));
        std::fs::write(&secret, "x").unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(store().put_file(WalFile::parse("00000002.history").unwrap(), &path).await.is_err());
    }

    #[tokio::test]
    async fn names_are_listed_from_the_first_on() {
        let store = store();
        let all = [
            "00000001.history",
            "000000010000000000000003",
            "000000010000000000000004",
            "000000010000000000000004.partial",
            "00000001000000000000000A",
        ];
        for name in all {
            let _ = store.put_bytes(TL, name, name.into()).await.unwrap();
        }
        let _ = store.put_bytes(TimelineId(2), "000000020000000000000004", b"x".to_vec()).await.unwrap();
        let names = async |first: &str, last| Vec::from_iter(store.names(TL, first, last).await.unwrap());
        assert_eq!(names(all[0], None).await, all);
        assert_eq!(names(all[2], None).await, all[2..]);
        assert_eq!(names(all[1], Some(all[2])).await, all[1..3]);
        assert_eq!(names("000000010000000000000100", None).await, [""; 0]);
        assert_eq!(store.segments().await.unwrap().len(), 4);
    }
}
