//! [`expire`]: deletes what no rule keeps and no kept backup needs.
//!
//! Manifests go first: without one there is no backup, whatever is left of it. Only then its other objects, what
//! interrupted backups left, and the WAL that nothing needs. So at each moment every backup that is listed is whole,
//! and whoever begins again goes on where it was interrupted.

use futures_util::stream::{self, TryStreamExt as _};
use jiff::Timestamp;
use serde::Serialize;

use super::label::{Label, parse_compact};
use super::layout::{self, Name};
use super::retention::{Candidate, Plan, Stock, UNFINISHED_AGE, WalLimit};
use super::{Catalog, Repository};
use crate::Result;
use crate::backup_sink::{BackupSink, Entry, Key, PAGE, probe};

/// How many deletions are under way at once.
const AT_ONCE: usize = 16;

/// How much was deleted, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// Backups that are listed no more.
    pub backups: u64,
    /// Backups that never ended, of which something was left.
    pub leftovers: u64,
    /// Files of WAL.
    pub wal_files: u64,
    /// All objects, those of WAL among them.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What there is, as far as retention looks at it. `claimed` is the backup that is known to be under way.
///
/// # Errors
/// Those of the sink.
pub async fn stock(repository: &Repository, claimed: Option<Label>) -> Result<Stock> {
    let catalog = Catalog::load(repository.sink.as_ref(), &repository.codec).await?;
    let backups = catalog.backups.into_iter().map(|backup| Candidate {
        damaged: backup.verified.is_some_and(|report| !report.good()),
        label: backup.manifest.label,
        system: backup.manifest.system_identifier,
        timeline: backup.manifest.timeline,
        start: backup.manifest.start,
        segment_bytes: backup.manifest.wal_segment_bytes,
    });
    Ok(Stock {
        backups: backups.collect(),
        unfinished: catalog.unfinished,
        unreadable: catalog.unreadable.into_iter().map(|(label, _)| label).collect(),
        claimed,
    })
}

/// Carries a plan out.
///
/// # Errors
/// Those of the sink. What was deleted until then is; the next run goes on.
pub async fn expire(sink: &dyn BackupSink, plan: &Plan, now: Timestamp) -> Result<Deleted> {
    Work { sink, dry: false, now, deleted: Deleted::default() }.all(plan).await
}

/// What carrying a plan out would delete. Nothing is changed.
///
/// # Errors
/// Those of the sink.
pub async fn survey(sink: &dyn BackupSink, plan: &Plan, now: Timestamp) -> Result<Deleted> {
    Work { sink, dry: true, now, deleted: Deleted::default() }.all(plan).await
}

struct Work<'a> {
    sink: &'a dyn BackupSink,
    dry: bool,
    now: Timestamp,
    deleted: Deleted,
}

impl Work<'_> {
    async fn all(mut self, plan: &Plan) -> Result<Deleted> {
        for label in &plan.expire {
            self.deleted.backups += 1;
            if !self.dry {
                self.sink.delete(&Name::Manifest(label.clone()).key()?).await?;
                self.deleted.objects += 1;
            }
        }
        for label in &plan.expire {
            self.remains(label).await?;
        }
        for label in &plan.sweep {
            self.deleted.leftovers += 1;
            self.remains(label).await?;
        }
        if !plan.wal.is_empty() {
            self.wal(&plan.wal).await?;
        }
        self.probes().await?;
        Ok(self.deleted)
    }

    /// All objects of a backup. That it was begun goes last: as long as anything is left, it is known whose it is.
    async fn remains(&mut self, label: &Label) -> Result<()> {
        let begun = Name::Begun(label.clone()).key()?;
        for folder in [layout::base_folder(label), layout::verified_folder(label)] {
            let mut after = None;
            while let Some(page) = self.page(&folder, &mut after).await? {
                self.delete(page.into_iter().filter(|entry| entry.key != begun).collect()).await?;
            }
        }
        let last = self.sink.list(begun.as_str(), None).await?.into_iter().filter(|entry| entry.key == begun);
        self.delete(last.collect()).await
    }

    /// Names are in order of timelines and segments: in each timeline what is not needed comes first.
    async fn wal(&mut self, limit: &WalLimit) -> Result<()> {
        let mut after: Option<Key> = None;
        loop {
            let page = self.sink.list(layout::WAL, after.as_ref()).await?;
            let full = page.len() >= PAGE;
            let Some(last) = page.last().map(|entry| entry.key.clone()) else { return Ok(()) };
            let mut unneeded = Vec::new();
            let mut skip_to = None;
            for entry in page {
                let Some(Name::Wal { system, timeline, file }) = Name::parse(&entry.key) else { continue };
                if !limit.needs(system, timeline, &file) {
                    unneeded.push(entry);
                } else if full && limit.is_past(system, timeline, &file) {
                    // The rest of this timeline is needed: on with the next one.
                    skip_to = Some(Key::new(format!("{}z", layout::wal_folder(system, timeline)))?);
                    break;
                }
            }
            self.deleted.wal_files += unneeded.len() as u64;
            self.delete(unneeded).await?;
            if !full {
                return Ok(());
            }
            after = Some(skip_to.unwrap_or(last));
        }
    }

    /// Objects that stores were tried with, and whose process was killed.
    async fn probes(&mut self) -> Result<()> {
        let age = jiff::SignedDuration::try_from(UNFINISHED_AGE).unwrap_or(jiff::SignedDuration::MAX);
        let now = self.now;
        let is_old = |entry: &Entry| {
            let stamp = entry.key.as_str().strip_prefix(probe::PREFIX).and_then(|name| name.get(..16));
            stamp.and_then(parse_compact).is_some_and(|at| now.duration_since(at) > age)
        };
        let mut after = None;
        while let Some(page) = self.page(probe::PREFIX, &mut after).await? {
            self.delete(page.into_iter().filter(is_old).collect()).await?;
        }
        Ok(())
    }

    /// The next page of a list; nothing at its end.
    async fn page(&self, prefix: &str, after: &mut Option<Key>) -> Result<Option<Vec<Entry>>> {
        let page = self.sink.list(prefix, after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(None) };
        *after = Some(last.key.clone());
        Ok(Some(page))
    }

    async fn delete(&mut self, entries: Vec<Entry>) -> Result<()> {
        self.deleted.objects += entries.len() as u64;
        self.deleted.bytes += entries.iter().map(|entry| entry.size).sum::<u64>();
        if self.dry {
            return Ok(());
        }
        let sink = self.sink;
        stream::iter(entries.into_iter().map(Ok))
            .try_for_each_concurrent(AT_ONCE, |entry| async move { sink.delete(&entry.key).await })
            .await
    }
}

#[cfg(test)]
mod tests;
