//! `pgdock backup …`: base backups and WAL in the store of `[backup]`.

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use pgdock_core::backup::base::Progress;
use pgdock_core::backup::wal::socket::Service;
use pgdock_core::backup::wal::{Fetcher, WalStore, client, socket};
use pgdock_core::backup::{Manifest, Repository};
use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::postgres::os_user::OsUser;
use pgdock_core::postgres::version::Binaries;
use pgdock_core::{Error, Result, Settings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::progress;
use crate::output::status::size;

mod create;
mod expire;
mod list;
mod restore;
mod verify;

/// Take backups, look at them, prove and restore them, and delete those that are not kept
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    Create(create::CreateArgs),
    List(list::ListArgs),
    Verify(verify::VerifyArgs),
    Restore(restore::RestoreArgs),
    Expire(expire::ExpireArgs),
}

pub(crate) async fn run(context: &Context, args: BackupArgs) -> Result<Exit> {
    match args.command {
        BackupCommand::Create(args) => create::run(context, args).await,
        BackupCommand::List(args) => list::run(context, args).await,
        BackupCommand::Verify(args) => verify::run(context, args).await,
        BackupCommand::Restore(args) => restore::run(context, args).await,
        BackupCommand::Expire(args) => expire::run(context, args).await,
    }
}

/// Gives archived WAL to a recovery over a socket, for as long as it is there: PostgreSQL's user need not be able to read the secrets.
struct Supply {
    restore_command: String,
    folder: tempfile::TempDir,
    end: CancellationToken,
}

impl Supply {
    fn of(repository: &Repository, system: u64, user: &OsUser) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("pgdock-wal-").tempdir();
        let folder = folder.map_err(|e| Error::unavailable("cannot make a folder for a socket").because(e))?;
        let path = folder.path().join("s");
        // It lets that user pass, and nobody else.
        let root = rustix::process::geteuid().is_root();
        let owned = if root { std::os::unix::fs::chown(folder.path(), Some(user.uid), Some(user.gid)) } else { Ok(()) };
        owned.map_err(|e| Error::unavailable("cannot give a folder to PostgreSQL's user").because(e))?;
        let listener = socket::listen(&path, user)?;
        let store = WalStore::new(repository.sink.clone(), repository.codec.clone(), system);
        let service = Service { fetcher: Some(Arc::new(Fetcher::new(store))), ..Service::default() };
        let end = CancellationToken::new();
        tokio::spawn(socket::serve(listener, service, end.clone()));
        let program = std::env::current_exe().map_err(|e| Error::internal("this program has no path").because(e))?;
        Ok(Self { restore_command: client::restore_command(&program, &path), folder, end })
    }

    /// A folder that PostgreSQL's user owns, for as long as this is there.
    fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// The PostgreSQL that a backup needs.
fn binaries(settings: &Settings, manifest: &Manifest) -> Result<Binaries> {
    let path = std::env::var_os("PATH");
    Binaries::find(settings.postgres.bin_dir.as_deref(), Some(manifest.major()), path.as_deref())
}

/// How long a recovery may take, and each check of what was recovered.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How often progress is told.
const EVERY: Duration = Duration::from_millis(250);

/// Runs what takes long, and tells how far it is and how long it may take still.
async fn with_progress<T>(doing: &str, work: impl AsyncFnOnce(&watch::Sender<Progress>) -> T) -> T {
    let told = watch::Sender::new(Progress::default());
    progress::during(doing, async |shown| {
        let work = work(&told);
        tokio::pin!(work);
        let (begin, mut ticks) = (SystemClock.now(), tokio::time::interval(EVERY));
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => shown.say(line(doing, *told.borrow(), SystemClock.now().since(begin))),
            }
        }
    })
    .await
}

fn line(doing: &str, at: Progress, took: Duration) -> String {
    if at.total == 0 {
        return doing.to_owned();
    }
    let share = at.done.min(at.total) as f64 / at.total as f64;
    let mut text = format!("{doing}: {:.0} % of {}", share * 100.0, size(at.total));
    if at.settling {
        text.push_str(", bringing it to disk");
    } else if share > 0.02 {
        let left = took.as_secs_f64() * (1.0 - share) / share;
        text.push_str(&format!(", {} left", span(Duration::from_secs_f64(left))));
    }
    text
}

/// A duration for people.
fn span(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_for_people() {
        let spans = [5, 65, 3_720].map(|s| span(Duration::from_secs(s)));
        assert_eq!(spans, ["5 s", "1 min 5 s", "1 h 2 min"]);
    }

    #[test]
    fn progress_tells_what_is_left() {
        let at = |done, settling| Progress { total: 1_000_000, done, settling, ..Progress::default() };
        assert_eq!(line("restoring", Progress::default(), Duration::ZERO), "restoring");
        assert_eq!(
            line("restoring", at(250_000, false), Duration::from_secs(10)),
            "restoring: 25 % of 976 kB, 30 s left"
        );
        assert_eq!(
            line("restoring", at(1_000_000, true), Duration::from_secs(10)),
            "restoring: 100 % of 976 kB, bringing it to disk"
        );
    }
}
