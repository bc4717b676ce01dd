//! What commands print: data on stdout, all else on stderr.

pub(crate) mod progress;
pub(crate) mod status;
pub(crate) mod table;

use std::io::{ErrorKind, Write as _};

use pgdock_core::cluster::plan::Plan;
use pgdock_core::{Error, Result};
use serde::Serialize;

use crate::cli::Format;
use table::Table;

/// Prints data.
pub(crate) fn data(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        // Whoever reads has seen enough, as `head` has.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Error::internal("cannot write to stdout").because(e)),
        Ok(()) => Ok(()),
    }
}

/// Prints data as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::internal("cannot write as JSON").because(e))?;
    data(&text)
}

/// Tells a person something. Where nobody reads it, there is nobody to tell.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints what would be done.
pub(crate) fn plan(plan: &Plan, format: Format) -> Result<()> {
    match format {
        Format::Json => json(plan),
        Format::Table if plan.steps.is_empty() => data("nothing to do"),
        Format::Table => {
            let mut table = Table::new(["Step", "What"]);
            for (i, step) in plan.steps.iter().enumerate() {
                table.row([(i + 1).to_string(), step.to_string()]);
            }
            data(&table.to_string())
        }
    }
}

/// Prints how a change ended: nothing for people that a note does not say, an object for programs.
pub(crate) fn done(text: &str, format: Format) -> Result<()> {
    match format {
        Format::Json => json(&serde_json::json!({ "outcome": "done", "message": text })),
        Format::Table => {
            note(text);
            Ok(())
        }
    }
}
