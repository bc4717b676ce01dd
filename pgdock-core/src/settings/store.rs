//! [`StoreSettings`]: how to get at a store: the keys that `[witness]` and `[backup]` have in common.

use std::path::PathBuf;

use super::Place;
use super::credentials::{self, Credentials, open_to_others};
use super::section::{Reader, Section};
use crate::store_url::Provider;

/// How to get at a store, beside its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// `endpoint`: the URL of a store that is not the provider's own.
    pub endpoint: Option<String>,
    /// `region`: of the bucket; Amazon's need one.
    pub region: Option<String>,
    /// `account`: the storage account, on Azure.
    pub account: Option<String>,
    /// `tls`: whether the store is reached by TLS.
    pub tls: bool,
    /// `ca`: the authority that signs the store's certificate, instead of those that the system trusts.
    pub ca: Option<PathBuf>,
    /// `credentials`: where they come from.
    pub credentials: Credentials,
    /// The file of credentials in `secrets/`.
    pub credentials_file: PathBuf,
}

impl StoreSettings {
    /// The defaults, with the file of credentials.
    #[must_use]
    pub fn new(credentials_file: PathBuf) -> Self {
        Self {
            endpoint: None,
            region: None,
            account: None,
            tls: true,
            ca: None,
            credentials: Credentials::default(),
            credentials_file,
        }
    }

    /// The files that are needed where the store is used, as far as they are there.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.ca.iter().cloned().collect();
        if self.credentials_file.exists() {
            files.push(self.credentials_file.clone());
            files.extend(credentials::account_file(&self.credentials_file));
        }
        files
    }

    pub(super) fn read(section: &Section<'_>, place: &Place, credentials_file: &str) -> Self {
        Self {
            endpoint: section.text("endpoint").map(str::to_owned),
            region: section.text("region").map(str::to_owned),
            account: section.text("account").map(str::to_owned),
            tls: section.boolean("tls", true),
            ca: section.text("ca").map(|path| place.resolve(path)),
            credentials: section.choice(
                "credentials",
                &[("file", Credentials::File), ("instance", Credentials::Instance)],
                Credentials::File,
            ),
            credentials_file: place.secrets.join(credentials_file),
        }
    }

    /// Whether a bucket has what it needs, and its endpoint its form.
    pub(super) fn fits(&self, provider: Option<Provider>, section: &Section<'_>) {
        let name = section.name();
        if provider == Some(Provider::S3) && self.endpoint.is_none() && self.region.is_none() {
            section.fault(
                "region",
                "the region of the bucket",
                "nothing",
                format!("add region = \"eu-central-1\" to [{name}]; or endpoint, where it is not Amazon's"),
            );
        }
        if provider == Some(Provider::Azure) && self.account.is_none() {
            section.fault("account", "the storage account", "nothing", format!("add account = \"…\" to [{name}]"));
        }
        let Some(endpoint) = &self.endpoint else { return };
        let (scheme, other) = if self.tls { ("https", "http") } else { ("http", "https") };
        let place = endpoint.strip_prefix(&format!("{scheme}://"));
        if endpoint.contains('@') {
            let file = self.credentials_file.file_name().unwrap_or_default().display();
            let remedy = format!("write credentials into secrets/{file}");
            section.fault("endpoint", "a URL without user", "one with a user", remedy);
        } else if endpoint.starts_with(&format!("{other}://")) {
            let remedy = if self.tls { "set tls = false, where nobody else is on the way" } else { "remove tls" };
            section.fault("endpoint", format!("{scheme}://…, as tls = {}", self.tls), format!("{other}://…"), remedy);
        } else if place.is_none_or(str::is_empty) {
            section.fault("endpoint", format!("{scheme}://HOST:PORT"), "another form", "correct it");
        }
    }
}

/// Notes a fault for each key that does not belong to this kind of store: `kinds` names those it belongs to.
pub(super) fn belong(reader: &Reader, section: &Section<'_>, (scheme, kind): (&str, &str), keys: &[(&str, &[&str])]) {
    for (name, kinds) in keys {
        if reader.has(&section.key(name)) && !kinds.contains(&scheme) {
            let expected = format!("nothing: it belongs to a url of {}", kinds.join(", "));
            section.fault(name, expected, format!("it beside a url of {kind}"), "remove it");
        }
    }
}

/// Whether files in PEM format are there, and a private key is one's own.
pub(super) fn check_pem(section: &Section<'_>, files: &[(&'static str, &Option<PathBuf>)]) {
    for (name, path) in files {
        let Some(path) = path else { continue };
        match std::fs::read(path) {
            Err(e) => section.fault(
                name,
                "a readable file in PEM format",
                format!("{} ({e})", path.display()),
                "put it there, or correct the path",
            ),
            Ok(_) if *name == "key" && open_to_others(path).is_some() => section.fault(
                name,
                "a file that nobody else can read",
                path.display().to_string(),
                format!("chmod 600 {}", path.display()),
            ),
            Ok(_) => {}
        }
    }
}
