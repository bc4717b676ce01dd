//! `pgdock backup expire`

use clap::Args;
use pgdock_core::Result;
use pgdock_core::backup::expire::{self, Deleted};
use pgdock_core::backup::retention::{self, Plan, Stock, Why};
use pgdock_core::backup::{Label, Repository};
use pgdock_core::clock::{Clock as _, SystemClock};
use serde::Serialize;

use crate::cli::{Change, Format};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::output::table::Table;

/// Delete the backups that no rule of `[backup] keep` keeps, and the WAL that none of the others needs
///
/// It also deletes what interrupted backups left, once they are a day old and another one was begun after them.
#[derive(Debug, Args)]
pub(crate) struct ExpireArgs {
    #[command(flatten)]
    change: Change,
}

/// What is printed for programs.
#[derive(Debug, Serialize)]
struct Told<'a> {
    dry_run: bool,
    keep: Vec<Kept<'a>>,
    expire: &'a [Label],
    leftovers: &'a [Label],
    unreadable: &'a [Label],
    deleted: Deleted,
}

#[derive(Debug, Serialize)]
struct Kept<'a> {
    label: &'a Label,
    why: Vec<&'static str>,
}

pub(super) async fn run(context: &Context, args: ExpireArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let repository = Repository::open(&settings).await?;
    let keep = settings.backup.as_ref().map(|backup| backup.keep).unwrap_or_default();
    let now = SystemClock.wall();
    let stock = expire::stock(&repository, None).await?;
    let plan = retention::plan(&stock, &keep, now);
    let sink = repository.sink.as_ref();
    let dry = args.change.dry_run;
    let deleted = if dry { expire::survey(sink, &plan, now).await? } else { expire::expire(sink, &plan, now).await? };
    match args.change.output.output {
        Format::Json => output::json(&told(dry, &stock, &plan, deleted))?,
        Format::Table => {
            output::data(&table(dry, &stock, &plan).to_string())?;
            output::note(&summary(dry, &stock, deleted));
        }
    }
    Ok(Exit::Done)
}

fn words(why: &[Why]) -> Vec<&'static str> {
    why.iter().map(|why| why.as_str()).collect()
}

fn told<'a>(dry_run: bool, stock: &'a Stock, plan: &'a Plan, deleted: Deleted) -> Told<'a> {
    let keep = plan.keep.iter().map(|(label, why)| Kept { label, why: words(why) }).collect();
    Told { dry_run, keep, expire: &plan.expire, leftovers: &plan.sweep, unreadable: &stock.unreadable, deleted }
}

fn table(dry: bool, stock: &Stock, plan: &Plan) -> Table {
    let gone = if dry { "would be deleted" } else { "deleted" };
    let mut rows: Vec<(&Label, String)> = Vec::new();
    rows.extend(plan.keep.iter().map(|(label, why)| (label, format!("kept: {}", words(why).join(", ")))));
    rows.extend(plan.expire.iter().map(|label| (label, gone.to_owned())));
    rows.extend(plan.sweep.iter().map(|label| (label, format!("never ended, {gone}"))));
    rows.extend(stock.unreadable.iter().map(|label| (label, "kept: cannot be read".to_owned())));
    rows.sort();
    let mut table = Table::new(["Backup", "Verdict"]);
    for (label, verdict) in rows {
        table.row([label.to_string(), verdict]);
    }
    table
}

fn summary(dry: bool, stock: &Stock, deleted: Deleted) -> String {
    let Deleted { backups, leftovers, wal_files, objects, bytes } = deleted;
    let verb = if dry { "would be deleted" } else { "deleted" };
    let mut text = format!(
        "{verb}: backups {backups}, leftovers {leftovers}, files of WAL {wal_files}; in all {objects} objects, {bytes} bytes"
    );
    if !stock.unreadable.is_empty() {
        text.push_str("; all WAL is kept, as what the backups need that cannot be read is not known");
    }
    text
}
