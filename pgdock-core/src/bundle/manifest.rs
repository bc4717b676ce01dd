//! [`Manifest`]: `bundle.json`, the first file of a bundle. It says whose it is, and lists what is in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::path;
use super::tar::File;
use crate::{Error, NodeName, Result};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// What `bundle.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The node that it is made for.
    pub node: NodeName,
    /// Every other file, by name.
    pub files: Vec<Listed>,
}

/// A file, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its path.
    pub path: String,
    /// Its permission bits, in octal.
    pub mode: String,
    /// How long it is, in bytes.
    pub size: u64,
    /// What it holds.
    pub digest: Digest,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Manifest {
    /// Lists files.
    pub(super) fn of(cluster: &str, node: &NodeName, files: &BTreeMap<String, File>) -> Self {
        let files = files.iter().map(|(path, file)| listed(path, file)).collect();
        Self { format: FORMAT, cluster: cluster.to_owned(), node: node.clone(), files }
    }

    /// The text of `bundle.json`.
    pub(super) fn render(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::internal("the list of a bundle cannot be written").because(e))?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads a `bundle.json`, and sees that it lists just these files.
    pub(super) fn read(list: &[u8], files: &BTreeMap<String, File>) -> Result<Self> {
        let bad = |e: serde_json::Error| Error::invalid("the list of the bundle cannot be read").because(e);
        let Format { format } = serde_json::from_slice(list).map_err(bad)?;
        if format > FORMAT {
            return Err(Error::invalid(format!(
                "the bundle is of a newer format. found={format}, newest known={FORMAT}"
            ))
            .hint("update pgdock on this machine"));
        }
        let manifest: Self = serde_json::from_slice(list).map_err(bad)?;
        if manifest.render()? != list {
            return Err(Error::invalid("the list of the bundle is not written as pgdock writes it"));
        }
        let mut listed_paths = manifest.files.iter();
        for (path, file) in files {
            if path::is_kept_out(path) {
                return Err(Error::invalid(format!("the bundle holds what no bundle may hold. file={path}")));
            }
            match listed_paths.next() {
                Some(found) if *found == listed(path, file) => {}
                Some(found) if found.path == *path => {
                    return Err(Error::invalid(format!("a file of the bundle is not as it is listed. file={path}"))
                        .hint("send it anew, or build it anew"));
                }
                _ => return Err(Error::invalid(format!("the bundle's list and its files differ. file={path}"))),
            }
        }
        match listed_paths.next() {
            None => Ok(manifest),
            Some(missing) => Err(Error::invalid(format!("a file of the bundle is missing. file={}", missing.path))),
        }
    }
}

fn listed(path: &str, file: &File) -> Listed {
    Listed {
        path: path.to_owned(),
        mode: format!("{:04o}", file.mode()),
        size: file.bytes.len() as u64,
        digest: Digest::of(&file.bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> BTreeMap<String, File> {
        let file = |text: &str| File { runs: false, bytes: text.as_bytes().to_vec() };
        [("cluster.toml".to_owned(), file("a")), ("n1/x".to_owned(), file("b"))].into()
    }

    fn manifest() -> Manifest {
        Manifest::of("main", &NodeName::new("n1").unwrap(), &files())
    }

    fn refused(list: &[u8], files: &BTreeMap<String, File>, why: &str) {
        let error = Manifest::read(list, files).unwrap_err().to_string();
        assert!(error.contains(why), "expected {why}, found {error}");
    }

    #[test]
    fn a_list_that_differs_from_the_files_is_refused() {
        let list = manifest().render().unwrap();
        assert_eq!(Manifest::read(&list, &files()).unwrap(), manifest());
        let mut other = files();
        other.get_mut("n1/x").unwrap().bytes.push(b'!');
        refused(&list, &other, "not as it is listed");
        let mut other = files();
        other.get_mut("n1/x").unwrap().runs = true;
        refused(&list, &other, "not as it is listed");
        let mut other = files();
        other.remove("n1/x");
        refused(&list, &other, "missing");
        let mut other = files();
        other.insert("n1/y".to_owned(), File { runs: false, bytes: Vec::new() });
        refused(&list, &other, "differ");
        for secret in ["secrets/agent.token", "n1/env/main", "shared/env/wale"] {
            let mut other = files();
            other.insert(secret.to_owned(), File { runs: false, bytes: Vec::new() });
            let list = Manifest::of("main", &NodeName::new("n1").unwrap(), &other).render().unwrap();
            refused(&list, &other, "no bundle may hold");
        }
        refused(b"{\"format\": 2, \"of\": \"the future\"}", &files(), "newer format");
        refused(b"[]", &files(), "cannot be read");
        refused(&[list.as_slice(), b" "].concat(), &files(), "as pgdock writes it");
    }
}
