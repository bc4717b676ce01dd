//! [`ScaffoldBackup::from_env`]: the store of backups from a file that another tool was configured with: `env/backup`
//! of postgres-backup-s3, or `env/wale` of wal-e.

use std::collections::BTreeMap;
use std::path::Path;

use crate::backup::Schedule;
use crate::backup_sink::BackupUrl;
use crate::settings::{Fault, Faults, env_file};
use crate::{Error, Result};

/// Where the backups of a new cluster shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaffoldBackup {
    /// The URL.
    pub url: String,
    /// The URL of a store that is not the provider's own.
    pub endpoint: Option<String>,
    /// The region of a bucket.
    pub region: Option<String>,
    /// When a backup is made.
    pub schedule: Option<String>,
    /// What goes into `secrets/backup.env`.
    pub keys: Option<BackupKeys>,
}

/// The key pair of an S3 bucket. Neither half is in its `Debug` text.
#[derive(Clone, PartialEq, Eq)]
pub struct BackupKeys {
    access: String,
    secret: String,
}

impl BackupKeys {
    /// The text of `secrets/backup.env`.
    pub(super) fn to_env(&self) -> String {
        format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", self.access, self.secret)
    }
}

impl std::fmt::Debug for BackupKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupKeys").finish_non_exhaustive()
    }
}

/// What each key means: how it is called in either tool. The first that is there counts.
const ACCESS: &[&str] = &["S3_ACCESS_KEY_ID", "WALE_AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"];
const SECRET: &[&str] = &["S3_SECRET_ACCESS_KEY", "WALE_AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"];
const REGION: &[&str] = &["S3_REGION", "WALE_AWS_REGION", "AWS_REGION"];
const ENDPOINT: &[&str] = &["S3_ENDPOINT", "WALE_S3_ENDPOINT"];
/// What postgres-backup-s3 writes where nothing is set.
const NOTHING: &str = "**None**";

