//! `pgdock backup verify`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use pgdock_core::backup::restore::{Action, Recovery, Target};
use pgdock_core::backup::verify::boot::boot;
use pgdock_core::backup::verify::{Boot, Level, Report, read_all};
use pgdock_core::backup::{Catalog, Label, Manifest, Repository};
use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::postgres::os_user::OsUser;
use pgdock_core::{Error, Result, Settings};

use super::{LIMIT, Supply, binaries, span, with_progress};
use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::output::status::size;

/// Prove that a backup restores: read all of it, or do it
///
/// Every object of the backup, and the WAL that it needs, is read and its digests are compared. With --boot it is restored into a scratch
/// folder besides, PostgreSQL recovers from it, pg_amcheck looks at every table and index, and queries of your own are run.
/// The result is kept in the archive; `pgdock backup list` shows it. Ends with 1 where anything is wrong.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Which one, as `pgdock backup list` shows it [default: the newest]
    #[arg(value_name = "LABEL")]
    label: Option<Label>,
    /// Restore it, and look at the data
    #[arg(long)]
    boot: bool,
    /// Up to where to recover: latest, consistent, a time, a position, xid:N or name:NAME
    #[arg(long, value_name = "TARGET", default_value = "latest", requires = "boot")]
    at: Target,
    /// A folder for the restored data, which must not exist, and is removed in the end [default: below the system's folder for temporary files]
    #[arg(long, value_name = "DIR", requires = "boot")]
    scratch: Option<PathBuf>,
    /// A file of queries for psql; one that fails is a problem
    #[arg(long, value_name = "FILE", requires = "boot")]
    query: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(context: &Context, args: VerifyArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let repository = Repository::open(&settings).await?;
    let catalog = Catalog::load(&*repository.sink, &repository.codec).await?;
    let manifest = &catalog.find(args.label.as_ref())?.manifest;
    let begin = SystemClock.now();
    let processes = processes(&settings);
    let read = with_progress("reading the backup", async |progress| {
        read_all(repository.sink.clone(), &repository.codec, manifest, processes, progress).await
    })
    .await?;
    let mut report = Report {
        label: manifest.label.clone(),
        at: SystemClock.wall(),
        level: Level::Digests,
        objects: read.objects,
        bytes: read.bytes,
        seconds: 0,
        reached: None,
        printed: Vec::new(),
        problems: read.problems,
    };
    // What cannot be read is not restored: the answer is known.
    if args.boot && report.good() {
        let booted = booted(&settings, &repository, manifest, &args, processes).await?;
        report.level = Level::Boot;
        (report.reached, report.printed, report.problems) = (booted.reached, booted.printed, booted.problems);
    }
    (report.at, report.seconds) = (SystemClock.wall(), SystemClock.now().since(begin).as_secs());
    report.save(&*repository.sink, &repository.codec).await?;
    match args.output.output {
        Format::Json => output::json(&report)?,
        Format::Table => output::data(&render(&report))?,
    }
    Ok(if report.good() { Exit::Done } else { Exit::Failed })
}

fn processes(settings: &Settings) -> usize {
    settings.backup.as_ref().map_or(2, |backup| backup.processes as usize)
}

async fn booted(
    settings: &Settings,
    repository: &Repository,
    manifest: &Manifest,
    args: &VerifyArgs,
    processes: usize,
) -> Result<pgdock_core::backup::verify::boot::Booted> {
    let os_user = OsUser::resolve(&settings.postgres.user)?;
    let query = match args.query.as_ref().or_else(|| settings.backup.as_ref()?.verify_query.as_ref()) {
        None => None,
        Some(file) => {
            let text = std::fs::read_to_string(file);
            let text = text
                .map_err(|e| Error::invalid(format!("cannot read the queries. file={}", file.display())).because(e))?;
            Some((text, settings.postgres.database.clone()))
        }
    };
    let scratch = match &args.scratch {
        Some(dir) => std::path::absolute(dir).map_err(|e| Error::invalid("not a folder").because(e))?,
        None => std::env::temp_dir().join(format!("pgdock-verify-{}", manifest.label)),
    };
    let supply = Supply::of(repository, manifest.system_identifier, &os_user)?;
    let how = Boot {
        scratch,
        binaries: binaries(settings, manifest)?,
        os_user,
        recovery: Recovery {
            target: args.at.clone(),
            timeline: None,
            action: Action::Promote,
            restore_command: supply.restore_command.clone(),
        },
        query,
        processes,
        limit: LIMIT,
    };
    with_progress("restoring and recovering the backup", async |progress| {
        boot(repository.sink.clone(), &repository.codec, manifest, &how, &SystemClock, progress).await
    })
    .await
}

fn render(report: &Report) -> String {
    let mut text = format!(
        "{}: {} objects, {}, {}\n",
        report.label,
        report.objects,
        size(report.bytes),
        span(Duration::from_secs(report.seconds))
    );
    if let Some(reached) = &report.reached {
        text.push_str(&format!("recovered to {} on timeline {}", reached.lsn, reached.timeline));
        if let Some(commit) = &reached.last_commit {
            text.push_str(&format!(", last commit {commit}"));
        }
        text.push('\n');
    }
    for line in &report.printed {
        text.push_str(&format!("  {line}\n"));
    }
    if report.good() {
        text.push_str("the backup is good\n");
    }
    for problem in &report.problems {
        text.push_str(&format!("BAD: {problem}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_for_people() {
        let report = serde_json::json!({
            "label": "20261130T231500Z-9f01c2aa", "at": "2026-12-01T05:00:09Z", "level": "boot", "objects": 12, "bytes": 88_000_000,
            "seconds": 65, "reached": { "lsn": "0/5000148", "timeline": 1, "last_commit": "2026-12-01 04:59:59+00" },
            "printed": ["rows: 17"], "problems": []
        });
        let mut report: Report = serde_json::from_value(report).unwrap();
        insta::assert_snapshot!(render(&report), @r"
        20261130T231500Z-9f01c2aa: 12 objects, 83 MB, 1 min 5 s
        recovered to 0/5000148 on timeline 1, last commit 2026-12-01 04:59:59+00
          rows: 17
        the backup is good
        ");
        report.problems.push("an object of the archive is damaged. key=base/x/data/00000001".into());
        let text = render(&report);
        assert!(
            text.ends_with("BAD: an object of the archive is damaged. key=base/x/data/00000001\n")
                && !text.contains("good"),
            "{text}"
        );
    }
}
