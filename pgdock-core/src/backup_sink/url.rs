//! [`BackupUrl`]: which store backups are in, as `[backup] url` says it.

use std::path::{Path, PathBuf};

use crate::store_url::{self, BucketUrl, Provider, Split, UrlFault};
use crate::{Error, Result};

/// What a URL may be, for faults.
pub(crate) const EXPECTED: &str = "file:PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX";

/// Where secrets belong that a URL must not hold.
const SECRETS: &str = "secrets/backup.env";

/// A store. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackupUrl {
    /// `file:PATH`: a folder, of this machine or mounted.
    File(PathBuf),
    /// `s3://BUCKET/PREFIX`, `gs://…`, `az://…`
    Bucket {
        /// Whose interface the store speaks.
        provider: Provider,
        /// The bucket, or container.
        bucket: String,
        /// What the names of objects begin with; `pgdock` where it is not said.
        prefix: String,
    },
}

impl BackupUrl {
    /// Reads a URL. A relative path begins at `base`.
    ///
    /// # Errors
    /// `Invalid`, without what the URL says: it may hold a password.
    pub fn parse(url: &str, base: &Path) -> Result<Self> {
        Self::read(url, base).map_err(|fault| {
            Error::invalid(format!("not the URL of a store of backups: {}. expected={EXPECTED}", fault.found))
                .hint(fault.remedy)
        })
    }

    pub(crate) fn read(url: &str, base: &Path) -> Result<Self, UrlFault> {
        match store_url::split(url, SECRETS)? {
            Split::File(path) => {
                let path = store_url::file(path, base)?;
                // A slash at the end says nothing here: it is a folder anyway.
                Ok(Self::File(path.components().collect()))
            }
            Split::Parts(parts) => {
                let BucketUrl { provider, bucket, prefix } = parts.bucket(SECRETS)?;
                Ok(Self::Bucket { provider, bucket, prefix })
            }
        }
    }

    /// What kind of store this is, in one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Bucket { .. } => "bucket",
        }
    }
}

impl std::fmt::Display for BackupUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Bucket { provider, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", provider.scheme()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown() {
        let read = |url: &str| BackupUrl::parse(url, Path::new("/srv/pg"));
        for (url, normal) in [
            ("file:backups/", "file:/srv/pg/backups"),
            ("file:///mnt/backups", "file:/mnt/backups"),
            ("s3://bucket", "s3://bucket/pgdock"),
            ("gs://bucket/a/b/", "gs://bucket/a/b"),
            ("az://container/x", "az://container/x"),
        ] {
            assert_eq!(read(url).unwrap().to_string(), normal, "{url}");
            assert_eq!(read(normal).unwrap().to_string(), normal, "{url}");
        }
        for bad in
            ["s3://key:hunter2@bucket/x", "etcd://h/x", "postgres://u@h/d", "bucket", "s3:bucket", "file:", "ftp://x/y"]
        {
            let error = read(bad).unwrap_err();
            assert!(!error.chain().contains("hunter2") && error.to_string().contains("expected=file:PATH"), "{error}");
        }
        let error = read("s3://key:hunter2@bucket/x").unwrap_err();
        assert!(error.hints().iter().any(|hint| hint.contains("secrets/backup.env")), "{:?}", error.hints());
    }
}
