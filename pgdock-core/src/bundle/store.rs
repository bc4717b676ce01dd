//! [`Store`]: the images that were built, in a folder of the operator's (OCI image layout 1.1). Other tools, such as
//! `skopeo copy oci:.pgdock/images:n1v1 …`, read it as well.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::image::{Descriptor, Image, JSON_MAX, MANIFEST};
use super::tar::ARCHIVE_MAX;
use crate::durable::{Staged, create_folder};
use crate::{Error, NodeName, Result};

/// What the file `oci-layout` says.
pub(super) const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const REF: &str = "org.opencontainers.image.ref.name";

/// A folder of images.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What [`Store::put`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The tag is new.
    New,
    /// The tag stood for just this already.
    Same,
    /// The tag stood for something else, which keeps its digest.
    Replaced,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    manifests: Vec<Descriptor>,
}

impl Store {
    /// The store beside a `cluster.toml`: the folder `.pgdock/images`.
    #[must_use]
    pub fn beside(dir: &Path) -> Self {
        Self { dir: dir.join(".pgdock").join("images") }
    }

    /// The store in a folder.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join("sha256").join(digest.hex())
    }

    /// Keeps an image under a tag.
    ///
    /// # Errors
    /// `Conflict` when the tag stands for another bundle, and `replace` was not asked for; `Internal` when it cannot be
    /// written.
    pub fn put(&self, image: &Image, tag: &str, replace: bool) -> Result<Put> {
        check_tag(tag)?;
        let failed = |e: std::io::Error| {
            Error::internal(format!("the image cannot be kept. dir={}", self.dir.display())).because(e)
        };
        let blobs = self.dir.join("blobs").join("sha256");
        create_folder(&blobs, 0o755).map_err(failed)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(self.dir.join("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        if let Some(above) = self.dir.parent() {
            // Even where the folder's own .gitignore was written by somebody else.
            keep(&above.join(".gitignore"), b"*\n").map_err(failed)?;
        }
        keep(&self.dir.join("oci-layout"), LAYOUT.as_bytes()).map_err(failed)?;
        let mut index = self.index()?;
        let found = index.manifests.iter().position(|m| m.annotations.get(REF).map(String::as_str) == Some(tag));
        let put = match found {
            Some(at) if index.manifests[at].digest == image.digest() => Put::Same,
            Some(_) if !replace => {
                return Err(Error::conflict(format!("the tag stands for another bundle already. tag={tag}"))
                    .hint("choose the next one, so that one can go back to this")
                    .hint("`--replace` has the tag stand for the new one"));
            }
            Some(at) => {
                index.manifests.remove(at);
                Put::Replaced
            }
            None => Put::New,
        };
        for bytes in [image.bundle.archive().as_ref(), image.config(), image.manifest()] {
            keep(&self.blob(&Digest::of(bytes)), bytes).map_err(failed)?;
        }
        if put != Put::Same {
            let mut entry = Descriptor::of(MANIFEST, image.manifest());
            entry.annotations.insert(REF.to_owned(), tag.to_owned());
            index.schema_version = 2;
            index.manifests.push(entry);
            let text = serde_json::to_vec_pretty(&index)
                .map_err(|e| Error::internal("the list of images cannot be written").because(e))?;
            write(&self.dir.join("index.json"), &text).map_err(failed)?;
        }
        Ok(put)
    }

    /// The image of a tag, every byte checked.
    ///
    /// # Errors
    /// `Invalid` when there is none, with those that there are; or when it was damaged.
    pub async fn get(&self, tag: &str) -> Result<Image> {
        check_tag(tag)?;
        let index = self.index()?;
        let Some(entry) = index.manifests.iter().find(|m| m.annotations.get(REF).map(String::as_str) == Some(tag))
        else {
            let known: Vec<_> = index.manifests.iter().filter_map(|m| m.annotations.get(REF)).cloned().collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(",") };
            return Err(Error::invalid(format!("there is no image of this tag. tag={tag}, known={known}"))
                .hint("`pgdock config build` makes one, `pgdock config pull` fetches one"));
        };
        self.read(entry).await
    }

    async fn read(&self, entry: &Descriptor) -> Result<Image> {
        let manifest = self.bytes(entry, JSON_MAX)?;
        if Digest::of(&manifest) != entry.digest {
            return Err(Error::invalid(format!("an image that is kept was damaged. digest={}", entry.digest))
                .hint("build or pull it anew, with --replace"));
        }
        Image::unpack(manifest, async |what| self.bytes(what, ARCHIVE_MAX)).await
    }

    fn bytes(&self, what: &Descriptor, max: usize) -> Result<Vec<u8>> {
        let path = self.blob(&what.digest);
        let gone = |e: std::io::Error| {
            Error::invalid(format!("a part of an image that is kept is missing. file={}", path.display()))
                .because(e)
                .hint("build or pull it anew, with --replace")
        };
        let size = std::fs::metadata(&path).map_err(gone)?.len();
        if size > max as u64 {
            return Err(Error::invalid(format!("a part of an image is too large. file={}", path.display())));
        }
        std::fs::read(&path).map_err(gone)
    }

    /// The tags of all images, in the order in which they were made.
    ///
    /// # Errors
    /// `Invalid` when the list cannot be read.
    pub fn tags(&self) -> Result<Vec<String>> {
        Ok(self.index()?.manifests.iter().filter_map(|m| m.annotations.get(REF)).cloned().collect())
    }

    /// The newest image that holds this bundle, and its tag.
    ///
    /// # Errors
    /// `Invalid` when the list of images cannot be read.
    pub async fn find(&self, digest: &Digest) -> Result<Option<(String, Image)>> {
        for entry in self.index()?.manifests.iter().rev() {
            let (Some(tag), Ok(image)) = (entry.annotations.get(REF), self.read(entry).await) else { continue };
            if image.bundle.digest() == digest {
                return Ok(Some((tag.clone(), image)));
            }
        }
        Ok(None)
    }

    fn index(&self) -> Result<Index> {
        let path = self.dir.join("index.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::invalid(format!("the list of images cannot be read. file={}", path.display()))
                    .because(e)
                    .hint("move the folder away: `pgdock config build` and `pull` make it anew")
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Index::default()),
            Err(e) => {
                Err(Error::invalid(format!("the list of images cannot be read. file={}", path.display())).because(e))
            }
        }
    }
}

