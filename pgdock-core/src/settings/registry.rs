//! `[registry]`: where bundles of configuration are pushed to and pulled from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;

use super::section::Section;
use super::{Place, env_file};
use crate::Result;

/// `[registry]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrySettings {
    /// `repository`: host, port and name, such as `registry.example.com:5000/team/pgdock`.
    pub repository: String,
    /// `tls`: whether it is reached by TLS.
    pub tls: bool,
    /// `ca`: the authority that signs its certificate, instead of those that the system trusts.
    pub ca: Option<PathBuf>,
    /// `env_file`: the file of `REGISTRY_USER` and `REGISTRY_PASSWORD`, where it asks for them; `secrets/registry.env`.
    pub env_file: PathBuf,
}

impl RegistrySettings {
    /// Another repository, with the defaults for all else: credentials are still looked for in the folder's secrets.
    #[must_use]
    pub fn named(repository: &str, secrets: &std::path::Path) -> Self {
        Self { repository: repository.to_owned(), tls: true, ca: None, env_file: secrets.join("registry.env") }
    }

    /// User and password; nothing where there is no file.
    ///
    /// # Errors
    /// `Invalid` with every fault of the file. Values are never repeated.
    pub fn user(&self) -> Result<Option<(String, SecretString)>> {
        if !self.env_file.exists() {
            return Ok(None);
        }
        let mut values: BTreeMap<_, _> = env_file::read(&self.env_file)?;
        let pair = (values.remove("REGISTRY_USER"), values.remove("REGISTRY_PASSWORD"));
        Ok(match pair {
            (Some(user), Some(password)) => Some((user, password.into())),
            _ => None,
        })
    }
}

pub(super) fn read(section: Section<'_>, place: &Place) -> Option<RegistrySettings> {
    if !section.exists() {
        return None;
    }
    let repository = section.required("repository", "registry.example.com:5000/team/pgdock").to_owned();
    if !repository.is_empty() && (repository.contains("://") || repository.contains('@') || !repository.contains('/')) {
        section.fault(
            "repository",
            "host, port and name, without scheme and user",
            format!("{repository:?}"),
            "write registry.example.com:5000/team/pgdock; user and password go into secrets/registry.env",
        );
    }
    let settings = RegistrySettings {
        repository,
        tls: section.boolean("tls", true),
        ca: section.text("ca").map(|path| place.resolve(path)),
        env_file: place.resolve(section.text("env_file").unwrap_or("secrets/registry.env")),
    };
    section.end();
    Some(settings)
}
