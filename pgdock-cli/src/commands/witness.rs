//! `pgdock witness show`, `pgdock witness probe`

use std::time::Duration;

use clap::{Args, Subcommand};
use pgdock_core::clock::SystemClock;
use pgdock_core::witness::probe::Verdict;
use pgdock_core::witness::{self, Record};
use pgdock_core::{Error, Result};

use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::output::table::Table;

/// Look at the witness
#[derive(Debug, Args)]
pub(crate) struct WitnessArgs {
    #[command(subcommand)]
    command: WitnessCommand,
}

#[derive(Debug, Subcommand)]
enum WitnessCommand {
    /// Show the document: who leads, in which term, who holds every commit
    Show {
        #[command(flatten)]
        output: Output,
    },
    /// Prove that a store honours the conditions that a witness rests on
    ///
    /// It is tried on a document of its own, which is removed after.
    Probe {
        /// The store, such as file:/srv/witness/shop.json [default: that of the settings]
        url: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

pub(crate) async fn run(context: &Context, args: WitnessArgs) -> Result<Exit> {
    match args.command {
        WitnessCommand::Show { output } => show(context, output.output).await,
        WitnessCommand::Probe { url, output } => probe(context, url, output.output).await,
    }
}

async fn show(context: &Context, format: Format) -> Result<Exit> {
    let settings = context.settings()?;
    let witness = witness::open(&settings.witness.url, &settings.dir, &settings.cluster.name)?;
    let Some((record, version)) = witness.read().await? else {
        return Err(Error::not_ready(format!("there is no document yet. witness={witness}"))
            .hint("`pgdock up` founds the cluster, and makes it"));
    };
    match format {
        Format::Json => output::json(&record)?,
        Format::Table => output::data(&table(&record, &version.to_string()).to_string())?,
    }
    Ok(Exit::Done)
}

fn table(record: &Record, version: &str) -> Table {
    let name = |node: &Option<_>| node.as_ref().map(ToString::to_string).unwrap_or_default();
    let sync_set: Vec<_> = record.sync_set.iter().map(ToString::to_string).collect();
    let members: Vec<_> = record.members.iter().map(|(node, address)| format!("{node} {address}")).collect();
    let mut table = Table::new(["Field", "Value"]);
    for (field, value) in [
        ("cluster", record.cluster.clone()),
        ("system identifier", record.system_identifier.to_string()),
        ("term", record.term.to_string()),
        ("leader", name(&record.leader)),
        ("handed to", name(&record.handoff_to)),
        ("durability", record.durability.to_string()),
        ("sync set", sync_set.join(", ")),
        ("acknowledgements", record.acks.to_string()),
        ("timeline", record.timeline.to_string()),
        ("leader's LSN", record.leader_lsn.to_string()),
        ("members", members.join(", ")),
        ("paused", record.paused.to_string()),
        ("ttl", format!("{:?}", record.ttl)),
        ("heartbeat", record.heartbeat.to_string()),
        ("version", version.to_owned()),
    ] {
        table.row([field.to_owned(), value]);
    }
    table
}

async fn probe(context: &Context, url: Option<String>, format: Format) -> Result<Exit> {
    let here = std::env::current_dir().map_err(|e| Error::internal("there is no current folder").because(e))?;
    let scratch = match url {
        Some(url) => witness::open_scratch(&url, &here, "probe")?,
        None => {
            let settings = context.settings()?;
            witness::open_scratch(&settings.witness.url, &settings.dir, &settings.cluster.name)?
        }
    };
    let report = scratch.probe(&SystemClock).await;
    match format {
        Format::Json => output::json(&report)?,
        Format::Table => {
            let mut table = Table::new(["Check", "Verdict", "Time", "Why"]);
            for check in &report.checks {
                let (verdict, why) = match &check.verdict {
                    Verdict::Passed => ("passed", ""),
                    Verdict::Failed(why) => ("FAILED", why.as_str()),
                    Verdict::Unknown(why) => ("unknown", why.as_str()),
                };
                let time = Duration::from_micros(check.micros);
                table.row([check.name.to_owned(), verdict.to_owned(), format!("{time:.1?}"), why.to_owned()]);
            }
            output::data(&table.to_string())?;
        }
    }
    if let Some(why) = &report.left_behind {
        output::note(&format!("the document that it was tried on could not be removed: {why}"));
    }
    report.into_result()?;
    Ok(Exit::Done)
}
