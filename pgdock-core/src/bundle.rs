//! [`Bundle`]: a versioned package of a node's configuration, and its way to the node.
//!
//! ```text
//!  operator's folder                 .pgdock/images, a registry            HOME/bundles on the node
//!  cluster.toml shared/ n1/ ──build──▶ image n1v1 (one layer: ──update──▶  DIGEST/…    never changed again
//!  secrets/ */env/: never            the archive)      │                  current ─▶ DIGEST
//!                                      push ◀──────────┘                  history.json
//! ```
//!
//! The archive is a tar of `bundle.json`, `cluster.toml`, `shared/` and the node's own folder. The same files make the
//! same bytes, and so the same digest, by which the bundle is known everywhere.
//!
//! On the node a bundle is unpacked beside the others, tried on the node's own PostgreSQL, and then switched to in one
//! step. It is *proven* once PostgreSQL has started or reloaded with it; where PostgreSQL does not start with one that is
//! not, the agent goes back to the one before.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub mod deliver;
pub mod diff;
mod digest;
mod image;
pub mod install;
mod layout;
pub mod ledger;
mod manifest;
mod path;
#[cfg(feature = "registry")]
pub mod registry;
mod scan;
pub mod store;
mod tar;

pub use digest::Digest;
pub use image::{Image, Source};
pub use manifest::{FORMAT, Listed, Manifest};
#[cfg(feature = "registry")]
pub use registry::{Registry, RegistryConfig};
pub use store::Store;

use crate::settings::{Faults, Files, Place, Settings, parse_at};
use crate::{Error, NodeName, Result};
use tar::File;

/// A node's configuration, as it was built. Cheap to clone.
#[derive(Clone)]
pub struct Bundle {
    manifest: Manifest,
    files: Arc<BTreeMap<String, File>>,
    archive: Bytes,
    digest: Digest,
}

impl Bundle {
    /// Builds a node's bundle from the folder that the settings were read from.
    ///
    /// # Errors
    /// `Invalid`, with all that is wrong: a line that looks as if it held a secret, a link, a file that is too large.
    pub fn build(settings: &Settings, node: &NodeName) -> Result<Self> {
        settings.node(node)?;
        if let Some(whose) = &settings.bundle {
            return Err(Error::invalid(format!("this folder is an installed bundle of {whose}"))
                .hint("build from the folder that it was built from"));
        }
        let files = layout::read(&settings.dir, node)?;
        scan::check(&settings.dir, &files).map_err(Faults::into_error)?;
        Self::pack(Manifest::of(&settings.cluster.name, node, &files), files)
    }

    fn pack(manifest: Manifest, files: BTreeMap<String, File>) -> Result<Self> {
        let archive = tar::write(&manifest.render()?, &files);
        Ok(Self { digest: Digest::of(&archive), manifest, files: Arc::new(files), archive: archive.into() })
    }

    /// Reads an archive. Nothing is believed of it but what [`archive`](Self::archive) could have said.
    ///
    /// # Errors
    /// `Invalid` when it is cut, changed, of a newer format, or holds what no bundle holds: names that lead elsewhere,
    /// links, devices, a name twice.
    pub fn from_archive(archive: impl Into<Bytes>) -> Result<Self> {
        let archive = archive.into();
        let (list, files) = tar::read(&archive)?;
        let manifest = Manifest::read(&list, &files)?;
        Ok(Self { digest: Digest::of(&archive), manifest, files: Arc::new(files), archive })
    }

    /// Reads one that was unpacked, and sees that nobody has changed it.
    ///
    /// # Errors
    /// `Invalid` when a file is missing or not what the list says.
    pub(crate) fn from_unpacked(dir: &Path) -> Result<Self> {
        let read = |path: &str| {
            let at = dir.join(path);
            let is_file = std::fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_file());
            std::fs::read(&at).ok().filter(|_| is_file).ok_or_else(|| {
                Error::invalid(format!("a file of an installed bundle is missing. file={}", at.display()))
                    .hint("install it anew: `pgdock config update`")
            })
        };
        let list = read(tar::LIST)?;
        let listed: Manifest = serde_json::from_slice(&list).map_err(|e| {
            Error::invalid(format!("the list of an installed bundle cannot be read. dir={}", dir.display())).because(e)
        })?;
        let mut files = BTreeMap::new();
        for file in &listed.files {
            if let Some(why) = path::fault(&file.path) {
                return Err(Error::invalid(format!("the list of an installed bundle names an odd file: {why}")));
            }
            files.insert(file.path.clone(), File { runs: file.mode == "0755", bytes: read(&file.path)? });
        }
        Self::pack(Manifest::read(&list, &files)?, files)
    }

    /// Whose it is, and what is in it.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The digest of its archive: its name.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The archive.
    #[must_use]
    pub fn archive(&self) -> &Bytes {
        &self.archive
    }

    /// What a file of it holds.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|file| file.bytes.as_slice())
    }

    /// The text of `bundle.json`: the first entry of the archive.
    fn list(&self) -> Vec<u8> {
        // It was rendered, or found to be as rendered, when the bundle was made.
        self.manifest.render().unwrap_or_default()
    }

    /// What it sets, for looking at: paths in it lead nowhere.
    ///
    /// # Errors
    /// `Invalid` with all faults.
    pub fn settings(&self) -> Result<Settings> {
        let files: BTreeMap<_, _> = self.files.iter().map(|(path, file)| (path.clone(), file.bytes.clone())).collect();
        let text = files.get("cluster.toml").map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default();
        let place = Place::folder(&Path::new("/").join(self.manifest.node.as_str()));
        parse_at(&text, &place, Files::Given(&files)).map_err(Faults::into_error)
    }
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle")
            .field("node", &self.manifest.node)
            .field("digest", &self.digest)
            .field("bytes", &self.archive.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
