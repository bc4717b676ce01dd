//! [`Name`]: the names of objects in an archive, and what they mean.

use jiff::Timestamp;

use super::label::{Label, compact, parse_compact};
use crate::TimelineId;
use crate::backup_sink::Key;
use crate::{Error, Result};

/// What stands before the version of the layout and all that is told here: the archive's own folder.
pub const VERSION: &str = "v1";
/// The names of everything that belongs to base backups begin so.
pub const BASE: &str = "base/";
/// The names of all archived WAL begin so.
pub const WAL: &str = "wal/";
/// The names of all results of verifications begin so.
pub const VERIFIED: &str = "verified/";

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// That a backup was begun.
    Begun(Label),
    /// A pack of files' content, by its number.
    Data(Label, u32),
    /// A part of the index, by its number.
    Index(Label, u32),
    /// What the backup is; the last of its objects to be written, the first to be deleted.
    Manifest(Label),
    /// Something of the archive of WAL, by the name of its file there.
    Wal {
        /// The number that all copies of one cluster share.
        system: u64,
        /// The timeline of the segment; of a history, the one that it is the history of.
        timeline: TimelineId,
        /// A segment, a part of one, or a history. See the module of WAL.
        file: String,
    },
    /// What a verification of a backup found, and when it ended.
    Verified(Label, Timestamp),
}

impl Name {
    /// The object's name in the sink.
    ///
    /// # Errors
    /// `Invalid` for a WAL file with a name that no object can have.
    pub fn key(&self) -> Result<Key> {
        Key::new(match self {
            Self::Begun(label) => format!("{BASE}{label}/begun"),
            Self::Data(label, n) => format!("{BASE}{label}/data/{n:08}"),
            Self::Index(label, n) => format!("{BASE}{label}/index/{n:06}"),
            Self::Manifest(label) => format!("{BASE}{label}/manifest"),
            Self::Wal { system, timeline, file } => format!("{}{file}", wal_folder(*system, *timeline)),
            Self::Verified(label, at) => format!("{VERIFIED}{label}/{}", compact(*at)),
        })
    }

    /// What an object is by its name; `None` where it is nothing that this version writes.
    #[must_use]
    pub fn parse(key: &Key) -> Option<Self> {
        let parts: Vec<&str> = key.as_str().split('/').collect();
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let name = match parts[..] {
            ["base", label, "begun"] => Self::Begun(label.parse().ok()?),
            ["base", label, "manifest"] => Self::Manifest(label.parse().ok()?),
            ["base", label, "data", n] => Self::Data(label.parse().ok()?, number(n)?),
            ["base", label, "index", n] => Self::Index(label.parse().ok()?, number(n)?),
            ["wal", system, timeline, file] => Self::Wal {
                system: system.parse().ok()?,
                timeline: TimelineId(u32::from_str_radix(timeline, 16).ok()?),
                file: file.to_owned(),
            },
            ["verified", label, at] => Self::Verified(label.parse().ok()?, parse_compact(at)?),
            _ => return None,
        };
        // There is one name for each thing: `1` for `00000001` would be a stranger's.
        name.key().is_ok_and(|own| own == *key).then_some(name)
    }

    /// The backup that it belongs to, if it belongs to one.
    #[must_use]
    pub fn label(&self) -> Option<&Label> {
        match self {
            Self::Begun(label)
            | Self::Data(label, _)
            | Self::Index(label, _)
            | Self::Manifest(label)
            | Self::Verified(label, _) => Some(label),
            Self::Wal { .. } => None,
        }
    }
}

/// The names of everything that a base backup consists of begin so.
#[must_use]
pub fn base_folder(label: &Label) -> String {
    format!("{BASE}{label}/")
}

/// The names of the results of a backup's verifications begin so.
#[must_use]
pub fn verified_folder(label: &Label) -> String {
    format!("{VERIFIED}{label}/")
}

/// The names of all WAL of a database system begin so.
#[must_use]
pub fn wal_system(system: u64) -> String {
    format!("{WAL}{system:020}/")
}

/// The names of all WAL of a timeline begin so.
#[must_use]
pub fn wal_folder(system: u64, timeline: TimelineId) -> String {
    format!("{}{:08X}/", wal_system(system), timeline.0)
}

/// The archive's own folder in the store: one for each cluster and version of the layout.
///
/// # Errors
/// `Invalid` where the cluster's name cannot be part of an object's name.
pub fn root(cluster: &str) -> Result<String> {
    let root = format!("{cluster}/{VERSION}/");
    Key::new(format!("{root}x")).map(|_| root).map_err(|_| {
        Error::invalid(format!("the cluster's name cannot be part of an object's name. cluster={cluster:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_both_ways() {
        let label: Label = "20261130T231500Z-9f01c2aa".parse().unwrap();
        let wal =
            |file: &str| Name::Wal { system: 7_575_757_575_757_575_757, timeline: TimelineId(26), file: file.into() };
        for (name, text) in [
            (Name::Begun(label.clone()), "base/20261130T231500Z-9f01c2aa/begun"),
            (Name::Data(label.clone(), 7), "base/20261130T231500Z-9f01c2aa/data/00000007"),
            (Name::Index(label.clone(), 123), "base/20261130T231500Z-9f01c2aa/index/000123"),
            (Name::Manifest(label.clone()), "base/20261130T231500Z-9f01c2aa/manifest"),
            (Name::Verified(label.clone(), label.begins()), "verified/20261130T231500Z-9f01c2aa/20261130T231500Z"),
            (wal("0000001A0000000000000001"), "wal/07575757575757575757/0000001A/0000001A0000000000000001"),
            (wal("0000001A.history"), "wal/07575757575757575757/0000001A/0000001A.history"),
            (
                wal("0000001A0000000000000001+00012000"),
                "wal/07575757575757575757/0000001A/0000001A0000000000000001+00012000",
            ),
        ] {
            let key = name.key().unwrap();
            assert_eq!(key.as_str(), text);
            assert_eq!(Name::parse(&key), Some(name));
        }
    }

    #[test]
    fn strangers_are_not_taken_for_ours() {
        for text in [
            "base/20261130T231500Z-9f01c2aa/data/7",
            "base/20261130T231500Z-9f01c2aa/data/0000000x",
            "base/20261130T231500Z-9f01c2aa/other",
            "base/other/manifest",
            "wal/7/0000001A/x",
            "wal/07575757575757575757/0000001a/x",
            "verified/20261130T231500Z-9f01c2aa/now",
            "readme",
        ] {
            assert_eq!(Name::parse(&text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn a_cluster_has_a_folder_of_its_own() {
        assert_eq!(root("main").unwrap(), "main/v1/");
        for bad in ["", "..", "ä"] {
            assert!(root(bad).is_err());
        }
    }
}
