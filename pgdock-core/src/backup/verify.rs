//! Whether a base backup restores: by reading it, or by doing it.
//!
//! Level 1 ([`read_all`]) reads every object of a backup, and the WAL that it needs, and compares all digests: what a restore would read.
//! Level 2 ([`boot`](boot::boot)) restores it into a scratch directory, recovers, and looks at the data.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::base::Progress;
use super::frame::Codec;
use super::index::{self, Line, Pack};
use super::label::Label;
use super::layout::Name;
use super::manifest::Manifest;
use super::object::{self, Stored, blocking};
use super::restore::{fetch_pack, open_pack};
use crate::backup_sink::BackupSink;
use crate::{Error, ErrorKind, Lsn, Result, TimelineId};

pub mod boot;

pub use boot::{Boot, Scratch};

/// How many problems a report tells.
const PROBLEMS: usize = 100;
/// How many verifications of a backup that end at the same time find places.
const SECONDS: usize = 30;
/// The most bytes of a report.
const BYTES_MAX: usize = 4 << 20;

/// How a backup was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Its objects and the WAL that it needs were read, and their digests compared.
    Digests,
    /// It was restored, recovered, and looked at.
    Boot,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The backup.
    pub label: Label,
    /// When it ended.
    pub at: Timestamp,
    /// How it was done.
    pub level: Level,
    /// How many objects were read.
    pub objects: u64,
    /// How many bytes they have in the store.
    pub bytes: u64,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// How far recovery went.
    pub reached: Option<Reached>,
    /// What the user's own queries printed.
    pub printed: Vec<String>,
    /// What is wrong. Nothing means that the backup is good.
    pub problems: Vec<String>,
}

/// How far recovery went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The end of the WAL that was replayed.
    pub lsn: Lsn,
    /// The timeline that recovery went along.
    pub timeline: TimelineId,
    /// The time of the last commit in it, as PostgreSQL shows it; nothing where there was none.
    pub last_commit: Option<String>,
}

impl Report {
    /// Whether the backup is good.
    #[must_use]
    pub fn good(&self) -> bool {
        self.problems.is_empty()
    }

