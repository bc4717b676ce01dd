//! [`Place`]: where the things lie that settings name.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::{Error, NodeName, Result};

/// The file that tells that a folder is an installed bundle.
const BUNDLE_FILE: &str = "bundle.json";

/// Where the things lie that settings name. In an operator's folder all of it is that folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The folder of `cluster.toml`, `shared/` and the nodes' folders.
    pub(crate) dir: PathBuf,
    /// The folder of secrets.
    pub(crate) secrets: PathBuf,
    /// Where relative paths begin that lead outside: the nodes' root, a witness that is a file.
    pub(crate) base: PathBuf,
    /// For an installed bundle: whose it is, and that node's home.
    pub(crate) bundle: Option<(NodeName, PathBuf)>,
}

/// As much of `bundle.json` as it takes to know whose it is.
#[derive(Deserialize)]
struct Whose {
    node: NodeName,
}

impl Place {
    /// An operator's folder.
    pub(crate) fn folder(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), secrets: dir.join("secrets"), base: dir.to_owned(), bundle: None }
    }

    /// A folder as it is found: an installed bundle lies in `HOME/bundles`, its secrets in `HOME/secrets`.
    pub(crate) fn of(dir: &Path) -> Result<Self> {
        match whose(dir)? {
            None => Ok(Self::folder(dir)),
            Some(node) => {
                let home = home_of(dir);
                Ok(Self {
                    dir: dir.to_owned(),
                    secrets: home.join("secrets"),
                    base: home.clone(),
                    bundle: Some((node, home)),
                })
            }
        }
    }

    /// A bundle that is installed on the machine of the operator's folder, where that one still holds the secrets.
    pub(crate) fn beside(dir: &Path, folder: &Path) -> Result<Self> {
        let Some(node) = whose(dir)? else {
            return Err(Error::invalid(format!("this is no installed bundle. path={}", dir.display())));
        };
        Ok(Self { dir: dir.to_owned(), bundle: Some((node, home_of(dir))), ..Self::folder(folder) })
    }

    /// A path of the settings. One that begins with `secrets/` leads to the secrets, any other relative one begins at
    /// the folder of `cluster.toml`.
    pub(crate) fn resolve(&self, path: &str) -> PathBuf {
        match Path::new(path).strip_prefix("secrets") {
            Ok(below) => clean(&self.secrets.join(below)),
            Err(_) => clean(&self.dir.join(path)),
        }
    }

    /// A path that leads outside of the folder, such as the nodes' root.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        clean(&self.base.join(path))
    }
}

/// The node's home, of a folder `HOME/bundles/NAME`.
fn home_of(dir: &Path) -> PathBuf {
    dir.parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_owned()
}

fn clean(path: &Path) -> PathBuf {
    path.components().filter(|c| *c != Component::CurDir).collect()
}

fn whose(dir: &Path) -> Result<Option<NodeName>> {
    let file = dir.join(BUNDLE_FILE);
    match std::fs::read(&file) {
        Ok(bytes) => {
            let whose: Whose = serde_json::from_slice(&bytes).map_err(|e| {
                Error::invalid(format!("this is not the list of a bundle. file={}", file.display()))
                    .because(e)
                    .hint("install the bundle anew: `pgdock config update`")
            })?;
            Ok(Some(whose.node))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::invalid(format!("the bundle's list is not readable. file={}", file.display())).because(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_bundle_takes_its_secrets_from_the_home() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("bundles/current");
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(Place::of(&dir).unwrap(), Place::folder(&dir));
        std::fs::write(dir.join("bundle.json"), r#"{"format": 1, "node": "n1", "more": []}"#).unwrap();
        let place = Place::of(&dir).unwrap();
        assert_eq!(place.resolve("secrets/failover.env"), home.path().join("secrets/failover.env"));
        assert_eq!(place.resolve("./shared/failover/failover.sh"), dir.join("shared/failover/failover.sh"));
        assert_eq!(place.outside("var"), home.path().join("var"));
        assert_eq!(place.bundle.as_ref().map(|(_, home)| home.as_path()), Some(home.path()));

        let beside = Place::beside(&dir, Path::new("/srv/pg")).unwrap();
        assert_eq!(beside.resolve("secrets/a"), Path::new("/srv/pg/secrets/a"));
        assert_eq!(beside.resolve("shared/a"), dir.join("shared/a"));
        assert_eq!(beside.outside("witness/main.json"), Path::new("/srv/pg/witness/main.json"));
        assert!(Place::beside(home.path(), Path::new("/srv/pg")).is_err());
    }
}
