//! The proof that a backup restores: it is restored, recovered, and looked at.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Reached;
use crate::backup::base::Progress;
use crate::backup::frame::Codec;
use crate::backup::manifest::Manifest;
use crate::backup::object::blocking;
use crate::backup::restore::{Destination, Recovery, restore};
use crate::backup_sink::BackupSink;
use crate::clock::Clock;
use crate::postgres::command::Command;
use crate::postgres::conf_file::{self, SUPERUSER};
use crate::postgres::os_user::OsUser;
use crate::postgres::session::{Fault, Session};
use crate::postgres::version::Binaries;
use crate::postgres::wal_aside::read_history;
use crate::{Error, Result, TimelineId};

/// Any port does: it only names the socket.
const PORT: u16 = 5432;
/// How often a server that recovers is asked how it is.
const POLL: Duration = Duration::from_millis(100);
/// How long a question may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How many lines of what a check prints are kept.
const LINES: usize = 100;
/// How many lines of the end of the server's log an error tells.
const TAIL: usize = 12;
/// What a server says to who asks it while it starts, each time.
const TOO_EARLY: &str = "the database system is starting up";

/// How a backup is tried out.
#[derive(Clone, Debug)]
pub struct Boot {
    /// A folder for it, which must be new or empty, and is removed in the end.
    pub scratch: PathBuf,
    /// The PostgreSQL to run, of the backup's major version.
    pub binaries: Binaries,
    /// The user to run it as.
    pub os_user: OsUser,
    /// How far to recover.
    pub recovery: Recovery,
    /// The user's own queries, for psql, and the database to run them in. One that fails is a problem.
    pub query: Option<(String, String)>,
    /// How many packs are fetched at a time, and tables checked.
    pub processes: usize,
    /// How long recovery may take, and each check.
    pub limit: Duration,
}

/// What trying it out found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Booted {
    /// How far recovery went; nothing where the server did not come up.
    pub reached: Option<Reached>,
    /// What the user's own queries printed.
    pub printed: Vec<String>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Restores a backup into a scratch directory, starts PostgreSQL on it, recovers to the target, runs `pg_amcheck` on every database, and then the
/// user's own queries. What is wrong with the backup is told; the folder is removed whatever comes of it.
///
/// # Errors
/// Where it could not be tried at all: those of the sink and of the disk.
pub async fn boot(
    sink: Arc<dyn BackupSink>,
    codec: &Codec,
    manifest: &Manifest,
    how: &Boot,
    clock: &dyn Clock,
    progress: &watch::Sender<Progress>,
) -> Result<Booted> {
    if how.binaries.version() != manifest.major() {
        let message = format!(
            "the backup is of another major version. backup={}, installed={}",
            manifest.major(),
            how.binaries.version()
        );
        return Err(Error::invalid(message).hint("install that version, or set postgres.bin_dir"));
    }
    let (data, run) = (how.scratch.join("data"), how.scratch.join("run"));
    if std::fs::read_dir(&how.scratch).is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("the scratch folder is not empty. path={}", how.scratch.display());
        return Err(Error::conflict(message).hint("name one that does not exist yet: it is removed in the end"));
    }
    let folders = (how.scratch.clone(), run.clone(), how.os_user.clone());
    blocking(move || prepare(&folders.0, &folders.1, &folders.2)).await?;
    let _removed = Removed(how.scratch.clone());
    let spaces =
        manifest.tablespaces.iter().map(|space| (space.oid, how.scratch.join(format!("tablespace-{}", space.oid))));
    let to = Destination {
        data: data.clone(),
        tablespaces: spaces.collect(),
        owner: Some(how.os_user.clone()),
        processes: how.processes,
    };
    let mut booted = Booted::default();
    match restore(sink, codec, manifest, &to, &how.recovery, progress).await {
        Ok(()) => {}
        Err(error) if error.kind() == crate::ErrorKind::Invalid => {
            booted.problems.push(error.chain());
            return Ok(booted);
        }
        Err(error) => return Err(error),
    }
    // What follows has no measure that could be told.
    progress.send_replace(Progress::default());
    let scratch = Scratch::start(&data, &run, &how.binaries, &how.os_user).await?;
    let checked = async {
        match scratch.recovered(how.limit, clock).await {
            Ok(reached) => booted.reached = Some(reached),
            Err(error) => {
                booted.problems.push(error.chain());
                return;
            }
        }
        booted.problems.extend(scratch.amcheck(how.processes, how.limit).await);
        if let Some((text, database)) = &how.query {
            match scratch.query(text, database, how.limit).await {
                Ok(printed) => booted.printed = printed,
                Err(problem) => booted.problems.push(problem),
            }
        }
    };
    checked.await;
    scratch.stop().await;
    Ok(booted)
}