    /// Puts it into the archive, where the list of backups shows it. Where another one ended in the same second, this one is noted
    /// for the next.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn save(&mut self, sink: &dyn BackupSink, codec: &Codec) -> Result<()> {
        for _ in 0..SECONDS {
            let key = Name::Verified(self.label.clone(), self.at).key()?;
            let text =
                serde_json::to_vec_pretty(self).map_err(|e| Error::internal("cannot write a report").because(e))?;
            match object::store_patiently(sink, codec, &key, &object::encode(codec, &key, &text)?).await? {
                Stored::Created | Stored::Same => return Ok(()),
                Stored::Different => self.at += jiff::SignedDuration::from_secs(1),
            }
        }
        Err(Error::conflict(format!("too many verifications ended at the same time. label={}", self.label)))
    }

    /// Reads one; `None` where there is none, or it is damaged: then the backup counts as not verified.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn load(sink: &dyn BackupSink, codec: &Codec, name: &Name) -> Result<Option<Self>> {
        match object::fetch_patiently(sink, codec, &name.key()?, BYTES_MAX).await {
            Ok(text) => Ok(text.and_then(|text| serde_json::from_slice(&text).ok())),
            Err(error) if error.kind() == ErrorKind::Invalid => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What reading a backup found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadAll {
    /// How many objects were read.
    pub objects: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// What is wrong, each with the name of the object.
    pub problems: Vec<String>,
}

impl ReadAll {
    fn problem(&mut self, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::Invalid {
            // The store does not answer: that tells nothing of the backup.
            return Err(error);
        }
        if self.problems.len() < PROBLEMS {
            self.problems.push(error.chain());
        }
        Ok(())
    }
}

/// Reads every object of a backup and the WAL from its start to its stop, several at a time, and compares all digests. Whatever is wrong is
/// told; nothing stops at the first.
///
/// # Errors
/// Those of the sink.
pub async fn read_all(
    sink: Arc<dyn BackupSink>,
    codec: &Codec,
    manifest: &Manifest,
    processes: usize,
    progress: &watch::Sender<Progress>,
) -> Result<ReadAll> {
    progress.send_replace(Progress { total: manifest.plain, ..Progress::default() });
    let mut found = ReadAll::default();
    let mut work: JoinSet<Result<u64>> = JoinSet::new();
    let most = processes.max(1) * 2;
    let mut packs = 0;
    for number in 0..manifest.index.len() {
        let number = u32::try_from(number).map_err(|_| Error::invalid("the index of the backup is too long"))?;
        let lines = match index::load(&*sink, codec, manifest, number).await {
            Ok(lines) => lines,
            Err(error) => {
                found.problem(error)?;
                continue;
            }
        };
        found.objects += 1;
        for line in lines {
            let Line::Pack(pack) = line else { continue };
            packs += 1;
            if work.len() >= most {
                settle(&mut found, work.join_next().await)?;
            }
            let (sink, codec, label, progress) =
                (sink.clone(), codec.clone(), manifest.label.clone(), progress.clone());
            work.spawn(async move {
                let plain: u64 = pack.parts.iter().map(|part| part.length).sum();
                let stored = read_pack(&*sink, codec, &label, pack).await?;
                progress.send_modify(|p| {
                    p.done += plain;
                    p.stored += stored;
                });
                Ok(stored)
            });
        }
    }
    for key in needed_wal(manifest)? {
        if work.len() >= most {
            settle(&mut found, work.join_next().await)?;
        }
        let (sink, codec, bytes) = (sink.clone(), codec.clone(), manifest.wal_segment_bytes);
        work.spawn(async move {
            let content = object::patiently(|| object::inspect(&*sink, &codec, &key)).await?;
            match content {
                Some(content) if content.plain_len == bytes => Ok(bytes),
                Some(content) => Err(Error::invalid(format!(
                    "a segment of WAL has a wrong size. key={key}, size={}",
                    content.plain_len
                ))),
                None => Err(Error::invalid(format!("a segment of WAL that the backup needs is missing. key={key}"))),
            }
        });
    }
    while !work.is_empty() {
        settle(&mut found, work.join_next().await)?;
    }
    if packs != manifest.packs && found.problems.is_empty() {
        found.problem(Error::invalid(format!("the index names {packs} packs, and the manifest {}", manifest.packs)))?;
    }
    Ok(found)
}

fn settle(found: &mut ReadAll, ended: Option<Result<Result<u64>, tokio::task::JoinError>>) -> Result<()> {
    match ended {
        None => Ok(()),
        Some(Ok(Ok(bytes))) => {
            found.objects += 1;
            found.bytes += bytes;
            Ok(())
        }
        Some(Ok(Err(error))) => found.problem(error),
        Some(Err(died)) => Err(Error::internal("a task of the verification died").because(died)),
    }
}

/// Proves a pack and each part of it.
async fn read_pack(sink: &dyn BackupSink, codec: Codec, label: &Label, pack: Pack) -> Result<u64> {
    let (key, stored) = fetch_pack(sink, label, &pack).await?;
    blocking(move || {
        let mut parts = pack.parts.iter();
        let (mut part, mut done, mut hasher) = (parts.next(), 0, blake3::Hasher::new());
        open_pack(&codec, &key, &pack, stored, &mut |mut content| {
            while let Some(now) = part.filter(|_| !content.is_empty()) {
                let take = usize::try_from(now.length - done).unwrap_or(usize::MAX).min(content.len());
                hasher.update(&content[..take]);
                (done, content) = (done + take as u64, &content[take..]);
                if done == now.length {
                    if now.digest != hasher.finalize().into() {
                        return Err(Error::invalid(format!(
                            "a file of the backup is not what was written. path={}, key={key}",
                            now.path
                        )));
                    }
                    hasher.reset();
                    (part, done) = (parts.next(), 0);
                }
            }
            Ok(())
        })?;
        Ok(pack.stored)
    })
    .await
}

/// The names of the segments that a backup cannot be recovered without.
fn needed_wal(manifest: &Manifest) -> Result<Vec<crate::backup_sink::Key>> {
    let bytes = manifest.wal_segment_bytes;
    if bytes == 0 || manifest.stop < manifest.start {
        return Err(Error::invalid(format!("the manifest of the backup contradicts itself. label={}", manifest.label)));
    }
    let in_log = (1 << 32) / bytes;
    // A backup that ends where a segment begins needs nothing of that one.
    let last = manifest.stop.0.saturating_sub(1).max(manifest.start.0) / bytes;
    (manifest.start.0 / bytes..=last)
        .map(|number| {
            let file = format!("{:08X}{:08X}{:08X}", manifest.timeline.0, number / in_log, number % in_log);
            Name::Wal { system: manifest.system_identifier, timeline: manifest.timeline, file }.key()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::sample;

    #[tokio::test]
    async fn two_reports_of_one_second_are_both_kept() {
        let (sink, codec) = (crate::backup_sink::MemorySink::new(), Codec::default());
        let manifest = sample(1_000, 1, 1, 2);
        let report = |problems: &[&str]| Report {
            label: manifest.label.clone(),
            at: manifest.ended,
            level: Level::Digests,
            objects: 1,
            bytes: 1,
            seconds: 1,
            reached: None,
            printed: Vec::new(),
            problems: problems.iter().map(ToString::to_string).collect(),
        };
        let (mut good, mut bad) = (report(&[]), report(&["a flipped bit"]));
        good.save(&sink, &codec).await.unwrap();
        bad.save(&sink, &codec).await.unwrap();
        assert!(bad.at > good.at && good.good() && !bad.good());
        for wanted in [good, bad] {
            let name = Name::Verified(wanted.label.clone(), wanted.at);
            assert_eq!(Report::load(&sink, &codec, &name).await.unwrap(), Some(wanted));
        }
    }

    #[test]
    fn segments_are_named_as_postgresql_does() {
        let manifest = sample(1, 0x1A, 0xF_FEFF_FFFF, 0x10_0100_0000);
        let names: Vec<String> = needed_wal(&manifest).unwrap().into_iter().map(String::from).collect();
        let folder = "wal/07575757575757575757/0000001A/";
        let expected = ["0000001A0000000F000000FE", "0000001A0000000F000000FF", "0000001A0000001000000000"];
        assert_eq!(names, expected.map(|name| format!("{folder}{name}")));
    }
}
