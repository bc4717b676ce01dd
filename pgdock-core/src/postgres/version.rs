//! [`Binaries`]: which PostgreSQL is installed, and where.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The oldest major version that pgdock runs.
pub const OLDEST: u32 = 14;
/// The newest major version that pgdock runs.
pub const NEWEST: u32 = 18;

/// The programs of one PostgreSQL installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    version: u32,
}

impl Binaries {
    /// Finds an installation.
    ///
    /// With `dir`, only there. Otherwise in the places where packages put it, then in the folders of
    /// `path` (a value as of `PATH`, which the library does not read itself). With `version` only that
    /// major version counts; without, the newest one from [`OLDEST`] to [`NEWEST`] is taken.
    ///
    /// # Errors
    /// `Invalid` when nothing fits; the message names what was looked at.
    pub fn find(dir: Option<&Path>, version: Option<u32>, path: Option<&OsStr>) -> Result<Self> {
        if let Some(wanted) = version.filter(|v| !(OLDEST..=NEWEST).contains(v)) {
            return Err(Error::invalid(format!(
                "this major version of postgresql is not supported. version={wanted}, supported={OLDEST}..{NEWEST}"
            )));
        }
        let places = match dir {
            Some(dir) => vec![dir.to_owned()],
            None => places(path),
        };
        let mut looked = Vec::new();
        let mut found: Vec<Self> = Vec::new();
        for place in places {
            match Self::at(&place) {
                Ok(Some(binaries)) => {
                    looked.push(format!("{} (version {})", place.display(), binaries.version));
                    found.push(binaries);
                }
                Ok(None) => looked.push(place.display().to_string()),
                Err(why) => looked.push(format!("{} ({why})", place.display())),
            }
        }
        found.retain(|b| (OLDEST..=NEWEST).contains(&b.version) && version.is_none_or(|v| v == b.version));
        // The first of the newest: the order of the places is the order of preference.
        found.sort_by_key(|b| std::cmp::Reverse(b.version));
        found.into_iter().next().ok_or_else(|| {
            let wanted = version.map_or_else(|| format!("{OLDEST}..{NEWEST}"), |v| v.to_string());
            Error::invalid(format!("no postgresql server was found. version={wanted}, looked={}", looked.join(", ")))
                .hint(format!("install it, for example: apt-get install postgresql-{}", version.unwrap_or(NEWEST)))
                .hint("or set postgres.bin_dir to the folder that holds `postgres` and `initdb`")
        })
    }

    /// The installation in one folder, if there is one.
    fn at(dir: &Path) -> Result<Option<Self>, String> {
        let postgres = dir.join("postgres");
        if !postgres.is_file() {
            return Ok(None);
        }
        let output = std::process::Command::new(&postgres)
            .arg("--version")
            .env_clear()
            .env("LC_ALL", "C")
            .output()
            .map_err(|e| format!("cannot run it: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = parse_version(&text).ok_or_else(|| format!("says `{}`", text.trim()))?;
        for program in ["initdb", "pg_controldata", "pg_basebackup", "pg_rewind"] {
            if !dir.join(program).is_file() {
                return Err(format!("has no {program}"));
            }
        }
        // Links such as those of Homebrew may move under a running server.
        let dir = dir.canonicalize().map_err(|e| e.to_string())?;
        Ok(Some(Self { dir, version }))
    }

    /// The path of a program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The major version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }
}

/// Where installations lie, in order of preference.
fn places(path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let below = |dir: &str, prefix: &str| {
        let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with(prefix))
            .map(|e| e.path().join("bin"))
            .collect();
        found.sort();
        found
    };
    places.extend(below("/usr/lib/postgresql", ""));
    places.extend(below("/usr", "pgsql-"));
    places.push("/usr/local/pgsql/bin".into());
    places.extend(below("/opt/homebrew/opt", "postgresql"));
    places.extend(path.map(std::env::split_paths).into_iter().flatten().filter(|p| p.is_absolute()));
    let mut seen = std::collections::BTreeSet::new();
    places.retain(|p| seen.insert(p.clone()));
    places
}

/// The major version in what `postgres --version` prints, such as `postgres (PostgreSQL) 15.18 (Debian …)`.
#[must_use]
pub fn parse_version(text: &str) -> Option<u32> {
    let rest = text.trim().strip_prefix("postgres (PostgreSQL) ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, version) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1", Some(18)),
            ("postgres (PostgreSQL) 17devel", Some(17)),
            ("postgres (EnterpriseDB) 15.1", None),
            ("postgres (PostgreSQL) ", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let error = Binaries::find(Some(dir.path()), Some(16), None).unwrap_err();
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
        assert!(error.hints()[0].contains("postgresql-16"));
        assert!(Binaries::find(None, Some(9), None).unwrap_err().to_string().contains("not supported"));
    }
}
