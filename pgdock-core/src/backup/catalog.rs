//! [`Catalog`]: which base backups there are.

use std::collections::BTreeMap;

use super::frame::Codec;
use super::label::Label;
use super::layout::{self, Name};
use super::manifest::Manifest;
use super::verify::Report;
use crate::backup_sink::{BackupSink, BackupSinkExt, Key, PAGE};
use crate::{Error, ErrorKind, Result};

/// The base backups of an archive, oldest first.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Those that ended, and can be restored as far as their manifests tell.
    pub backups: Vec<Backup>,
    /// Those that were begun and have no manifest: under way, failed, or being deleted.
    pub unfinished: Vec<Label>,
    /// Those whose manifest cannot be read, with the reason.
    pub unreadable: Vec<(Label, Error)>,
}

/// A base backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// What it says of itself.
    pub manifest: Manifest,
    /// What the latest verification found.
    pub verified: Option<Report>,
}

impl Catalog {
    /// Looks at what there is. Takes a few requests for each backup, whatever its size.
    ///
    /// # Errors
    /// Those of the sink.
    pub async fn load(sink: &dyn BackupSink, codec: &Codec) -> Result<Self> {
        let mut verified = latest_reports(sink).await?;
        let mut catalog = Self::default();
        for label in labels(sink).await? {
            let manifest = match Manifest::load(sink, codec, &label).await {
                Ok(Some(manifest)) => manifest,
                Ok(None) => {
                    catalog.unfinished.push(label);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Invalid => {
                    catalog.unreadable.push((label, error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let verified = match verified.remove(&label) {
                Some(name) => Report::load(sink, codec, &name).await?,
                None => None,
            };
            catalog.backups.push(Backup { manifest, verified });
        }
        Ok(catalog)
    }

    /// The manifests of those that ended.
    #[must_use]
    pub fn manifests(&self) -> Vec<Manifest> {
        self.backups.iter().map(|backup| backup.manifest.clone()).collect()
    }

    /// A backup by its label, or the newest one.
    ///
    /// # Errors
    /// `Invalid` where there is none.
    pub fn find(&self, label: Option<&Label>) -> Result<&Backup> {
        match label {
            None => self.backups.last().ok_or_else(|| {
                Error::invalid("there is no backup in the archive").hint("take one with `pgdock backup create`")
            }),
            Some(label) => self.backups.iter().find(|backup| backup.manifest.label == *label).ok_or_else(|| {
                let unreadable =
                    self.unreadable.iter().find(|(other, _)| other == label).map(|(_, error)| error.chain());
                let message = match unreadable {
                    Some(why) => format!("the backup cannot be used: {why}"),
                    None if self.unfinished.contains(label) => format!("the backup never ended. label={label}"),
                    None => format!("there is no such backup. label={label}"),
                };
                Error::invalid(message).hint("`pgdock backup list` shows what there is")
            }),
        }
    }
}

/// The labels of everything that was begun, in order.
///
/// # Errors
/// Those of the sink.
pub async fn labels(sink: &dyn BackupSink) -> Result<Vec<Label>> {
    let mut found: Vec<Label> = Vec::new();
    let mut after: Option<Key> = None;
    loop {
        let page = sink.list(layout::BASE, after.as_ref()).await?;
        let full = page.len() >= PAGE;
        for entry in &page {
            let name = Name::parse(&entry.key);
            if let Some(label) = name.as_ref().and_then(Name::label)
                && found.last() != Some(label)
            {
                found.push(label.clone());
            }
        }
        // A backup may have very many packs: on with what follows them.
        after = match (full, page.last()) {
            (true, Some(last)) => Some(skip(&last.key)?),
            _ => return Ok(found),
        };
    }
}

/// A name behind everything that belongs to the same backup.
fn skip(last: &Key) -> Result<Key> {
    match last.as_str().splitn(3, '/').collect::<Vec<_>>()[..] {
        [base, label, _] => Key::new(format!("{base}/{label}/z")),
        _ => Ok(last.clone()),
    }
}

/// The newest result of a verification, by backup.
async fn latest_reports(sink: &dyn BackupSink) -> Result<BTreeMap<Label, Name>> {
    let mut latest = BTreeMap::new();
    for entry in sink.list_all(layout::VERIFIED).await? {
        if let Some(name @ Name::Verified(..)) = Name::parse(&entry.key)
            && let Some(label) = name.label()
        {
            // In order, so that the last one is the newest.
            latest.insert(label.clone(), name);
        }
    }
    Ok(latest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::sample;
    use crate::backup::object;
    use crate::backup_sink::MemorySink;

    async fn put(sink: &MemorySink, name: &Name, content: &[u8]) {
        let (codec, key) = (Codec::default(), name.key().unwrap());
        let _ = object::store(sink, &codec, &key, &object::encode(&codec, &key, content).unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn whole_backups_are_told_from_others() {
        let sink = MemorySink::new();
        let [first, second, third, fourth] = [1_000, 2_000, 3_000, 4_000].map(|at| sample(at, 1, 1, 2));
        for manifest in [&first, &third, &fourth] {
            put(&sink, &Name::Manifest(manifest.label.clone()), &manifest.to_bytes().unwrap()).await;
        }
        for label in [&first.label, &second.label] {
            put(&sink, &Name::Begun(label.clone()), b"x").await;
            // More than a page of the list, so that packs are passed by.
            for number in 0..1_500 {
                let _ = sink.put_bytes(&Name::Data(label.clone(), number).key().unwrap(), b"x").await.unwrap();
            }
        }
        assert!(sink.spoil(&Name::Manifest(third.label.clone()).key().unwrap(), b"PGDKOBJ1".to_vec()));
        let _ = sink.put_bytes(&"base/readme".parse().unwrap(), b"x").await.unwrap();

        let catalog = Catalog::load(&sink, &Codec::default()).await.unwrap();
        assert_eq!(catalog.manifests(), [first.clone(), fourth.clone()]);
        assert_eq!(catalog.unfinished, std::slice::from_ref(&second.label));
        assert_eq!(catalog.unreadable.len(), 1);
        assert_eq!(catalog.find(None).unwrap().manifest, fourth);
        assert!(catalog.find(Some(&second.label)).unwrap_err().to_string().contains("never ended"));
        assert!(catalog.find(Some(&third.label)).unwrap_err().to_string().contains("manifest"));
    }
}
