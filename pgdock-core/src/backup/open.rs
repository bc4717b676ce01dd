//! [`Repository`]: the place of a cluster's backups, with all that it takes to read and write there.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::process::Command;

use super::{Cipher, Codec};
use crate::backup_sink::{self, BackupSink};
use crate::settings::{BackupSettings, KeySource, Settings};
use crate::{Error, Result};

/// How long the command may take that prints the key.
const KEY_BUDGET: Duration = Duration::from_secs(30);
/// More than any key.
const KEY_BYTES_MAX: usize = 4 << 10;

/// Where a cluster's backups are, and how its objects are written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    /// The objects of this cluster, and of no other.
    pub sink: Arc<dyn BackupSink>,
    /// How they are written and read.
    pub codec: Codec,
    /// The cluster's name.
    pub cluster: String,
}

impl Repository {
    /// The repository of the cluster that the settings are for. Nothing is sent yet; secrets are read, so that whoever
    /// opens it anew also learns of new ones.
    ///
    /// # Errors
    /// `Invalid` where there is no `[backup]`, credentials or the key are missing, or this build does not know the
    /// store; `Unavailable` where the command that prints the key fails.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let Some(backup) = &settings.backup else {
            return Err(Error::invalid("the cluster has no backups: the settings have no [backup]")
                .hint(format!("add [backup] with url = \"s3://bucket/prefix\" to {}", settings.file().display())));
        };
        Self::of(backup, &settings.cluster.name).await
    }

    /// The repository of a cluster by name, such as one to be restored from.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn of(backup: &BackupSettings, cluster: &str) -> Result<Self> {
        let cipher = match &backup.key {
            None => None,
            Some(source) => {
                let key = read_key(source).await?;
                Some(Arc::new(Cipher::from_hex(&key).map_err(|e| e.at(format!("source={}", shown(source))))?))
            }
        };
        let level = i32::try_from(backup.compression).unwrap_or(super::frame::LEVEL);
        let sink = backup_sink::open(backup, cluster)?;
        Ok(Self { sink, codec: Codec { level, cipher }, cluster: cluster.to_owned() })
    }
}

fn shown(source: &KeySource) -> String {
    match source {
        KeySource::File(path) => path.display().to_string(),
        KeySource::Command(_) => "key_command".to_owned(),
    }
}

async fn read_key(source: &KeySource) -> Result<SecretString> {
    match source {
        KeySource::File(path) => read_file(path),
        KeySource::Command(line) => ask(line).await,
    }
}

fn read_file(path: &Path) -> Result<SecretString> {
    std::fs::read_to_string(path).map(SecretString::from).map_err(|e| {
        Error::invalid(format!("the key of the backups is not readable. file={}", path.display()))
            .because(e)
            .hint("put back the key that the backups were begun with: without it none of them can be read")
    })
}

/// What a command prints. What it says besides is not repeated: it may be a secret.
async fn ask(line: &str) -> Result<SecretString> {
    let failed = |what: &str| {
        Error::unavailable(format!("the command that prints the key of the backups {what}"))
            .hint("run `key_command` of [backup] by hand: it must print 64 hexadecimal digits")
    };
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(line).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(KEY_BUDGET, command.output())
        .await
        .map_err(|_| failed("takes too long"))?
        .map_err(|e| failed("cannot be started").because(e))?;
    if !output.status.success() {
        return Err(failed(&format!("failed. {}", output.status)));
    }
    match String::from_utf8(output.stdout) {
        Ok(text) if text.len() <= KEY_BYTES_MAX => Ok(text.into()),
        _ => Err(failed("printed something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::backup_sink::{BackupSinkExt as _, BackupUrl, Key};

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    async fn with_key(dir: &Path, key: Option<KeySource>) -> Result<Repository> {
        let url = BackupUrl::File(dir.to_owned());
        Repository::of(&BackupSettings { key, ..BackupSettings::new(url, dir) }, "main").await
    }

    #[tokio::test]
    async fn each_cluster_has_a_place_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let main = with_key(dir.path(), None).await.unwrap();
        let key: Key = "a/b".parse().unwrap();
        let _ = main.sink.put_bytes(&key, b"x").await.unwrap();
        assert!(dir.path().join("main/v1/a/b").is_file());
        let settings = BackupSettings::new(BackupUrl::File(dir.path().into()), dir.path());
        let other = Repository::of(&settings, "other").await;
        assert!(other.unwrap().sink.list_all("").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_key_comes_from_a_file_or_a_command() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup.key");
        std::fs::write(&path, format!("{KEY}\n")).unwrap();
        let file = with_key(dir.path(), Some(KeySource::File(path))).await.unwrap();
        let command = with_key(dir.path(), Some(KeySource::Command(format!("echo {KEY}")))).await.unwrap();
        let id = |repository: Repository| repository.codec.cipher.unwrap().id();
        assert_eq!(id(file), id(command));
    }

    #[tokio::test]
    async fn a_key_that_is_none_is_told_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing.key");
        for (source, kind) in [
            (KeySource::File(path), ErrorKind::Invalid),
            (KeySource::Command("echo hunter2".into()), ErrorKind::Invalid),
            (KeySource::Command("echo hunter2; exit 3".into()), ErrorKind::Unavailable),
            (KeySource::Command("echo hunter2 >&2; exit 3".into()), ErrorKind::Unavailable),
        ] {
            let error = with_key(dir.path(), Some(source.clone())).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{source:?}: {}", error.chain());
            assert!(!error.chain().contains("hunter2") && !error.hints().is_empty(), "{source:?}: {}", error.chain());
        }
    }
}