/// Makes the folders, which nobody but PostgreSQL's user can pass.
fn prepare(scratch: &Path, run: &Path, owner: &OsUser) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for folder in [scratch, run] {
        let made = || {
            crate::durable::create_folder(folder, 0o700)?;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
            owner.take_path(folder)
        };
        made()
            .map_err(|e| Error::unavailable(format!("cannot make a folder. path={}", folder.display())).because(e))?;
    }
    Ok(())
}

/// Removes a scratch folder, also where its user goes away half way.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        crate::postgres::process::kill_all(&self.0.join("data"));
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a scratch folder cannot be removed");
        }
    }
}

/// A server on a restored data directory that nobody but its user can reach: over a socket in a folder of its own.
#[derive(Debug)]
pub struct Scratch {
    data: PathBuf,
    run: PathBuf,
    binaries: Binaries,
    user: OsUser,
    session: Session,
    /// Killed when it is dropped.
    server: tokio::sync::Mutex<tokio::process::Child>,
}

impl Scratch {
    /// Starts a server on a data directory that is thrown away afterwards. `run` is a folder for its socket, its configuration and its log;
    /// it belongs to the user.
    ///
    /// # Errors
    /// `Internal` when it cannot be started at all.
    pub async fn start(data: &Path, run: &Path, binaries: &Binaries, user: &OsUser) -> Result<Self> {
        Self::launch(data, run, binaries, user, None).await
    }

