//! `pgdock events`

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use pgdock_core::Result;

use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::output::table::Table;

/// Show what happened, on all nodes together
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Only what happened since: a time such as 2026-01-31T12:00:00Z, or a span such as 10m
    #[arg(long, value_parser = since, value_name = "TIME")]
    since: Option<Timestamp>,
    #[command(flatten)]
    output: Output,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago: SignedDuration =
        text.parse().map_err(|_| "expected a time such as 2026-01-31T12:00:00Z, or a span such as 10m")?;
    Timestamp::now().checked_sub(ago).map_err(|e| e.to_string())
}

pub(crate) async fn run(context: &Context, args: EventsArgs) -> Result<Exit> {
    let seen = context.cluster().await?.events(args.since).await?;
    match args.output.output {
        Format::Json => output::json(&seen.events)?,
        Format::Table => {
            let mut table = Table::new(["Time", "Node", "Term", "Kind", "What"]);
            for event in &seen.events {
                table.row([
                    format!("{:.3}", event.at),
                    event.node.to_string(),
                    event.term.map(|term| term.to_string()).unwrap_or_default(),
                    event.kind.to_string(),
                    event.message.clone(),
                ]);
            }
            output::data(&table.to_string())?;
        }
    }
    for (node, error) in &seen.missing {
        output::note(&format!("the events of {node} are missing: {}", error.chain()));
    }
    Ok(Exit::Done)
}
