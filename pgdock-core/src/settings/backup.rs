//! `[backup]`: where backups and WAL are kept, how, when, and for how long. Secrets are in `secrets/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

use super::credentials::{Asked, Credentials, open_to_others};
use super::parse::Files;
use super::section::{Reader, Section};
use super::store::{StoreSettings, belong, check_pem};
use super::{Faults, Place, WitnessSettings};
use crate::Result;
use crate::backup::schedule::Schedule;
use crate::backup_sink::url::{self, BackupUrl};
use crate::witness::WitnessUrl;

/// `[backup]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSettings {
    /// `url`: the store, with a path made absolute. Each cluster has a place of its own below it.
    pub url: BackupUrl,
    /// `endpoint`, `region`, `account`, `tls`, `ca`, `credentials`: how to get at it.
    pub store: StoreSettings,
    /// `encrypt`, `key_command`: whether objects are encrypted, and where the key is.
    pub key: Option<KeySource>,
    /// `compression`: zstd's level, 1 to 19.
    pub compression: u32,
    /// `wal`: how WAL gets there.
    pub wal: WalMode,
    /// `wal_every`: how often the end of the WAL is stored, where `wal = "stream"`.
    pub wal_every: Duration,
    /// `schedule`: when a backup is made. None: by hand only.
    pub schedule: Option<Schedule>,
    /// `jitter`: by how much it may be later, the same for a cluster each time.
    pub jitter: Duration,
    /// `keep`: which backups are kept.
    pub keep: Keep,
    /// `verify_query`: a file of SQL that `pgdock backup verify --boot` runs on what was restored.
    pub verify_query: Option<PathBuf>,
    /// `checksums`: what follows from a page whose checksum does not hold.
    pub checksums: BadPages,
    /// `processes`: how many objects are made or fetched at the same time.
    pub processes: u32,
}

/// Where the key of encrypted backups is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySource {
    /// A file of 64 hexadecimal digits, mode 0600: `secrets/backup.key`.
    File(PathBuf),
    /// A command line of the shell that prints them.
    Command(String),
}

/// How WAL gets to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalMode {
    /// Whole segments, as PostgreSQL archives them.
    #[default]
    Archive,
    /// The same, and what is flushed of the segment that is being written, besides.
    Stream,
}

/// What follows from a page whose checksum does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadPages {
    /// The backup fails.
    #[default]
    Fail,
    /// The backup is made, and says so.
    Warn,
}

/// Which backups are kept: each that any of the rules keeps, and always the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many.
    pub count: Option<u32>,
    /// Those that are not older.
    pub age: Option<Duration>,
    /// The newest one of each of the newest so many days that have one.
    pub daily: Option<u32>,
    /// The same with weeks, which begin on Monday.
    pub weekly: Option<u32>,
    /// The same with months.
    pub monthly: Option<u32>,
}

impl Default for Keep {
    fn default() -> Self {
        Self { count: Some(7), age: None, daily: None, weekly: None, monthly: None }
    }
}

/// The file of credentials.
const CREDENTIALS_FILE: &str = "backup.env";
/// The file of the key.
const KEY_FILE: &str = "backup.key";
const WAL_EVERY: Duration = Duration::from_secs(1);
const JITTER: Duration = Duration::from_secs(600);
/// More would only shift the day.
const JITTER_MAX: Duration = Duration::from_secs(12 * 3_600);
const KEPT_MAX: u32 = 10_000;

impl BackupSettings {
    /// A store with the defaults for all else. `secrets` is the folder of its credentials.
    #[must_use]
    pub fn new(url: BackupUrl, secrets: &Path) -> Self {
        Self {
            url,
            store: StoreSettings::new(secrets.join(CREDENTIALS_FILE)),
            key: None,
            compression: 1,
            wal: WalMode::default(),
            wal_every: WAL_EVERY,
            schedule: None,
            jitter: JITTER,
            keep: Keep::default(),
            verify_query: None,
            checksums: BadPages::default(),
            processes: 2,
        }
    }