/// Writes a file where it does not say the same already.
fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if std::fs::read(path).is_ok_and(|found| found == bytes) { Ok(()) } else { write(path, bytes) }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let staged = Staged::create(path, 0o644)?;
    staged.sweep_beside()?;
    staged.file().write_all(bytes)?;
    staged.replace().map_err(|e| e.source)
}

/// Checks the form of a tag (OCI distribution specification 1.1).
///
/// # Errors
/// `Invalid` when it is none.
pub fn check_tag(tag: &str) -> Result<()> {
    let fits = (1..=128).contains(&tag.len())
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if fits {
        return Ok(());
    }
    Err(Error::invalid(format!("this is no tag. found={tag:?}")).hint("write letters, digits, `.`, `_` and `-`: n1v1"))
}

/// The tag of one node's image that is meant by a tag given for several: `v1` means `n1v1` for n1. One that begins with a
/// node's name is that node's.
///
/// # Errors
/// `Invalid` when it is no tag, or another node's.
pub fn tag_of(tag: &str, node: &NodeName, all: &[NodeName]) -> Result<String> {
    check_tag(tag)?;
    let whose = all.iter().filter(|name| tag.starts_with(name.as_str())).max_by_key(|name| name.as_str().len());
    match whose {
        None => Ok(format!("{node}{tag}")),
        Some(owner) if owner == node => Ok(tag.to_owned()),
        Some(owner) => Err(Error::invalid(format!("this tag is one of another node's. tag={tag}, node={node}"))
            .hint(format!("name {owner} alone, or give a tag for all: v1 stands for {node}v1, {owner}v1"))),
    }
}

/// The next tag of a node, such as `n1v3` after `n1v2`.
#[must_use]
pub fn next_tag(node: &NodeName, tags: &[String]) -> String {
    let number = |tag: &String| tag.strip_prefix(node.as_str())?.strip_prefix('v')?.parse::<u32>().ok();
    format!("{node}v{}", tags.iter().filter_map(number).max().unwrap_or(0).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_belong_to_nodes() {
        let name = |n: &str| NodeName::new(n).unwrap();
        let all = [name("n1"), name("n11"), name("db")];
        assert_eq!(tag_of("v1", &all[0], &all).unwrap(), "n1v1");
        assert_eq!(tag_of("n1v1", &all[0], &all).unwrap(), "n1v1");
        assert_eq!(tag_of("n11v1", &all[1], &all).unwrap(), "n11v1");
        assert!(tag_of("n11v1", &all[0], &all).is_err());
        assert!(tag_of("n1v1", &all[2], &all).is_err());
        for bad in ["", "-a", "a/b", "a:b", "a b", "ä", &"x".repeat(129)] {
            assert!(tag_of(bad, &all[0], &all).is_err(), "{bad}");
        }
        let tags = ["n1v2", "n11v7", "n1v10", "n1vx", "v3"].map(str::to_owned);
        assert_eq!(next_tag(&all[0], &tags), "n1v11");
        assert_eq!(next_tag(&all[2], &tags), "dbv1");
    }
}
