//! [`Manifest`]: what a base backup says of itself. It is the last of its objects to be written: without it there is no backup.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::frame::Codec;
use super::label::Label;
use super::layout::Name;
use super::object;
use crate::backup_sink::BackupSink;
use crate::{Error, Lsn, NodeName, Result, TimelineId};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// The most bytes of a manifest.
const BYTES_MAX: usize = 64 << 20;

/// What a base backup is, and what is needed to restore it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of the manifest and of what belongs to it.
    pub format: u32,
    /// The name of the backup.
    pub label: Label,
    /// The cluster's name.
    pub cluster: String,
    /// The node whose files were copied.
    pub node: NodeName,
    /// Whether that was a standby.
    pub from_standby: bool,
    /// The number that all copies of one cluster share.
    pub system_identifier: u64,
    /// PostgreSQL's version, such as 170005 for 17.5.
    pub server_version: u32,
    /// When the backup began, by the node's calendar.
    pub began: Timestamp,
    /// When it ended: no earlier moment can be restored from it.
    pub ended: Timestamp,
    /// The timeline that all of its WAL lies on.
    pub timeline: TimelineId,
    /// Where recovery of it begins.
    pub start: Lsn,
    /// Up to where recovery must go before the data is consistent.
    pub stop: Lsn,
    /// The size of a WAL segment, in bytes.
    pub wal_segment_bytes: u64,
    /// The first transaction number that was not given out yet at the end, with its epoch.
    pub next_xid: u64,
    /// Settings that a server which recovers from it must have at least so large, and libraries that it may need.
    pub settings: BTreeMap<String, String>,
    /// Tablespaces outside the data directory.
    pub tablespaces: Vec<Tablespace>,
    /// What PostgreSQL wants to find as `backup_label`.
    pub backup_label: String,
    /// How the checks of pages went.
    pub pages: Pages,
    /// How many files it has.
    pub files: u64,
    /// How many bytes of content.
    pub plain: u64,
    /// How many bytes its packs take in the store.
    pub stored: u64,
    /// How many packs there are.
    pub packs: u32,
    /// The digests of the parts of the index, by their numbers.
    pub index: Vec<Digest>,
}

/// A tablespace outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its number, which is its name in `pg_tblspc`.
    pub oid: u32,
    /// The folder that it was in.
    pub path: String,
}

/// How the checks of pages went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages {
    /// Whether the cluster has checksums. Where not, nothing was checked.
    pub checksums: bool,
    /// How many pages were checked.
    pub checked: u64,
    /// How many had a wrong checksum, and were copied as they are because it was asked for so.
    pub damaged: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

impl Manifest {
    /// How long the backup took.
    #[must_use]
    pub fn took(&self) -> std::time::Duration {
        std::time::Duration::try_from(self.ended.duration_since(self.began)).unwrap_or_default()
    }

    /// The major version of PostgreSQL.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.server_version / 10_000
    }

    /// As the content of its object.
    ///
    /// # Errors
    /// `Internal` when it cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|e| Error::internal("cannot write a manifest").because(e))
    }

    /// From the content of the object of a backup.
    ///
    /// # Errors
    /// `Invalid` when it is not understood, or that of another backup.
    pub fn from_bytes(label: &Label, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let odd = |e| Error::invalid(format!("the manifest of a backup is not understood. label={label}")).because(e);
        // The format first: of a newer one the rest may look different.
        let Version { format } = serde_json::from_slice(bytes).map_err(odd)?;
        if format > FORMAT {
            let message =
                format!("the backup was made by a newer pgdock. label={label}, format={format}, known={FORMAT}");
            return Err(Error::invalid(message).hint("use that version, or a newer one"));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(odd)?;
        if manifest.label != *label {
            return Err(Error::invalid(format!(
                "the manifest is that of another backup. label={label}, found={}",
                manifest.label
            )));
        }
        Ok(manifest)
    }

    /// Reads that of a backup; `None` where there is none: the backup never ended, or is being deleted.
    ///
    /// # Errors
    /// Those of the sink; `Invalid` where it is damaged or not understood.
    pub async fn load(sink: &dyn BackupSink, codec: &Codec, label: &Label) -> Result<Option<Self>> {
        let key = Name::Manifest(label.clone()).key()?;
        let bytes = object::fetch_patiently(sink, codec, &key, BYTES_MAX).await?;
        bytes.map(|bytes| Self::from_bytes(label, &bytes)).transpose()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A manifest of a backup that began at that second and took ten.
    pub(crate) fn sample(second: i64, timeline: u32, start: u64, stop: u64) -> Manifest {
        let began = Timestamp::from_second(second).unwrap();
        Manifest {
            format: FORMAT,
            label: Label::new(began, 7),
            cluster: "main".into(),
            node: NodeName::new("n1").unwrap(),
            from_standby: false,
            system_identifier: 7_575_757_575_757_575_757,
            server_version: 150_018,
            began,
            ended: Timestamp::from_second(second + 10).unwrap(),
            timeline: TimelineId(timeline),
            start: Lsn(start),
            stop: Lsn(stop),
            wal_segment_bytes: 16 << 20,
            next_xid: 1_000,
            settings: BTreeMap::new(),
            tablespaces: Vec::new(),
            backup_label: "START WAL LOCATION: 0/2000028\n".into(),
            pages: Pages::default(),
            files: 1,
            plain: 2,
            stored: 3,
            packs: 1,
            index: vec![Digest::of(b"x")],
        }
    }

    #[test]
    fn text_both_ways_and_no_other() {
        let manifest = sample(1_800_000_000, 1, 100, 200);
        let bytes = manifest.to_bytes().unwrap();
        assert_eq!(Manifest::from_bytes(&manifest.label, &bytes).unwrap(), manifest);
        assert_eq!(manifest.took().as_secs(), 10);
        let other = Label::new(manifest.began, 8);
        assert!(Manifest::from_bytes(&other, &bytes).unwrap_err().to_string().contains("another backup"));
        let newer = String::from_utf8(bytes).unwrap().replace("\"format\": 1", "\"format\": 2");
        assert!(Manifest::from_bytes(&manifest.label, newer.as_bytes()).unwrap_err().to_string().contains("newer"));
        assert!(Manifest::from_bytes(&manifest.label, b"{}").is_err());
    }
}
