//! [`Difference`]: what differs between two bundles: settings, lines of `pg_hba.conf`, files.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Bundle;
use crate::{NodeName, Result};

/// The longest text that is shown line by line, in lines.
const LINES_MAX: usize = 2_000;

/// What differs between two bundles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What PostgreSQL would be set to, by name: before and after.
    pub settings: BTreeMap<String, (Option<String>, Option<String>)>,
    /// Lines of `pg_hba.conf` that are only in the first.
    pub hba_removed: Vec<String>,
    /// Lines of `pg_hba.conf` that are only in the second.
    pub hba_added: Vec<String>,
    /// The same lines, in another order: the first one that fits decides.
    pub hba_moved: bool,
    /// Files that differ, by path; those of the node's own folder begin with `NODE/`.
    pub files: BTreeMap<String, FileChange>,
}

/// How a file differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum FileChange {
    /// Only in the second.
    Added,
    /// Only in the first.
    Removed,
    /// In both.
    Changed {
        /// The lines of a text that are only in one of both: `-` before those of the first, `+` before those of the second.
        lines: Vec<String>,
    },
}

impl Difference {
    /// Compares two bundles, also those of two nodes.
    ///
    /// # Errors
    /// `Invalid` when the settings of one of them cannot be read.
    pub fn between(old: &Bundle, new: &Bundle) -> Result<Self> {
        let effective = |bundle: &Bundle| -> Result<_> {
            let settings = bundle.settings()?;
            let node = settings.node(&bundle.manifest().node)?;
            Ok((node.settings.clone(), node.hba.clone()))
        };
        let ((old_settings, old_hba), (new_settings, new_hba)) = (effective(old)?, effective(new)?);
        let names: BTreeSet<_> = old_settings.keys().chain(new_settings.keys()).collect();
        let settings = names
            .into_iter()
            .filter(|name| old_settings.get(*name) != new_settings.get(*name))
            .map(|name| (name.clone(), (old_settings.get(name).cloned(), new_settings.get(name).cloned())))
            .collect();
        let only = |these: &[String], those: &[String]| -> Vec<_> {
            these.iter().filter(|line| !those.contains(line)).cloned().collect()
        };
        let (hba_removed, hba_added) = (only(&old_hba, &new_hba), only(&new_hba, &old_hba));
        let hba_moved = hba_removed.is_empty() && hba_added.is_empty() && old_hba != new_hba;
        Ok(Self { settings, hba_removed, hba_added, hba_moved, files: files(old, new) })
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn files(old: &Bundle, new: &Bundle) -> BTreeMap<String, FileChange> {
    let named = |bundle: &Bundle| -> BTreeMap<String, (bool, Vec<u8>)> {
        let name = |path: &str, node: &NodeName| match path.strip_prefix(&format!("{node}/")) {
            Some(below) => format!("NODE/{below}"),
            None => path.to_owned(),
        };
        let node = &bundle.manifest().node;
        bundle.files.iter().map(|(path, file)| (name(path, node), (file.runs, file.bytes.clone()))).collect()
    };
    let (old, new) = (named(old), named(new));
    let paths: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let change = |path: &String| match (old.get(path), new.get(path)) {
        (Some(_), None) => Some(FileChange::Removed),
        (None, Some(_)) => Some(FileChange::Added),
        (Some(a), Some(b)) if a != b => Some(FileChange::Changed { lines: lines(a, b) }),
        _ => None,
    };
    paths.into_iter().filter_map(|path| Some((path.clone(), change(path)?))).collect()
}

/// The lines that are only in one of both, in order: those of the longest common part are left out.
fn lines((old_runs, old): &(bool, Vec<u8>), (new_runs, new): &(bool, Vec<u8>)) -> Vec<String> {
    let mut shown = Vec::new();
    if old_runs != new_runs {
        let mode = |runs: bool| if runs { "can be run" } else { "cannot be run" };
        shown.extend([format!("- ({})", mode(*old_runs)), format!("+ ({})", mode(*new_runs))]);
    }
    let (Ok(old), Ok(new)) = (std::str::from_utf8(old), std::str::from_utf8(new)) else { return shown };
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    if old.len().max(new.len()) > LINES_MAX {
        return shown;
    }
    // common[i][j]: the length of the longest common part of what follows line i of one and line j of the other.
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            shown.push(format!("- {}", old[i]));
            i += 1;
        } else {
            shown.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    shown
}
