//! [`WitnessUrl`]: which store a witness is in, as `[witness] url` says it.

use std::path::{Path, PathBuf};

pub use crate::store_url::Provider;
use crate::store_url::{self, BucketUrl, Parts, Split, UrlFault, prefix};
use crate::{Error, Result};

/// What a URL may be, for faults.
pub(crate) const EXPECTED: &str = "file:PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, \
    etcd://HOST:PORT,…/PREFIX or postgres://USER@HOST:PORT/DATABASE";

/// Where secrets belong that a URL must not hold.
const SECRETS: &str = "secrets/witness.env";

/// A store. It holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WitnessUrl {
    /// `file:PATH`: a file of this machine, which is not shared with others. A path that ends with a slash is
    /// a folder, in which each cluster has a file of its own.
    File(PathBuf),
    /// `s3://BUCKET/PREFIX`, `gs://…`, `az://…`: the object `PREFIX/CLUSTER.json`.
    Bucket {
        /// Whose interface the store speaks.
        provider: Provider,
        /// The bucket, or container.
        bucket: String,
        /// What the names of objects begin with; `pgdock` where it is not said.
        prefix: String,
    },
    /// `etcd://HOST:PORT,HOST:PORT/PREFIX`: the key `/PREFIX/CLUSTER`.
    Etcd {
        /// The members, each as `host:port`.
        endpoints: Vec<String>,
        /// What keys begin with; `pgdock` where it is not said.
        prefix: String,
    },
    /// `postgres://USER@HOST:PORT/DATABASE`: the row `CLUSTER` of the table `pgdock_witness`.
    Postgres {
        /// The role.
        user: String,
        /// The host, an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
        /// The database.
        database: String,
    },
}

impl WitnessUrl {
    /// Reads a URL. A relative path begins at `base`.
    ///
    /// # Errors
    /// `Invalid`, without what the URL says: it may hold a password.
    pub fn parse(url: &str, base: &Path) -> Result<Self> {
        Self::read(url, base).map_err(|fault| {
            Error::invalid(format!("not the URL of a witness: {}. expected={EXPECTED}", fault.found)).hint(fault.remedy)
        })
    }

    pub(crate) fn read(url: &str, base: &Path) -> Result<Self, UrlFault> {
        let fault = |found: &str, remedy: &str| Err(UrlFault::new(found, remedy));
        let parts = match store_url::split(url, SECRETS)? {
            Split::File(path) => return Ok(Self::File(store_url::file(path, base)?)),
            Split::Parts(parts) => parts,
        };
        let Parts { scheme, user, place, path } = parts;
        match scheme {
            "s3" | "gs" | "az" => {
                let BucketUrl { provider, bucket, prefix } = parts.bucket(SECRETS)?;
                Ok(Self::Bucket { provider, bucket, prefix })
            }
            "etcd" => {
                if user.is_some() {
                    return fault(
                        "etcd://… with a user",
                        "write ETCD_USER and ETCD_PASSWORD into secrets/witness.env, and take it off the URL",
                    );
                }
                let endpoints: Option<Vec<_>> = place.split(',').map(|place| host_port(place, 2379)).collect();
                let Some(endpoints) = endpoints else {
                    return fault("etcd://… with what is no HOST:PORT", "write etcd://HOST:PORT,HOST:PORT/PREFIX");
                };
                let endpoints = endpoints.iter().map(|(host, port)| crate::agent::host_port(host, *port)).collect();
                Ok(Self::Etcd { endpoints, prefix: prefix(scheme, path)? })
            }
            "postgres" | "postgresql" => {
                let Some((host, port)) = host_port(place, 5432) else {
                    return fault("postgres://… with what is no HOST:PORT", "write postgres://USER@HOST:PORT/DATABASE");
                };
                let (Some(user), false) = (user.filter(|user| !user.is_empty()), path.is_empty() || path.contains('/'))
                else {
                    return fault(
                        "postgres://… without a user or a database",
                        "write postgres://USER@HOST:PORT/DATABASE",
                    );
                };
                Ok(Self::Postgres { user: user.to_owned(), host, port, database: path.to_owned() })
            }
            other => fault(&store_url::known(other), "correct it"),
        }
    }

