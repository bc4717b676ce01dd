//! Restoring a base backup into a fresh directory, and what PostgreSQL needs to recover from it.
//!
//! Every object is proven before a byte of it is written, and every file and folder is on disk before this ends with success. The
//! control file gets its name last: no server starts on what is not whole.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::base::Progress;
use super::base::walk::CONTROL;
use super::frame::Codec;
use super::index::{self, Line, Pack};
use super::manifest::Manifest;
use super::object::blocking;
use crate::backup_sink::BackupSink;
use crate::postgres::os_user::OsUser;
use crate::{Error, Result};

pub mod choose;
mod files;
pub mod reach;
pub mod recovery;

pub use choose::{Reach, Target, choose};
pub use reach::reach;
pub use recovery::{Action, Recovery};

/// Under what name the control file lies until all else is done.
const CONTROL_UNTIL: &str = "global/pg_control.pgdock-restoring";

/// Where a backup is restored to.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The data directory. It must not exist, or be an empty folder.
    pub data: PathBuf,
    /// Where tablespaces go, by their numbers. One that is not named goes to where it was.
    pub tablespaces: BTreeMap<u32, PathBuf>,
    /// Who is to own all of it; nobody means whoever restores it.
    pub owner: Option<OsUser>,
    /// How many packs are fetched and unpacked at a time.
    pub processes: usize,
}

/// Fetches all of a backup, and writes what recovery needs.
///
/// # Errors
/// `Conflict` when there is something in the place; `Invalid` with the object's name when one is damaged, missing, or not the one that the
/// backup was made of; those of the sink and of the disk. What was written until then stays, and does not start.
pub async fn restore(
    sink: Arc<dyn BackupSink>,
    codec: &Codec,
    manifest: &Manifest,
    to: &Destination,
    recovery: &Recovery,
    progress: &watch::Sender<Progress>,
) -> Result<()> {
    let settings = recovery.settings(manifest)?;
    progress.send_replace(Progress { total: manifest.plain, ..Progress::default() });
    let places = Arc::new(files::Places::prepare(manifest, to)?);
    let mut work = JoinSet::new();
    let most = to.processes.max(1) * 2;
    for number in 0..manifest.index.len() {
        let number = u32::try_from(number).map_err(|_| Error::invalid("the index of the backup is too long"))?;
        let lines = index::load(&*sink, codec, manifest, number).await?;
        let (packs, others): (Vec<Line>, Vec<Line>) = lines.into_iter().partition(|line| matches!(line, Line::Pack(_)));
        // A file comes before the packs that hold it, in this chunk or in an earlier one.
        let count = others.iter().filter(|line| matches!(line, Line::File { .. })).count() as u64;
        let making = places.clone();
        blocking(move || others.iter().try_for_each(|line| making.make(line))).await?;
        progress.send_modify(|p| p.files += count);
        for pack in packs {
            let Line::Pack(pack) = pack else { continue };
            if work.len() >= most {
                joined(work.join_next().await)?;
            }
            let (sink, codec, places, label) = (sink.clone(), codec.clone(), places.clone(), manifest.label.clone());
            let progress = progress.clone();
            work.spawn(async move {
                let (stored, plain) = (pack.stored, pack.parts.iter().map(|part| part.length).sum::<u64>());
                unpack(&*sink, codec, &label, pack, places).await?;
                progress.send_modify(|p| {
                    p.done += plain;
                    p.stored += stored;
                });
                Ok(())
            });
        }
    }
    while !work.is_empty() {
        joined(work.join_next().await)?;
    }
    progress.send_modify(|p| p.settling = true);
    let (label, own) = (manifest.backup_label.clone(), to.clone());
    blocking(move || {
        places.write("backup_label", label.as_bytes())?;
        places.write_tablespace_map()?;
        places.add_settings(&settings)?;
        places.write("recovery.signal", b"")?;
        places.sync(own.processes.max(1))?;
        places.rename(CONTROL_UNTIL, CONTROL)
    })
    .await
}

fn joined(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match ended {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(died)) => Err(Error::internal("a task of the restore died").because(died)),
    }
}

async fn unpack(
    sink: &dyn BackupSink,
    codec: Codec,
    label: &super::Label,
    pack: Pack,
    places: Arc<files::Places>,
) -> Result<()> {
    let (key, stored) = fetch_pack(sink, label, &pack).await?;
    blocking(move || {
        let mut writer = files::PartWriter::new(&places, &pack);
        open_pack(&codec, &key, &pack, stored, &mut |content| writer.write(content))?;
        writer.finish()
    })
    .await
    .map_err(|e| if e.to_string().contains("key=") { e } else { e.at(format_args!("label={label}")) })
}

/// Fetches a pack as it is stored, and proves that it is the one that the index names.
pub(super) async fn fetch_pack(
    sink: &dyn BackupSink,
    label: &super::Label,
    pack: &Pack,
) -> Result<(crate::backup_sink::Key, Vec<u8>)> {
    use crate::backup_sink::BackupSinkExt;
    let key = super::Name::Data(label.clone(), pack.number).key()?;
    let found = super::object::patiently(|| sink.get_bytes(&key, pack.stored)).await?;
    let stored = found.ok_or_else(|| Error::invalid(format!("an object of the backup is missing. key={key}")))?;
    Ok((key, stored))
}

/// Proves a pack, and hands its content over, frame by frame. It works on the caller's thread.
pub(super) fn open_pack(
    codec: &Codec,
    key: &crate::backup_sink::Key,
    pack: &Pack,
    mut stored: Vec<u8>,
    each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    if stored.len() as u64 != pack.stored || super::Digest::of(&stored) != pack.digest {
        return Err(Error::invalid(format!(
            "an object of the archive is damaged: it is not what the backup's index names. key={key}"
        )));
    }
    let mut decoder = super::Decoder::new(codec, key)?;
    let (mut rest, mut content) = (&mut stored[..], Vec::new());
    loop {
        if let Some(found) = decoder.content() {
            let length: u64 = pack.parts.iter().map(|part| part.length).sum();
            return if rest.is_empty() && found.plain_len == length {
                Ok(())
            } else {
                Err(Error::invalid(format!(
                    "an object of the archive has not the length that the backup's index names. key={key}"
                )))
            };
        }
        let cut_off = || Error::invalid(format!("an object of the archive is damaged: it is cut off. key={key}"));
        let (now, later) = rest.split_at_mut_checked(decoder.wants()).ok_or_else(cut_off)?;
        decoder.take(now, &mut content)?;
        rest = later;
        if !content.is_empty() {
            each(&content)?;
            content.clear();
        }
    }
}