    /// Reads the credentials. Nothing where they come from elsewhere, or none are needed.
    ///
    /// # Errors
    /// `Invalid` with every fault of the file. Values are never repeated.
    pub fn read_credentials(&self) -> Result<BTreeMap<String, SecretString>> {
        self.credentials(None).map_err(Faults::into_error)
    }

    fn credentials(&self, besides: Option<&str>) -> Result<BTreeMap<String, SecretString>, Faults> {
        match self.store.credentials {
            Credentials::File => asked(&self.url).read(&self.store.credentials_file, besides),
            Credentials::Instance => Ok(BTreeMap::new()),
        }
    }

    /// The files that a node needs of the folder's secrets, as far as they are there.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let mut files = self.store.files();
        if let Some(KeySource::File(path)) = &self.key
            && path.exists()
        {
            files.push(path.clone());
        }
        files
    }
}

/// What a store asks for.
pub(crate) fn asked(url: &BackupUrl) -> Asked {
    match url {
        BackupUrl::File(_) => Asked::NOTHING,
        BackupUrl::Bucket { provider, .. } => Asked::by(*provider),
    }
}

pub(super) fn read(
    reader: &Reader,
    section: Section<'_>,
    place: &Place,
    witness: &WitnessSettings,
    files: Files<'_>,
) -> Option<BackupSettings> {
    if !section.exists() {
        return None;
    }
    let url = match section.required("url", "s3://bucket/prefix") {
        "" => None,
        url => match BackupUrl::read(url, &place.base) {
            Ok(url) => Some(url),
            Err(fault) => {
                section.fault("url", url::EXPECTED, fault.found, fault.remedy);
                None
            }
        },
    };
    let known = url.is_some();
    let default = BackupSettings::new(url.unwrap_or(BackupUrl::File(PathBuf::new())), &place.secrets);
    let settings = BackupSettings {
        store: StoreSettings::read(&section, place, CREDENTIALS_FILE),
        key: key(&section, place),
        compression: section.integer("compression", 1..=19).unwrap_or(default.compression),
        wal: section.choice("wal", &[("archive", WalMode::Archive), ("stream", WalMode::Stream)], default.wal),
        wal_every: section.duration("wal_every", default.wal_every),
        schedule: schedule(&section, "schedule"),
        jitter: section.duration("jitter", default.jitter),
        keep: keep(&section),
        verify_query: section.text("verify_query").map(|path| place.resolve(path)),
        checksums: section.choice(
            "checksums",
            &[("fail", BadPages::Fail), ("warn", BadPages::Warn)],
            default.checksums,
        ),
        processes: section.integer("processes", 1..=64).unwrap_or(default.processes),
        url: default.url,
    };
    let least = Duration::from_millis(100);
    if settings.wal_every < least {
        section.fault("wal_every", "at least 100ms", super::duration::display(settings.wal_every), "raise it");
    }
    if settings.jitter > JITTER_MAX {
        section.fault("jitter", "at most 12h", super::duration::display(settings.jitter), "lower it");
    }
    for (name, needs, there) in [
        ("wal_every", "wal = \"stream\"", settings.wal == WalMode::Stream),
        ("jitter", "a schedule", settings.schedule.is_some()),
    ] {
        if reader.has(&section.key(name)) && !there {
            section.fault(name, format!("it beside {needs}"), "it alone", "remove it, or add that");
        }
    }
    if known {
        fits(&settings, reader, &section);
        if files == Files::Checked {
            check_files(&settings, witness, reader, &section);
        }
    }
    section.end();
    Some(settings)
}

fn key(section: &Section<'_>, place: &Place) -> Option<KeySource> {
    let encrypt = section.boolean("encrypt", false);
    let command = section.text("key_command").map(str::to_owned);
    match (encrypt, command) {
        (true, None) => Some(KeySource::File(place.secrets.join(KEY_FILE))),
        (true, Some(command)) => Some(KeySource::Command(command)),
        (false, None) => None,
        (false, Some(_)) => {
            section.fault("key_command", "encrypt = true beside it", "it alone", "add encrypt = true, or remove it");
            None
        }
    }
}