    /// The same on a data directory that is kept, so that its changes are brought to disk; WAL comes by this command.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_kept(
        data: &Path,
        run: &Path,
        binaries: &Binaries,
        user: &OsUser,
        restore_command: &str,
    ) -> Result<Self> {
        Self::launch(data, run, binaries, user, Some(restore_command)).await
    }

    async fn launch(
        data: &Path,
        run: &Path,
        binaries: &Binaries,
        user: &OsUser,
        restore_command: Option<&str>,
    ) -> Result<Self> {
        let (conf, hba, log) = (run.join("postgresql.conf"), run.join("pg_hba.conf"), run.join("log"));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut settings = String::new();
        for (key, value) in [
            ("listen_addresses", ""),
            ("port", &PORT.to_string()),
            ("unix_socket_directories", &format!("\"{}\"", text(run).replace('"', "\"\""))),
            ("unix_socket_permissions", "0700"),
            ("hba_file", &text(&hba)),
            ("hot_standby", "on"),
            ("fsync", if restore_command.is_some() { "on" } else { "off" }),
            ("autovacuum", "off"),
            ("shared_buffers", "64MB"),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
        ] {
            conf_file::line(&mut settings, key, value);
        }
        let write = |path: &Path, text: &str| {
            std::fs::write(path, text).and_then(|()| user.take_path(path)).map_err(|e| {
                Error::unavailable(format!("cannot write a file of the scratch server. path={}", path.display()))
                    .because(e)
            })
        };
        write(&conf, &settings)?;
        // The folder of the socket is closed to all but this user.
        write(&hba, "local all all trust\n")?;
        write(&log, "")?;
        let opened = std::fs::OpenOptions::new().append(true).open(&log);
        let output = opened.map_err(|e| Error::unavailable("cannot open the log of the scratch server").because(e))?;
        let errors = output
            .try_clone()
            .map_err(|e| Error::unavailable("cannot open the log of the scratch server").because(e))?;
        let command = Command::new(binaries.program("postgres"), user, run, Duration::MAX)
            .arg("-D")
            .arg(data)
            .args(["-c".to_owned(), format!("config_file={}", text(&conf))])
            // It stands in the data directory, too, whose settings win over that file's.
            .args(restore_command.into_iter().flat_map(|line| ["-c".to_owned(), format!("restore_command={line}")]));
        let mut process = tokio::process::Command::from(command.to_std());
        process.stdout(Stdio::from(output)).stderr(Stdio::from(errors)).kill_on_drop(true);
        let server = process.spawn().map_err(|e| command.cannot_run(e))?;
        let session = Session::new(run, PORT);
        let (data, run) = (data.to_owned(), run.to_owned());
        Ok(Self { data, run, binaries: binaries.clone(), user: user.clone(), session, server: server.into() })
    }

    /// Waits until recovery has ended.
    ///
    /// # Errors
    /// `Unavailable` when the server ends, or does not get there in time, with the end of its log.
    pub async fn recovered(&self, limit: Duration, clock: &dyn Clock) -> Result<Reached> {
        let deadline = clock.now() + limit;
        loop {
            if let Ok(Some(status)) = self.server.lock().await.try_wait() {
                return Err(Error::unavailable(format!(
                    "postgresql ended while it recovered. status={status}, said={}",
                    self.log_tail()
                )));
            }
            if let Some(reached) = self.reached().await? {
                return Ok(reached);
            }
            if clock.now() >= deadline {
                return Err(Error::unavailable(format!(
                    "recovery did not end in time. limit={limit:?}, said={}",
                    self.log_tail()
                )));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn reached(&self) -> Result<Option<Reached>> {
        let asked = self
            .session
            .query(
                "SELECT pg_last_xact_replay_timestamp()::text,
                        CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END",
                &[],
                LIMIT,
            )
            .await;
        let rows = match asked {
            Ok(rows) => rows,
            Err(Fault::Refused(e)) => return Err(Fault::Refused(e).into()),
            // Not yet.
            Err(_) => return Ok(None),
        };
        let Some(row) = rows.first() else { return Ok(None) };
        let odd = |e| Error::internal("postgresql answered oddly").because(e);
        let column = |n: usize| row.try_get::<_, Option<String>>(n).map_err(odd);
        let Some(own) = column(1)?.and_then(|own| u32::from_str_radix(&own, 16).ok()) else { return Ok(None) };
        // Recovery ended where its own timeline begins.
        let history = read_history(&self.data, TimelineId(own))?;
        let fork =
            history.forks.last().ok_or_else(|| Error::internal("postgresql does not tell how far it recovered"))?;
        Ok(Some(Reached { lsn: fork.end, timeline: fork.timeline, last_commit: column(0)? }))
    }

    /// A session of the superuser.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Checks tables and indexes of every database.
    async fn amcheck(&self, jobs: usize, limit: Duration) -> Vec<String> {
        if !self.binaries.program("pg_amcheck").is_file() {
            return vec!["tables and indexes were not checked: pg_amcheck is not installed".to_owned()];
        }
        let mut said = Vec::new();
        let checked = self
            .program("pg_amcheck", limit)
            .args(["--all", "--install-missing", "--jobs"])
            .arg(jobs.max(1).to_string())
            .run_lines(|line| {
                if said.len() < LINES {
                    said.push(format!("pg_amcheck: {line}"));
                }
            })
            .await;
        match checked {
            Ok(()) => Vec::new(),
            Err(error) => {
                said.push(error.chain());
                said
            }
        }
    }

    /// Runs the user's own queries; what they print, or why they failed.
    async fn query(&self, text: &str, database: &str, limit: Duration) -> Result<Vec<String>, String> {
        let file = self.run.join("verify.sql");
        let written = std::fs::write(&file, text).and_then(|()| self.user.take_path(&file));
        written.map_err(|e| format!("the queries cannot be written for psql: {e}"))?;
        let mut printed = Vec::new();
        let ran = self
            .program("psql", limit)
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f"])
            .arg(&file)
            .run_lines(|line| {
                if printed.len() < LINES {
                    printed.push(line.to_owned());
                }
            })
            .await;
        ran.map(|()| printed).map_err(|error| format!("a query of your own failed: {}", error.chain()))
    }

    fn program(&self, name: &str, limit: Duration) -> Command {
        let port = PORT.to_string();
        Command::new(self.binaries.program(name), &self.user, &self.run, limit)
            .arg("-h")
            .arg(&self.run)
            .args(["-p", &port, "-U", SUPERUSER])
    }

    /// The end of the log, without the questions that came too early.
    fn log_tail(&self) -> String {
        let log = std::fs::read(self.run.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains(TOO_EARLY)).collect();
        let tail = lines[lines.len().saturating_sub(TAIL)..].join(" | ");
        tail.trim().to_owned()
    }

    /// Stops it: in order where it does so in time.
    pub async fn stop(self) {
        let _ = self.shut_down().await;
        crate::postgres::process::kill_all(&self.data);
    }

    /// Shuts it down in order.
    ///
    /// # Errors
    /// `Unavailable` when it does not end in time, or not well; then it may still run until this is dropped.
    pub async fn shut_down(&self) -> Result<()> {
        self.session.close().await;
        let mut server = self.server.lock().await;
        let pid = server.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // A fast shutdown; one that has ended already is told by its status.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        match tokio::time::timeout(STOP_LIMIT, server.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            _ => Err(Error::unavailable(format!("postgresql did not shut down in order. said={}", self.log_tail()))),
        }
    }
}
