//! [`Layout`]: where an instance's files lie.

use std::path::{Path, PathBuf};

use crate::fnv::fnv1a;
use crate::{Error, Result};

/// The longest path of a Unix socket on Linux, in bytes (`unix(7)`: 108 with the final zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where an instance's files lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The node's own folder.
    pub home: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// A copy being made.
    pub data_new: PathBuf,
    /// The configuration.
    pub conf: PathBuf,
    /// The folder of the Unix socket: `HOME/run`, or a short one elsewhere if that path is too long for a socket.
    pub run: PathBuf,
    /// Password file, certificates and key.
    pub secrets: PathBuf,
    /// The folder of the log.
    pub logs: PathBuf,
    /// What PostgreSQL complains about.
    pub log: PathBuf,
    /// WAL that a rewind took away.
    pub diverged: PathBuf,
    /// Stands while a rewind goes on: the data directory is worth nothing if it is found at a start.
    pub rewinding: PathBuf,
}

impl Layout {
    /// The layout below a home.
    ///
    /// # Errors
    /// `Invalid` when the path is not absolute, or not UTF-8, which PostgreSQL's configuration cannot hold.
    pub fn new(home: &Path, port: u16) -> Result<Self> {
        let Some(text) = home.to_str() else {
            return Err(Error::invalid(format!("a node's home must be UTF-8. home={}", home.display())));
        };
        if !home.is_absolute() || text.contains(['\n', '\r', '\0']) {
            return Err(Error::invalid(format!("a node's home must be an absolute path on one line. home={text:?}")));
        }
        let logs = home.join("logs");
        Ok(Self {
            home: home.to_owned(),
            data: home.join("data"),
            data_new: home.join("data.new"),
            conf: home.join("conf"),
            run: socket_dir(home, port),
            secrets: home.join("secrets"),
            log: logs.join("postgresql.log"),
            logs,
            diverged: home.join("diverged"),
            rewinding: home.join("rewinding"),
        })
    }

    /// A file of the configuration.
    #[must_use]
    pub fn conf_file(&self, name: &str) -> PathBuf {
        self.conf.join(name)
    }

    /// The password file.
    #[must_use]
    pub fn passfile(&self) -> PathBuf {
        self.secrets.join("passfile")
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.secrets.join("ca.crt")
    }

    /// What tells which data directory this is.
    pub(super) fn incarnation(data: &Path) -> PathBuf {
        data.join("pgdock.incarnation")
    }

    /// A free name to move a data directory to.
    pub(super) fn data_old(&self) -> PathBuf {
        let mut n = 1u32;
        loop {
            let path = self.home.join(format!("data.old-{n}"));
            // Also a dangling link is in the way.
            if path.symlink_metadata().is_err() {
                return path;
            }
            n += 1;
        }
    }
}

fn socket_dir(home: &Path, port: u16) -> PathBuf {
    let run = home.join("run");
    if run.as_os_str().len() + format!("/.s.PGSQL.{port}.lock").len() <= SOCKET_PATH_BYTES_MAX {
        return run;
    }
    PathBuf::from(format!("/tmp/pgdock-{:016x}", fnv1a(home.as_os_str().as_encoded_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_homes_get_a_short_socket() {
        let short = Layout::new(Path::new("/opt/pgdock/n1"), 5432).unwrap();
        assert_eq!(short.run, Path::new("/opt/pgdock/n1/run"));
        let long = format!("/{}", "x".repeat(100));
        let long = Layout::new(Path::new(&long), 5432).unwrap();
        assert!(long.run.starts_with("/tmp") && long.run.as_os_str().len() < 40);
    }

    #[test]
    fn odd_homes_are_refused() {
        for bad in ["relative", "/a\nb"] {
            assert!(Layout::new(Path::new(bad), 5432).is_err());
        }
    }
}