fn schedule(section: &Section<'_>, name: &'static str) -> Option<Schedule> {
    let text = section.text(name)?;
    Schedule::new(text)
        .map_err(|e| {
            section.fault(
                name,
                "five fields as in crontab(5), in UTC, such as \"0 3 * * *\", or \"@daily\"",
                format!("{text:?} ({})", why(&e)),
                "correct it",
            );
        })
        .ok()
}

/// What is wrong with it, without the schedule itself.
fn why(error: &crate::Error) -> String {
    let text = error.to_string();
    text.trim_start_matches("not a schedule: ").split(". schedule=").next().unwrap_or_default().to_owned()
}

fn keep(section: &Section<'_>) -> Keep {
    let keep = section.section("keep");
    if !keep.exists() {
        return Keep::default();
    }
    let some = |name| keep.integer(name, 1..=KEPT_MAX);
    let age = keep.item("age").is_some().then(|| keep.duration("age", Duration::from_secs(30 * 86_400)));
    let rules =
        Keep { count: some("count"), age, daily: some("daily"), weekly: some("weekly"), monthly: some("monthly") };
    if keep.entries().is_empty() {
        let remedy = "write it as in keep = { count = 7 }";
        section.fault("keep", "count, age, daily, weekly or monthly", "none of them", remedy);
    }
    if age.is_some_and(|age| age.is_zero()) {
        keep.fault("age", "more than nothing", "0s", "raise it, or remove it");
    }
    keep.end();
    rules
}

/// Whether the keys belong to the kind of store.
fn fits(settings: &BackupSettings, reader: &Reader, section: &Section<'_>) {
    let provider = match &settings.url {
        BackupUrl::Bucket { provider, .. } => Some(*provider),
        BackupUrl::File(_) => None,
    };
    let scheme = provider.map_or("file", |provider| provider.scheme());
    let keys: [(&str, &[&str]); 6] = [
        ("endpoint", &["s3", "gs", "az"]),
        ("region", &["s3"]),
        ("account", &["az"]),
        ("tls", &["s3", "gs", "az"]),
        ("ca", &["s3", "gs", "az"]),
        ("credentials", &["s3", "gs", "az"]),
    ];
    belong(reader, section, (scheme, settings.url.kind()), &keys);
    settings.store.fits(provider, section);
}

fn check_files(settings: &BackupSettings, witness: &WitnessSettings, reader: &Reader, section: &Section<'_>) {
    check_pem(section, &[("ca", &settings.store.ca)]);
    // Whoever has credentials for that very store has them already.
    let same = matches!((&settings.url, &witness.url), (BackupUrl::Bucket { provider, .. }, WitnessUrl::Bucket { provider: other, .. }) if provider == other)
        && settings.store.endpoint == witness.store.endpoint
        && settings.store.account == witness.store.account
        && witness.store.credentials_file.exists();
    let besides = same.then_some(
        "the witness is in the same store: where its credentials may write here, too, cp -p secrets/witness.env secrets/backup.env",
    );
    if let Err(faults) = settings.credentials(besides) {
        reader.faults_of(&faults);
    }
    if let Some(KeySource::File(path)) = &settings.key {
        let remedy = format!("chmod 600 {}", path.display());
        match std::fs::metadata(path) {
            Err(e) => section.fault(
                "encrypt",
                "64 hexadecimal digits in secrets/backup.key",
                e.to_string(),
                "`pgdock init` makes a key; keep a copy of it elsewhere: without it no backup can be read",
            ),
            Ok(_) if open_to_others(path).is_some() => {
                section.fault("encrypt", "a key that nobody else can read", path.display().to_string(), remedy);
            }
            Ok(_) => {}
        }
    }
    if let Some(path) = &settings.verify_query
        && let Err(e) = std::fs::metadata(path)
    {
        section.fault(
            "verify_query",
            "a file of SQL, beside cluster.toml",
            format!("{} ({e})", path.display()),
            "write it, such as shared/tests/verify.sql, or correct the path",
        );
    }
}

#[cfg(test)]
mod tests;