    /// What kind of store this is, in one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Bucket { .. } => "bucket",
            Self::Etcd { .. } => "etcd",
            Self::Postgres { .. } => "postgres",
        }
    }
}

impl std::fmt::Display for WitnessUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Bucket { provider, bucket, prefix } => write!(f, "{}://{bucket}/{prefix}", provider.scheme()),
            Self::Etcd { endpoints, prefix } => write!(f, "etcd://{}/{prefix}", endpoints.join(",")),
            Self::Postgres { user, host, port, database } => {
                write!(f, "postgres://{user}@{}/{database}", crate::agent::host_port(host, *port))
            }
        }
    }
}

/// `host:port`, with an IPv6 address in brackets; the port may be left out.
fn host_port(text: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("")),
        },
    };
    let port = match port? {
        "" if !text.ends_with(':') => default,
        port => port.parse().ok().filter(|port| *port > 0)?,
    };
    let named = host.parse::<std::net::Ipv6Addr>().is_ok() || crate::settings::is_host(host);
    named.then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> String {
        match WitnessUrl::read(url, Path::new("/etc/shop")) {
            Ok(url) => url.to_string(),
            Err(fault) => format!("{}; {}", fault.found, fault.remedy),
        }
    }

    #[test]
    fn each_store_has_its_url() {
        for (url, normal) in [
            ("file:var/./w.json", "file:/etc/shop/var/w.json"),
            ("file:///var/w/", "file:/var/w/"),
            ("s3://bucket", "s3://bucket/pgdock"),
            ("s3://my.bucket/a/b/", "s3://my.bucket/a/b"),
            ("gs://bucket/x", "gs://bucket/x"),
            ("az://container/x", "az://container/x"),
            ("etcd://h1,h2:4001,[::1]:2379", "etcd://h1:2379,h2:4001,[::1]:2379/pgdock"),
            ("etcd://10.0.0.1:2379/a/b", "etcd://10.0.0.1:2379/a/b"),
            ("postgres://me@db.example/arbiter", "postgres://me@db.example:5432/arbiter"),
            ("postgresql://me@[::1]:5433/arbiter", "postgres://me@[::1]:5433/arbiter"),
        ] {
            assert_eq!(read(url), normal, "{url}");
            assert_eq!(read(normal), normal, "{url}: what is shown can be read again");
        }
    }

    #[test]
    fn what_is_no_url_is_told_without_its_secrets() {
        for url in [
            "s3://key:hunter2@bucket/x",
            "postgres://me:hunter2@host/db",
            "postgres://me:hun/ter2@host/db",
            "postgres://me:hun@ter2@host/db",
            "postgres://me:hun?ter2@host/db",
            "postgres://me@host/db?password=hunter2",
            "etcd://root:hunter2@host:2379",
            "hunter2",
            "hunter2://x",
        ] {
            let said = read(url);
            assert!(!said.contains("ter2") || url.starts_with("hunter2:"), "{url}: {said}");
            assert!(WitnessUrl::read(url, Path::new("/")).is_err(), "{url}");
            let error = WitnessUrl::parse(url, Path::new("/")).unwrap_err();
            assert!(!error.chain().contains("hun/ter2") && error.to_string().contains("expected=file:PATH"), "{error}");
        }
        assert!(read("postgres://me:hunter2@host/db").contains("password in it; write it into secrets/witness.env"));
        for bad in [
            "s3://",
            "s3:bucket",
            "s3://b/../x",
            "s3://b/a//b",
            "etcd://",
            "etcd://h:0",
            "etcd://h:x",
            "etcd://u@h",
            "postgres://host/db",
            "postgres://me@host",
            "postgres://me@host/a/b",
            "postgres://@host/db",
            "file:",
            "file://host/x",
            "/var/w",
            "",
            "gcs://bucket/x",
            "s3://b ucket/x",
        ] {
            assert!(WitnessUrl::read(bad, Path::new("/")).is_err(), "{bad}");
        }
    }
}
