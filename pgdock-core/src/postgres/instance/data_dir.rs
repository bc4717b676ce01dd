//! The data directory: what is in it, and how the first one is made.

use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::{Instance, Layout, durable};
use crate::node::Incarnation;
use crate::postgres::conf_file::SUPERUSER;
use crate::postgres::control_data::ControlData;
use crate::{Error, Result};

/// How long making a data directory may take.
const INITDB_LIMIT: Duration = Duration::from_secs(300);
/// How long reading the control file may take.
const CONTROL_LIMIT: Duration = Duration::from_secs(10);

/// How often an unfinished copy is tried to be removed.
const CLEAR_TRIES: u32 = 100;
/// How long to wait in between.
const CLEAR_PAUSE: Duration = Duration::from_millis(20);

/// What lies where the data directory should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inspection {
    /// Nothing, or an empty folder.
    Empty,
    /// Something that pgdock must not, or cannot, run.
    Unusable {
        /// Why, for a person.
        reason: String,
    },
    /// A data directory.
    Ours(DataDir),
}

/// A data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    /// Its identity. `None` for one that pgdock did not make.
    pub incarnation: Option<Incarnation>,
    /// Its control file.
    pub control: ControlData,
}

impl Instance {
    /// Looks at what is in the place of the data directory.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be told at present.
    pub async fn inspect(&self) -> Result<Inspection> {
        let data = self.inner.layout.data.clone();
        let version = self.inner.config.binaries.version();
        let found = durable::blocking(move || Ok(look(&data, version))).await?;
        let unusable = |reason: String| Ok(Inspection::Unusable { reason });
        match found {
            Look::Empty => return Ok(Inspection::Empty),
            Look::Unusable(reason) => return unusable(reason),
            Look::Data => {}
        }
        if self.inner.layout.rewinding.exists() {
            return unusable("a rewind of it was interrupted: it must be copied anew".to_owned());
        }
        match self.control_data().await {
            Ok(control) => Ok(Inspection::Ours(DataDir { incarnation: self.incarnation(), control })),
            Err(error) => unusable(format!("its control file cannot be read: {}", error.chain())),
        }
    }

    /// The data directory's identity; `None` where there is none.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        let text = std::fs::read_to_string(Layout::incarnation(&self.inner.layout.data)).ok()?;
        text.trim().to_owned().try_into().ok()
    }

    /// Gives a data directory a fresh identity: what the old one acknowledged may not be in it.
    ///
    /// # Errors
    /// `Internal` when the file cannot be written.
    pub(super) async fn renew_incarnation(&self, data: &Path) -> Result<Incarnation> {
        let incarnation = Incarnation(crate::dice::draw());
        self.write(&Layout::incarnation(data), format!("{incarnation}\n")).await?;
        Ok(incarnation)
    }

    /// The control file. Read again only when it has changed.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be read.
    pub async fn control_data(&self) -> Result<ControlData> {
        let path = self.inner.layout.data.join("global/pg_control");
        let changed = std::fs::metadata(&path)
            .and_then(|m| m.modified())
            .map_err(|e| Error::unavailable(format!("there is no control file. path={}", path.display())).because(e))?;
        if let Some((at, control)) = &self.memory().control
            && *at == changed
        {
            return Ok(control.clone());
        }
        let control = self.read_control_data(&self.inner.layout.data).await?;
        self.memory().control = Some((changed, control.clone()));
        Ok(control)
    }

    pub(super) async fn read_control_data(&self, data: &Path) -> Result<ControlData> {
        let text = self.program("pg_controldata", CONTROL_LIMIT).arg("-D").arg(data).run().await?;
        ControlData::parse(&text)
    }

    /// Makes the first data directory of a cluster: checksums, UTF-8, the password of the superuser. Does not
    /// start it.
    ///
    /// # Errors
    /// `Conflict` when there is something in the place already, `Unavailable` when `initdb` fails.
    pub async fn initdb(&self) -> Result<Incarnation> {
        let layout = &self.inner.layout;
        match self.inspect().await? {
            Inspection::Empty => {}
            _ => {
                return Err(Error::conflict(format!(
                    "there is something in the place of the data directory. path={}",
                    layout.data.display()
                ))
                .hint("move it away, or adopt it"));
            }
        }
        // Made beside and renamed: an interrupted one leaves no half of a data directory in the place.
        self.clear(&layout.data_new).await?;
        let pwfile = layout.secrets.join("superuser.pw");
        self.write(&pwfile, format!("{}\n", self.inner.config.secrets.superuser.expose_secret())).await?;
        let made = self
            .program("initdb", INITDB_LIMIT)
            .arg("-D")
            .arg(&layout.data_new)
            .args(["--encoding=UTF8", "--data-checksums", "--auth=scram-sha-256"])
            // The collation of the C library changes with the library, and then indexes lie. This one does not.
            .arg("--no-locale")
            .arg(format!("--username={SUPERUSER}"))
            .arg("--pwfile")
            .arg(&pwfile)
            .run()
            .await;
        durable::remove(&pwfile).await?;
        made?;
        let incarnation = self.renew_incarnation(&layout.data_new).await?;
        if layout.data.exists() {
            // Empty, as was seen; if not any more, this fails.
            std::fs::remove_dir(&layout.data).map_err(|e| {
                Error::conflict(format!("not empty any more. path={}", layout.data.display())).because(e)
            })?;
        }
        durable::rename(&layout.data_new, &layout.data).await?;
        self.forget();
        Ok(incarnation)
    }

    /// Removes a copy that was not finished.
    pub(super) async fn clear(&self, dir: &Path) -> Result<()> {
        let dir = dir.to_owned();
        durable::blocking(move || {
            for _ in 0..CLEAR_TRIES {
                match std::fs::remove_dir_all(&dir) {
                    Ok(()) => return Ok(()),
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                    // A program that was killed a moment ago still writes there.
                    Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => std::thread::sleep(CLEAR_PAUSE),
                    Err(e) => {
                        let message = format!("cannot remove an unfinished copy. path={}", dir.display());
                        return Err(Error::internal(message).because(e));
                    }
                }
            }
            Err(Error::conflict(format!("somebody writes into an unfinished copy. path={}", dir.display())))
        })
        .await
    }
}

enum Look {
    Empty,
    Unusable(String),
    Data,
}

fn look(data: &Path, version: u32) -> Look {
    let mut entries = match std::fs::read_dir(data) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Look::Empty,
        Err(e) => return Look::Unusable(format!("it cannot be read: {e}")),
    };
    if entries.next().is_none() {
        return Look::Empty;
    }
    let found = match std::fs::read_to_string(data.join("PG_VERSION")) {
        Ok(text) => text.trim().to_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Look::Unusable("it is not empty, and not a data directory of postgresql".to_owned());
        }
        Err(e) => return Look::Unusable(format!("its version cannot be read: {e}")),
    };
    if found != version.to_string() {
        return Look::Unusable(format!("it is of another major version: found={found}, running={version}"));
    }
    if !data.join("global/pg_control").is_file() {
        return Look::Unusable("it has no control file".to_owned());
    }
    for entry in std::fs::read_dir(data.join("pg_tblspc")).into_iter().flatten().flatten() {
        if !entry.path().is_dir() {
            return Look::Unusable(format!(
                "a tablespace is missing: {}",
                std::fs::read_link(entry.path()).unwrap_or_else(|_| entry.path()).display()
            ));
        }
    }
    Look::Data
}
