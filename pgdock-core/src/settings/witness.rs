//! `[witness]`: the store of the document, and how to get at it. Credentials are in `secrets/witness.env`.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::parse::Files;
use super::section::{Reader, Section};
use super::{Place, env_file, nearest};
use crate::Result;
use crate::settings::{Fault, Faults};
use crate::witness::url::{self, Provider, WitnessUrl};

/// `[witness]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessSettings {
    /// `url`: where the document lives, with a path made absolute.
    pub url: WitnessUrl,
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
    /// `certificate`: what the client shows.
    pub certificate: Option<PathBuf>,
    /// `key`: its private key.
    pub key: Option<PathBuf>,
    /// `credentials`: where they come from.
    pub credentials: Credentials,
    /// `secrets/witness.env`.
    pub credentials_file: PathBuf,
    /// `probe_every`: how often an agent proves again that the store honours its conditions.
    pub probe_every: Duration,
}

/// Where credentials come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// From `secrets/witness.env`.
    #[default]
    File,
    /// From the machine's own identity at its provider.
    Instance,
}

/// How often agents prove the store again.
const PROBE_EVERY: Duration = Duration::from_secs(3_600);

impl WitnessSettings {
    /// A store with the defaults for all else. `secrets` is the folder of its credentials.
    #[must_use]
    pub fn new(url: WitnessUrl, secrets: &Path) -> Self {
        Self {
            url,
            endpoint: None,
            region: None,
            account: None,
            tls: true,
            ca: None,
            certificate: None,
            key: None,
            credentials: Credentials::default(),
            credentials_file: secrets.join("witness.env"),
            probe_every: PROBE_EVERY,
        }
    }

    /// The path of a `file:` URL.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.url {
            WitnessUrl::File(path) => Some(path),
            _ => None,
        }
    }

    /// How often the leader renews its right where the settings do not say, and how long the right lasts. Some
    /// buckets allow one write a second to one object.
    #[must_use]
    pub fn pace(&self) -> (Duration, Duration) {
        match self.url {
            WitnessUrl::Bucket { .. } => (Duration::from_secs(2), Duration::from_secs(10)),
            _ => (Duration::from_secs(1), Duration::from_secs(5)),
        }
    }

    /// Reads the credentials. Nothing where they come from elsewhere, or none are needed.
    ///
    /// # Errors
    /// `Invalid` with every fault of the file. Values are never repeated.
    pub fn read_credentials(&self) -> Result<BTreeMap<String, SecretString>> {
        self.credentials().map_err(Faults::into_error)
    }

    fn credentials(&self) -> Result<BTreeMap<String, SecretString>, Faults> {
        let file = &self.credentials_file;
        let fault = |key: &str, expected: String, found: &str, remedy: String| Fault {
            file: file.clone(),
            line: None,
            key: key.to_owned(),
            expected,
            found: found.to_owned(),
            remedy,
        };
        let (known, wanted) = keys(&self.url);
        if known.is_empty() || self.credentials == Credentials::Instance {
            return Ok(BTreeMap::new());
        }
        let missing = || {
            let remedy = if matches!(self.url, WitnessUrl::Bucket { .. }) {
                "write them, or set credentials = \"instance\" where this machine has an identity of its own"
            } else {
                "write them"
            };
            fault(
                "",
                wanted.iter().map(|set| set.join(" and ")).collect::<Vec<_>>().join(", or "),
                "nothing",
                remedy.into(),
            )
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
            faults.push(fault(key, format!("a key that {} knows", self.url.kind()), "another one", remedy));
        }
        if !wanted.is_empty() && !wanted.iter().any(|set| set.iter().all(|key| values.contains_key(*key))) {
            faults.push(missing());
        }
        // The one credential that is a file of its own.
        if let Some(name) = values.remove("GOOGLE_SERVICE_ACCOUNT") {
            let path = file.parent().unwrap_or(Path::new(".")).join(name);
            match std::fs::read_to_string(&path) {
                Ok(json) if open_to_others(&path).is_none() => {
                    values.insert("GOOGLE_SERVICE_ACCOUNT_KEY".to_owned(), json);
                }
                read => {
                    let found = read.map_or_else(|e| e.to_string(), |_| "one that others can read".to_owned());
                    let remedy = format!("put the key of the service account there: {}", path.display());
                    faults.push(fault(
                        "GOOGLE_SERVICE_ACCOUNT",
                        "a file in secrets/, mode 0600".into(),
                        &found,
                        remedy,
                    ));
                }
            }
        }
        if !faults.is_empty() {
            return Err(Faults::new(faults));
        }
        Ok(values.into_iter().map(|(key, value)| (key, SecretString::from(value))).collect())
    }
}

/// The keys of a store's credentials, and which sets of them suffice; none where it may do without.
pub(crate) fn keys(url: &WitnessUrl) -> (&'static [&'static str], &'static [&'static [&'static str]]) {
    match url {
        WitnessUrl::File(_) => (&[], &[]),
        WitnessUrl::Bucket { provider: Provider::S3, .. } => (
            &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
            &[&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]],
        ),
        WitnessUrl::Bucket { provider: Provider::Gcs, .. } => (
            &["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY"],
            &[&["GOOGLE_SERVICE_ACCOUNT"], &["GOOGLE_SERVICE_ACCOUNT_KEY"]],
        ),
        WitnessUrl::Bucket { provider: Provider::Azure, .. } => (
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
        WitnessUrl::Etcd { .. } => (&["ETCD_USER", "ETCD_PASSWORD"], &[]),
        WitnessUrl::Postgres { .. } => (&["PGPASSWORD"], &[]),
    }
}

/// The mode of a file that others may read.
fn open_to_others(path: &Path) -> Option<u32> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

