//! Credentials of a store, from a file of `KEY=VALUE` lines in `secrets/`. No value is ever repeated.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::{Fault, Faults, env_file, nearest};
use crate::store_url::Provider;

/// Where credentials come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// From a file in `secrets/`, such as `secrets/witness.env`.
    #[default]
    File,
    /// From the machine's own identity at its provider.
    Instance,
}

/// What a kind of store asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// What kind of store it is, in one word.
    pub(crate) kind: &'static str,
    /// The keys that it knows.
    pub(crate) known: &'static [&'static str],
    /// Which sets of them suffice; none where it may do without.
    pub(crate) wanted: &'static [&'static [&'static str]],
}

impl Asked {
    /// Of a store that asks for nothing.
    pub(crate) const NOTHING: Self = Self { kind: "file", known: &[], wanted: &[] };

    /// Of a bucket.
    pub(crate) fn by(provider: Provider) -> Self {
        let (known, wanted): (&[&str], &[&[&str]]) = match provider {
            Provider::S3 => (
                &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
                &[&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]],
            ),
            Provider::Gcs => (
                &["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY"],
                &[&["GOOGLE_SERVICE_ACCOUNT"], &["GOOGLE_SERVICE_ACCOUNT_KEY"]],
            ),
            Provider::Azure => (
                &[
                    "AZURE_STORAGE_ACCOUNT_KEY",
                    "AZURE_STORAGE_SAS_TOKEN",
                    "AZURE_CLIENT_ID",
                    "AZURE_CLIENT_SECRET",
                    "AZURE_TENANT_ID",
                ],
                &[
                    &["AZURE_STORAGE_ACCOUNT_KEY"],
                    &["AZURE_STORAGE_SAS_TOKEN"],
                    &["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"],
                ],
            ),
        };
        Self { kind: "bucket", known, wanted }
    }

    /// Reads the file. `besides` is a further remedy where it is missing.
    ///
    /// # Errors
    /// Every fault of the file.
    pub(super) fn read(&self, file: &Path, besides: Option<&str>) -> Result<BTreeMap<String, SecretString>, Faults> {
        let fault = |key: &str, expected: String, found: &str, remedy: String| Fault {
            file: file.to_owned(),
            line: None,
            key: key.to_owned(),
            expected,
            found: found.to_owned(),
            remedy,
        };
        let Self { kind, known, wanted } = *self;
        if known.is_empty() {
            return Ok(BTreeMap::new());
        }
        let missing = || {
            let mut remedy = "write them".to_owned();
            if kind == "bucket" {
                remedy += ", or set credentials = \"instance\" where this machine has an identity of its own";
            }
            if let Some(besides) = besides {
                remedy = format!("{remedy}; {besides}");
            }
            let sets = wanted.iter().map(|set| set.join(" and ")).collect::<Vec<_>>().join(", or ");
            fault("", sets, "nothing", remedy)
        };
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && wanted.is_empty() => return Ok(BTreeMap::new()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(Faults::new(vec![missing()])),
            Err(e) => {
                return Err(Faults::new(vec![fault(
                    "",
                    "a readable text file".into(),
                    &e.to_string(),
                    "check its owner and mode".into(),
                )]));
            }
        };
        let mut faults = Vec::new();
        if let Some(mode) = open_to_others(file) {
            let remedy = format!("chmod 600 {}", file.display());
            faults.push(fault("", "mode 0600".into(), &format!("{mode:04o}"), remedy));
        }
        let mut values = match env_file::parse(&text, file) {
            Ok(values) => values,
            Err(more) => {
                faults.extend(more.iter().cloned());
                return Err(Faults::new(faults));
            }
        };
        values.retain(|_, value| !value.is_empty());
        for key in values.keys().filter(|key| !known.contains(&key.as_str())) {
            let remedy = nearest::suggestion(key, known);
            faults.push(fault(key, format!("a key that {kind} knows"), "another one", remedy));
        }
        if !wanted.is_empty() && !wanted.iter().any(|set| set.iter().all(|key| values.contains_key(*key))) {
            faults.push(missing());
        }
        // The one credential that is a file of its own.
        if let Some(name) = values.remove(ACCOUNT_FILE) {
            let path = beside(file, &name);
            match std::fs::read_to_string(&path) {
                Ok(json) if open_to_others(&path).is_none() => {
                    values.insert("GOOGLE_SERVICE_ACCOUNT_KEY".to_owned(), json);
                }
                read => {
                    let found = read.map_or_else(|e| e.to_string(), |_| "one that others can read".to_owned());
                    let remedy = format!("put the key of the service account there: {}", path.display());
                    faults.push(fault(ACCOUNT_FILE, "a file in secrets/, mode 0600".into(), &found, remedy));
                }
            }
        }
        if !faults.is_empty() {
            return Err(Faults::new(faults));
        }
        Ok(values.into_iter().map(|(key, value)| (key, SecretString::from(value))).collect())
    }
}

const ACCOUNT_FILE: &str = "GOOGLE_SERVICE_ACCOUNT";

/// The file of a service account's key, where the file of credentials names one.
pub(super) fn account_file(file: &Path) -> Option<PathBuf> {
    let values = env_file::parse(&std::fs::read_to_string(file).ok()?, file).ok()?;
    values.get(ACCOUNT_FILE).filter(|name| !name.is_empty()).map(|name| beside(file, name))
}

fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new(".")).join(name)
}

/// The mode of a file that others may read.
pub(super) fn open_to_others(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}