/// A file as it is read.
struct Env<'a> {
    file: &'a Path,
    values: BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl Env<'_> {
    fn fault(&mut self, key: &str, expected: &str, found: &str, remedy: &str) {
        self.faults.push(Fault {
            file: self.file.to_owned(),
            line: None,
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    fn get(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        let found = names.iter().find_map(|name| self.values.get(*name).map(|value| (*name, value.clone())));
        found.filter(|(_, value)| !value.is_empty() && value != NOTHING)
    }

    fn required(&mut self, names: &[&'static str], what: &str) -> String {
        match self.get(names) {
            Some((_, value)) => value,
            None => {
                self.fault(names[0], what, "nothing", &format!("add it; also understood: {}", names[1..].join(", ")));
                String::new()
            }
        }
    }
}

impl ScaffoldBackup {
    /// Reads the keys of postgres-backup-s3 (`S3_BUCKET`, `S3_PREFIX`, `S3_REGION`, `S3_ENDPOINT`, `S3_ACCESS_KEY_ID`,
    /// `S3_SECRET_ACCESS_KEY`, `SCHEDULE`) or of wal-e (`WALE_S3_PREFIX`, `WALE_S3_ENDPOINT`, `WALE_AWS_REGION`,
    /// `WALE_AWS_ACCESS_KEY_ID`, `WALE_AWS_SECRET_ACCESS_KEY`; the last three also without `WALE_`). What else such a file
    /// holds, as `POSTGRES_DATABASE`, is not needed: backups are of the whole cluster.
    ///
    /// # Errors
    /// `Invalid` with every fault, by file and key. Secrets are not repeated.
    pub fn from_env(file: &Path) -> Result<Self> {
        let mut env = Env { file, values: env_file::read(file)?, faults: Vec::new() };
        let backup = read(&mut env);
        if env.faults.is_empty() { Ok(backup) } else { Err(Faults::new(env.faults).into_error()) }
    }
}

fn read(env: &mut Env<'_>) -> ScaffoldBackup {
    let (key, url) = match (env.get(&["S3_BUCKET"]), env.get(&["WALE_S3_PREFIX"])) {
        (Some((key, bucket)), _) => {
            let prefix = env.get(&["S3_PREFIX"]).map(|(_, prefix)| prefix).unwrap_or_default();
            (key, format!("s3://{bucket}/{}", prefix.trim_matches('/')))
        }
        (None, Some((key, url))) => (key, url),
        (None, None) => {
            env.fault("S3_BUCKET", "the bucket", "nothing", "add it; or WALE_S3_PREFIX, as wal-e has it");
            ("S3_BUCKET", String::new())
        }
    };
    let url = if url.is_empty() {
        url
    } else {
        match BackupUrl::parse(&url, Path::new("/")) {
            Ok(url @ BackupUrl::Bucket { .. }) if url.to_string().starts_with("s3:") => url.to_string(),
            Ok(_) => {
                env.fault(key, "a bucket of S3", "another store", "write [backup] by hand: docs/cluster-toml.md");
                String::new()
            }
            Err(e) => {
                let remedy = e.hints().first().cloned().unwrap_or_default();
                env.fault(key, "a bucket with a prefix", "something else", &remedy);
                String::new()
            }
        }
    };
    let endpoint = env.get(ENDPOINT).and_then(|(key, endpoint)| {
        let plain = plain_endpoint(&endpoint);
        if plain.is_none() {
            env.fault(key, "a URL of http or https", "another form", "write it as in https://s3.example.com");
        }
        plain
    });
    let region = env.get(REGION).map(|(_, region)| region);
    if region.is_none() && endpoint.is_none() {
        env.fault(REGION[0], "the region of the bucket", "nothing", "add it; or S3_ENDPOINT, where it is not Amazon's");
    }
    let keys = BackupKeys {
        access: env.required(ACCESS, "the key's public half"),
        secret: env.required(SECRET, "the key's secret half"),
    };
    let schedule = env.get(&["SCHEDULE"]).and_then(|(key, text)| {
        let schedule = five_fields(&text).and_then(|text| Schedule::new(&text));
        if schedule.is_err() {
            env.fault(
                key,
                "five fields as in crontab(5), or six of which the first is 0, or @daily",
                &format!("{text:?}"),
                "write it so, or remove it; times are in UTC",
            );
        }
        schedule.ok().map(|schedule| schedule.as_str().to_owned())
    });
    ScaffoldBackup { url, endpoint, region, schedule, keys: Some(keys) }
}

/// wal-e writes `https+path://HOST:PORT`, by which it says how the bucket is named.
fn plain_endpoint(text: &str) -> Option<String> {
    let (scheme, place) = text.trim_end_matches('/').split_once("://")?;
    let scheme = scheme.split_once('+').map_or(scheme, |(scheme, _)| scheme);
    let fits = matches!(scheme, "http" | "https") && !place.is_empty() && !place.contains('@');
    fits.then(|| format!("{scheme}://{place}"))
}

/// postgres-backup-s3 has seconds in front. A backup begins at a minute.
fn five_fields(text: &str) -> Result<String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    match fields[..] {
        ["0", ref five @ ..] if five.len() == 5 => Ok(five.join(" ")),
        [..] if fields.len() == 6 => Err(Error::invalid("a backup begins at a full minute")),
        [..] => Ok(fields.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<ScaffoldBackup> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("backup");
        std::fs::write(&file, text).unwrap();
        ScaffoldBackup::from_env(&file)
    }

    #[test]
    fn the_articles_file_is_understood() {
        let text = "S3_REGION=eu-central-1\nS3_ACCESS_KEY_ID=AKIA\nS3_SECRET_ACCESS_KEY=hunter2\nS3_BUCKET=my-bucket\n\
            S3_PREFIX=/backup/db/\nPOSTGRES_DATABASE=testdb\nPOSTGRES_USER=u\nPOSTGRES_PASSWORD=p\nPOSTGRES_HOST=h\nSCHEDULE=@daily\n";
        let backup = read_text(text).unwrap();
        assert_eq!(backup.url, "s3://my-bucket/backup/db");
        assert_eq!((backup.region.as_deref(), backup.schedule.as_deref()), (Some("eu-central-1"), Some("@daily")));
        let keys = backup.keys.clone().unwrap();
        assert_eq!(keys.to_env(), "AWS_ACCESS_KEY_ID=AKIA\nAWS_SECRET_ACCESS_KEY=hunter2\n");
        assert!(!format!("{backup:?}").contains("hunter2"));
        let six = text.replace("@daily", "0 30 3 * * *").replace("S3_PREFIX=/backup/db/", "S3_PREFIX=**None**");
        let backup = read_text(&six).unwrap();
        assert_eq!((backup.url.as_str(), backup.schedule.as_deref()), ("s3://my-bucket/pgdock", Some("30 3 * * *")));
    }

    #[test]
    fn wal_es_file_is_understood() {
        let text = "WALE_AWS_ACCESS_KEY_ID=a\nWALE_AWS_SECRET_ACCESS_KEY=hunter2\nWALE_S3_PREFIX=s3://bucket/n1\n\
            WALE_S3_ENDPOINT=http+path://10.0.0.9:9000\n";
        let backup = read_text(text).unwrap();
        assert_eq!((backup.url.as_str(), backup.schedule), ("s3://bucket/n1", None));
        assert_eq!((backup.endpoint.as_deref(), backup.region), (Some("http://10.0.0.9:9000"), None));
        let plain = "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\nAWS_REGION=r\nWALE_S3_PREFIX=s3://bucket/x\n";
        assert_eq!(read_text(plain).unwrap().region.as_deref(), Some("r"));
    }

    #[test]
    fn faults_name_file_and_key_and_no_secret() {
        let text =
            "S3_ACCESS_KEY_ID=hunter2\nS3_BUCKET=key:hunter2@b\nSCHEDULE=@every 5m\nS3_ENDPOINT=s3.example.com\n";
        let error = read_text(text).unwrap_err();
        let said = error.to_string();
        for part in ["S3_BUCKET: expected a bucket", "SCHEDULE: expected five fields", "S3_ENDPOINT: expected a URL"] {
            assert!(said.contains(part), "{said}");
        }
        for part in ["/backup: S3_SECRET_ACCESS_KEY: expected", "S3_REGION: expected the region"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
        assert!(read_text("").unwrap_err().to_string().contains("S3_BUCKET: expected the bucket, found nothing"));
        let gcs = read_text("WALE_S3_PREFIX=gs://b/x\nAWS_REGION=r\nAWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\n");
        assert!(gcs.unwrap_err().to_string().contains("WALE_S3_PREFIX: expected a bucket of S3"));
    }
}