pub(super) fn read(
    reader: &Reader,
    section: Section<'_>,
    place: &Place,
    cluster: &str,
    files: Files<'_>,
) -> WitnessSettings {
    let given = section.text("url").map(|url| WitnessUrl::read(url, &place.base));
    let url = match given {
        Some(Ok(url)) => url,
        Some(Err(fault)) => {
            section.fault("url", url::EXPECTED, fault.found, fault.remedy);
            WitnessUrl::File(PathBuf::new())
        }
        None => WitnessUrl::File(place.outside(&format!("witness/{cluster}.json"))),
    };
    let file = |name| section.text(name).map(|path| place.resolve(path));
    let settings = WitnessSettings {
        endpoint: section.text("endpoint").map(str::to_owned),
        region: section.text("region").map(str::to_owned),
        account: section.text("account").map(str::to_owned),
        tls: section.boolean("tls", true),
        ca: file("ca"),
        certificate: file("certificate"),
        key: file("key"),
        credentials: section.choice(
            "credentials",
            &[("file", Credentials::File), ("instance", Credentials::Instance)],
            Credentials::File,
        ),
        probe_every: section.duration("probe_every", PROBE_EVERY),
        ..WitnessSettings::new(url, &place.secrets)
    };
    if !reader.is_faulty(&["witness.url"]) {
        fits(&settings, reader, &section);
        if files == Files::Checked {
            check_files(&settings, reader, &section);
        }
    }
    section.end();
    settings
}

/// Whether the keys belong to the kind of store, and to each other.
fn fits(settings: &WitnessSettings, reader: &Reader, section: &Section<'_>) {
    let (url, has) = (&settings.url, |name: &str| reader.has(&section.key(name)));
    let is = |kinds: &[&str]| {
        let provider = match url {
            WitnessUrl::Bucket { provider, .. } => provider.scheme(),
            other => other.kind(),
        };
        kinds.contains(&provider)
    };
    for (name, kinds) in [
        ("endpoint", &["s3", "gs", "az"][..]),
        ("region", &["s3"]),
        ("account", &["az"]),
        ("tls", &["s3", "gs", "az", "etcd", "postgres"]),
        ("ca", &["s3", "gs", "az", "etcd", "postgres"]),
        ("certificate", &["etcd", "postgres"]),
        ("key", &["etcd", "postgres"]),
        ("credentials", &["s3", "gs", "az", "etcd", "postgres"]),
        ("probe_every", &["s3", "gs", "az", "etcd", "postgres"]),
    ] {
        if has(name) && !is(kinds) {
            let expected = format!("nothing: it belongs to a url of {}", kinds.join(", "));
            section.fault(name, expected, format!("it beside a url of {}", url.kind()), "remove it");
        }
    }
    if is(&["s3"]) && settings.endpoint.is_none() && settings.region.is_none() {
        section.fault(
            "region",
            "the region of the bucket",
            "nothing",
            "add region = \"eu-central-1\" to [witness]; or endpoint, where it is not Amazon's",
        );
    }
    if is(&["az"]) && settings.account.is_none() {
        section.fault("account", "the storage account", "nothing", "add account = \"…\" to [witness]");
    }
    if let Some(endpoint) = &settings.endpoint {
        let (scheme, other) = if settings.tls { ("https", "http") } else { ("http", "https") };
        let place = endpoint.strip_prefix(&format!("{scheme}://"));
        if endpoint.contains('@') {
            let remedy = "write credentials into secrets/witness.env";
            section.fault("endpoint", "a URL without user", "one with a user", remedy);
        } else if endpoint.starts_with(&format!("{other}://")) {
            let remedy = if settings.tls { "set tls = false, where nobody else is on the way" } else { "remove tls" };
            section.fault(
                "endpoint",
                format!("{scheme}://…, as tls = {}", settings.tls),
                format!("{other}://…"),
                remedy,
            );
        } else if place.is_none_or(str::is_empty) {
            section.fault("endpoint", format!("{scheme}://HOST:PORT"), "another form", "correct it");
        }
    }
    if settings.certificate.is_some() != settings.key.is_some() {
        let (name, other) = if settings.key.is_some() { ("certificate", "key") } else { ("key", "certificate") };
        section.fault(name, format!("it beside {other}"), "nothing", "add it: one is worth nothing without the other");
    }
    if is(&["postgres"]) && settings.tls && settings.ca.is_none() {
        section.fault(
            "ca",
            "the authority that signs the server's certificate",
            "nothing",
            "add ca = \"PATH\" to [witness]; or tls = false, where nobody else is on the way",
        );
    }
    if settings.credentials == Credentials::Instance && !is(&["s3", "gs", "az"]) {
        section.fault("credentials", "\"file\"", "\"instance\", which only buckets know", "remove it");
    }
    if settings.probe_every < Duration::from_secs(60) {
        section.fault("probe_every", "at least 1m", super::duration::display(settings.probe_every), "raise it");
    }
}

fn check_files(settings: &WitnessSettings, reader: &Reader, section: &Section<'_>) {
    for (name, path) in [("ca", &settings.ca), ("certificate", &settings.certificate), ("key", &settings.key)] {
        let Some(path) = path else { continue };
        match std::fs::read(path) {
            Err(e) => section.fault(
                name,
                "a readable file in PEM format",
                format!("{} ({e})", path.display()),
                "put it there, or correct the path",
            ),
            Ok(_) if name == "key" && open_to_others(path).is_some() => section.fault(
                name,
                "a file that nobody else can read",
                path.display().to_string(),
                format!("chmod 600 {}", path.display()),
            ),
            Ok(_) => {}
        }
    }
    if let Err(faults) = settings.credentials() {
        reader.faults_of(&faults);
    }
}
