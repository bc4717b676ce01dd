//! `pgdock backup restore`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pgdock_core::backup::restore::{Action, Destination, Recovery, Target, choose, reach, restore};
use pgdock_core::backup::verify::{Reached, Scratch};
use pgdock_core::backup::{Catalog, Label, Manifest, Repository};
use pgdock_core::clock::SystemClock;
use pgdock_core::postgres::os_user::OsUser;
use pgdock_core::{Error, Result, Settings, TimelineId};

use super::{LIMIT, Supply, binaries, with_progress};
use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::status::size;
use crate::output::{self, progress};

/// Restore a backup into a fresh folder
///
/// The newest backup that ended before the target is taken; PostgreSQL recovers from there to the target when it is started on the folder. Every
/// object is proven, and every file is on disk, before this ends. What is restored archives nothing, and follows no other node.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The data directory to make; it must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Up to where to recover: latest, consistent, a time such as 2026-11-30T23:15:00Z, a position such as 0/3000148, xid:N or name:NAME
    #[arg(long, value_name = "TARGET", default_value = "latest")]
    at: Target,
    /// Along which timeline [default: the newest that the archive knows]
    #[arg(long, value_name = "NUMBER")]
    timeline: Option<u32>,
    /// From which backup, as `pgdock backup list` shows it
    #[arg(long, value_name = "LABEL")]
    backup: Option<Label>,
    /// What PostgreSQL does at the target
    #[arg(long, value_enum, default_value_t = Then::Promote)]
    then: Then,
    /// Where a tablespace goes; may be given several times [default: where it was]
    #[arg(long, value_name = "OID=DIR", value_parser = tablespace)]
    tablespace: Vec<(u32, PathBuf)>,
    /// Have PostgreSQL recover now, and leave it shut down: whoever starts it then needs nothing of the archive
    #[arg(long, conflicts_with = "then")]
    recover: bool,
    /// Say what would be restored, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// What PostgreSQL does at the target.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Then {
    /// Takes writes, on a timeline of its own
    Promote,
    /// Waits, for a look; `SELECT pg_wal_replay_resume()` goes on
    Pause,
    /// Shuts down
    Shutdown,
}

fn tablespace(text: &str) -> Result<(u32, PathBuf), String> {
    let (oid, dir) = text.split_once('=').ok_or("expected OID=DIR")?;
    let oid = oid.parse().map_err(|_| "expected the number of a tablespace, as the names in pg_tblspc are")?;
    Ok((oid, std::path::absolute(dir).map_err(|e| e.to_string())?))
}

pub(super) async fn run(context: &Context, args: RestoreArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let repository = Repository::open(&settings).await?;
    let (sink, codec) = (&repository.sink, &repository.codec);
    let catalog = Catalog::load(&**sink, codec).await?;
    // With the error that fits, where there is none at all.
    let newest = &catalog.find(args.backup.as_ref())?.manifest;
    let timeline = args.timeline.map(TimelineId);
    let reached = reach(&**sink, codec, newest.system_identifier, newest.wal_segment_bytes, timeline).await?;
    let same: Vec<Manifest> =
        catalog.manifests().into_iter().filter(|m| m.system_identifier == newest.system_identifier).collect();
    let manifest = choose(&same, args.backup.as_ref(), &args.at, &reached)?;
    let to = Destination {
        data: std::path::absolute(&args.to).map_err(|e| Error::invalid("not a folder").because(e))?,
        tablespaces: args.tablespace.iter().cloned().collect::<BTreeMap<_, _>>(),
        owner: owner(&settings)?,
        processes: settings.backup.as_ref().map_or(2, |backup| backup.processes as usize),
    };
    let recovery = Recovery {
        target: args.at.clone(),
        timeline,
        action: match args.then {
            Then::Promote => Action::Promote,
            Then::Pause => Action::Pause,
            Then::Shutdown => Action::Shutdown,
        },
        restore_command: restore_command(&settings.dir)?,
    };
    let what = format!(
        "the backup {} ({}) to {}, then recovers to {}",
        manifest.label,
        size(manifest.plain),
        to.data.display(),
        args.at
    );
    if args.dry_run {
        return told(&args, manifest, &to, &format!("would restore {what}"));
    }
    with_progress("restoring", async |progress| restore(sink.clone(), codec, manifest, &to, &recovery, progress).await)
        .await?;
    if args.recover {
        let recovered = recover(&settings, &repository, manifest, &to).await;
        let reached = recovered.map_err(|error| match &args.at {
            // Where a name or a transaction lies is not known before it is come by.
            Target::Name(_) | Target::Xid(_) if args.backup.is_none() => {
                error.hint("if the target lies before that backup, name an older one with `--backup`")
            }
            _ => error,
        })?;
        let text = format!(
            "restored the backup {} to {}, and recovered to {} on timeline {}",
            manifest.label,
            to.data.display(),
            reached.lsn,
            reached.timeline
        );
        return told(&args, manifest, &to, &text);
    }
    told(&args, manifest, &to, &format!("restored {what}"))?;
    if matches!(args.output.output, Format::Table) {
        output::note(&format!(
            "`pg_ctl -D {} -o '-p PORT' start` recovers it, as a user who can read {}",
            to.data.display(),
            settings.dir.display()
        ));
    }
    Ok(Exit::Done)
}

/// Runs PostgreSQL on what was restored until it has recovered, and shuts it down in order.
async fn recover(
    settings: &Settings,
    repository: &Repository,
    manifest: &Manifest,
    to: &Destination,
) -> Result<Reached> {
    let user = OsUser::resolve(&settings.postgres.user)?;
    let supply = Supply::of(repository, manifest.system_identifier, &user)?;
    let binaries = binaries(settings, manifest)?;
    progress::during("recovering", async |_| {
        let server = Scratch::start_kept(&to.data, supply.folder(), &binaries, &user, &supply.restore_command).await?;
        let reached = server.recovered(LIMIT, &SystemClock).await;
        // Whatever became of it, it does not go on alone.
        let ended = server.shut_down().await;
        server.stop().await;
        let reached = reached?;
        ended.map(|()| reached)
    })
    .await
}

fn told(args: &RestoreArgs, manifest: &Manifest, to: &Destination, text: &str) -> Result<Exit> {
    match args.output.output {
        Format::Table => output::note(text),
        Format::Json => output::json(&serde_json::json!({
            "backup": manifest.label, "to": to.data, "at": args.at.to_string(), "bytes": manifest.plain, "dry_run": args.dry_run,
        }))?,
    }
    Ok(Exit::Done)
}

/// Who is to own what root restores.
fn owner(settings: &Settings) -> Result<Option<OsUser>> {
    if rustix::process::geteuid().is_root() { OsUser::resolve(&settings.postgres.user).map(Some) } else { Ok(None) }
}

/// How the restored server gets WAL: from this program, by these settings.
fn restore_command(dir: &Path) -> Result<String> {
    let program = std::env::current_exe().map_err(|e| Error::internal("this program has no path").because(e))?;
    let dir = std::path::absolute(dir).map_err(|e| Error::internal("the settings have no path").because(e))?;
    Ok(format!("{} --config {} wal fetch %f %p", word(&program), word(&dir)))
}

/// A path as one word of a shell, for a setting in which `%` stands for something.
fn word(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tablespaces_are_read() {
        assert_eq!(tablespace("16400=/srv/fast").unwrap(), (16400, "/srv/fast".into()));
        for bad in ["", "16400", "fast=/srv/fast"] {
            assert!(tablespace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_are_words() {
        assert_eq!(word(Path::new("/a b/it's 100%")), "'/a b/it'\\''s 100%%'");
    }
}
