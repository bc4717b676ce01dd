//! `pgdock witness show`, `pgdock witness probe`

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use pgdock_core::clock::SystemClock;
use pgdock_core::settings::{StoreSettings, WitnessSettings};
use pgdock_core::witness::probe::Verdict;
use pgdock_core::witness::{self, Record, WitnessUrl};
use pgdock_core::{Error, Result, Settings};

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
    /// It is tried on a document of its own, which is removed after, through each address that the store has.
    Probe(Probe),
}

#[derive(Debug, Args)]
struct Probe {
    /// The store, such as s3://BUCKET/PREFIX [default: that of the settings]
    url: Option<String>,
    /// With a URL: the URL of the bucket's store, where it is not the provider's own
    #[arg(long, value_name = "URL", requires = "url")]
    endpoint: Option<String>,
    /// With a URL: the region of the bucket
    #[arg(long, value_name = "REGION", requires = "url")]
    region: Option<String>,
    /// With a URL: the storage account, on Azure
    #[arg(long, value_name = "ACCOUNT", requires = "url")]
    account: Option<String>,
    /// With a URL: the authority that signs the store's certificate
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// With a URL: the file of credentials, KEY=VALUE lines [default: secrets/witness.env]
    #[arg(long, value_name = "FILE", requires = "url")]
    credentials: Option<PathBuf>,
    /// With a URL: go without TLS
    #[arg(long, requires = "url")]
    plain: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(context: &Context, args: WitnessArgs) -> Result<Exit> {
    match args.command {
        WitnessCommand::Show { output } => show(context, output.output).await,
        WitnessCommand::Probe(args) => probe(context, args).await,
    }
}

async fn show(context: &Context, format: Format) -> Result<Exit> {
    let settings = context.settings()?;
    let witness = witness::open(&settings.witness, &settings.cluster.name)?;
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

/// The store that was named, or that of the settings.
fn store(context: &Context, args: &Probe) -> Result<(WitnessSettings, String)> {
    let Some(url) = &args.url else {
        let settings = context.settings()?;
        return Ok((settings.witness, settings.cluster.name));
    };
    let here = std::env::current_dir().map_err(|e| Error::internal("there is no current folder").because(e))?;
    let url = WitnessUrl::parse(url, &here)?;
    let secrets = context.named_dir().map_or(here, Settings::dir_of).join("secrets");
    let default = WitnessSettings::new(url, &secrets);
    let store = StoreSettings {
        endpoint: args.endpoint.clone(),
        region: args.region.clone(),
        account: args.account.clone(),
        tls: !args.plain,
        ca: args.ca.clone(),
        ..StoreSettings::new(args.credentials.clone().unwrap_or_else(|| default.store.credentials_file.clone()))
    };
    let settings = WitnessSettings { store, ..default };
    Ok((settings, "trial".to_owned()))
}

async fn probe(context: &Context, args: Probe) -> Result<Exit> {
    let (settings, cluster) = store(context, &args)?;
    let scratch = witness::open_scratch(&settings, &cluster).await?;
    let report = scratch.probe(&SystemClock).await;
    match args.output.output {
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
            if !report.endpoints.is_empty() {
                output::note(&format!("through {}", report.endpoints.join(", ")));
            }
        }
    }
    if let Some(why) = &report.left_behind {
        output::note(&format!("the document that it was tried on could not be removed: {why}"));
    }
    report.into_result()?;
    Ok(Exit::Done)
}
