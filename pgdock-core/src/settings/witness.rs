//! `[witness]`: the store of the document, and how to get at it. Credentials are in `secrets/witness.env`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::Place;
use super::credentials::{Asked, Credentials};
use super::parse::Files;
use super::section::{Reader, Section};
use super::store::{StoreSettings, belong, check_pem};
use crate::Result;
use crate::settings::Faults;
use crate::witness::url::{self, WitnessUrl};

/// `[witness]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessSettings {
    /// `url`: where the document lives, with a path made absolute.
    pub url: WitnessUrl,
    /// `endpoint`, `region`, `account`, `tls`, `ca`, `credentials`: how to get at it.
    pub store: StoreSettings,
    /// `certificate`: what the client shows.
    pub certificate: Option<PathBuf>,
    /// `key`: its private key.
    pub key: Option<PathBuf>,
    /// `probe_every`: how often an agent proves again that the store honours its conditions.
    pub probe_every: Duration,
}

/// The file of its credentials.
const CREDENTIALS_FILE: &str = "witness.env";

/// How often agents prove the store again.
const PROBE_EVERY: Duration = Duration::from_secs(3_600);

impl WitnessSettings {
    /// A store with the defaults for all else. `secrets` is the folder of its credentials.
    #[must_use]
    pub fn new(url: WitnessUrl, secrets: &Path) -> Self {
        let store = StoreSettings::new(secrets.join(CREDENTIALS_FILE));
        Self { url, store, certificate: None, key: None, probe_every: PROBE_EVERY }
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
        match self.store.credentials {
            Credentials::File => asked(&self.url).read(&self.store.credentials_file, None),
            Credentials::Instance => Ok(BTreeMap::new()),
        }
    }
}

/// What a store asks for.
pub(crate) fn asked(url: &WitnessUrl) -> Asked {
    match url {
        WitnessUrl::File(_) => Asked::NOTHING,
        WitnessUrl::Bucket { provider, .. } => Asked::by(*provider),
        WitnessUrl::Etcd { .. } => Asked { kind: "etcd", known: &["ETCD_USER", "ETCD_PASSWORD"], wanted: &[] },
        WitnessUrl::Postgres { .. } => Asked { kind: "postgres", known: &["PGPASSWORD"], wanted: &[] },
    }
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
        url,
        store: StoreSettings::read(&section, place, CREDENTIALS_FILE),
        certificate: file("certificate"),
        key: file("key"),
        probe_every: section.duration("probe_every", PROBE_EVERY),
    };
    if !reader.is_faulty(&["witness.url"]) {
        fits(&settings, reader, &section);
        if files == Files::Checked {
            let named = [("ca", &settings.store.ca), ("certificate", &settings.certificate), ("key", &settings.key)];
            check_pem(&section, &named);
            if let Err(faults) = settings.credentials() {
                reader.faults_of(&faults);
            }
        }
    }
    section.end();
    settings
}

/// Whether the keys belong to the kind of store, and to each other.
fn fits(settings: &WitnessSettings, reader: &Reader, section: &Section<'_>) {
    let provider = match &settings.url {
        WitnessUrl::Bucket { provider, .. } => Some(*provider),
        _ => None,
    };
    let scheme = provider.map_or(settings.url.kind(), |provider| provider.scheme());
    let keys: [(&str, &[&str]); 9] = [
        ("endpoint", &["s3", "gs", "az"]),
        ("region", &["s3"]),
        ("account", &["az"]),
        ("tls", &["s3", "gs", "az", "etcd", "postgres"]),
        ("ca", &["s3", "gs", "az", "etcd", "postgres"]),
        ("certificate", &["etcd", "postgres"]),
        ("key", &["etcd", "postgres"]),
        ("credentials", &["s3", "gs", "az", "etcd", "postgres"]),
        ("probe_every", &["s3", "gs", "az", "etcd", "postgres"]),
    ];
    belong(reader, section, (scheme, settings.url.kind()), &keys);
    settings.store.fits(provider, section);
    if settings.certificate.is_some() != settings.key.is_some() {
        let (name, other) = if settings.key.is_some() { ("certificate", "key") } else { ("key", "certificate") };
        section.fault(name, format!("it beside {other}"), "nothing", "add it: one is worth nothing without the other");
    }
    if scheme == "postgres" && settings.store.tls && settings.store.ca.is_none() {
        section.fault(
            "ca",
            "the authority that signs the server's certificate",
            "nothing",
            "add ca = \"PATH\" to [witness]; or tls = false, where nobody else is on the way",
        );
    }
    if settings.store.credentials == Credentials::Instance && provider.is_none() {
        section.fault("credentials", "\"file\"", "\"instance\", which only buckets know", "remove it");
    }
    if settings.probe_every < Duration::from_secs(60) {
        section.fault("probe_every", "at least 1m", super::duration::display(settings.probe_every), "raise it");
    }
}
