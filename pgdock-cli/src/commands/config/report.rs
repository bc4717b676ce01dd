//! What came of nodes, as a table or JSON.

use pgdock_core::bundle::install::Installed;
use pgdock_core::{Error, NodeName, Result};
use serde_json::json;

use crate::cli::Format;
use crate::exit::{self, Exit};
use crate::output::{self, table::Table};

/// Prints what came of each node, and returns how the program is to end: as the first failure has it.
pub(super) fn nodes(results: &[(NodeName, Result<Installed>)], format: Format) -> Result<Exit> {
    match format {
        Format::Json => {
            let rows: Vec<_> = results.iter().map(|(node, result)| row(node, result)).collect();
            output::json(&rows)?;
        }
        Format::Table => {
            let mut table = Table::new(["Node", "Tag", "Bundle", "Result"]);
            for (node, result) in results {
                let (tag, digest) = match result {
                    Ok(done) => (done.tag.clone().unwrap_or_default(), done.digest.short().to_owned()),
                    Err(_) => Default::default(),
                };
                table.row([node.to_string(), tag, digest, words(result)]);
            }
            output::data(&table.to_string())?;
            for (_, result) in results {
                if let Err(error) = result {
                    output::note(&format!("error: {}", error.chain()));
                    error.hints().iter().for_each(|hint| output::note(&format!("hint: {hint}")));
                }
            }
        }
    }
    let failed = results.iter().find_map(|(_, result)| result.as_ref().err());
    Ok(failed.map_or(Exit::Done, exit::of))
}

fn row(node: &NodeName, result: &Result<Installed>) -> serde_json::Value {
    match result {
        Ok(done) => json!({
            "node": node, "tag": done.tag, "digest": done.digest, "before": done.before, "applied": done.applied,
            "error": null,
        }),
        Err(error) => json!({ "node": node, "error": error.chain(), "hints": error.hints() }),
    }
}

/// The result in words.
fn words(result: &Result<Installed>) -> String {
    let Ok(done) = result else { return "FAILED".to_owned() };
    let mut words = Vec::new();
    match &done.applied {
        None => words.push("counts from the next start on".to_owned()),
        Some(applied) => {
            let unchanged = done.before.as_ref() == Some(&done.digest);
            words.push(match (applied.reloaded, unchanged) {
                (false, _) => "counts from PostgreSQL's next start on".to_owned(),
                (true, true) => "unchanged, reloaded".to_owned(),
                (true, false) => "reloaded".to_owned(),
            });
            if !applied.restart.is_empty() {
                words.push(format!("wait for a restart: {}", applied.restart.join(", ")));
            }
            if !applied.agent.is_empty() {
                words.push(format!("wait for a restart of the agent: {}", applied.agent.join(", ")));
            }
        }
    }
    words.join("; ")
}

/// Tells what is left to be done.
pub(super) fn advise(results: &[(NodeName, Result<Installed>)]) {
    let applied = |(node, result): &(NodeName, Result<Installed>)| {
        result.as_ref().ok().and_then(|done| done.applied.clone()).map(|applied| (node.clone(), applied))
    };
    let all: Vec<_> = results.iter().filter_map(applied).collect();
    let names = |waits: &dyn Fn(&pgdock_core::agent::Applied) -> bool| -> Vec<String> {
        all.iter().filter(|(_, applied)| waits(applied)).map(|(node, _)| node.to_string()).collect()
    };
    let restart = names(&|applied| !applied.restart.is_empty());
    if !restart.is_empty() {
        output::note(&format!(
            "next: `pgdock restart {}`, or `pgdock config update --rolling`, which does all in turn",
            restart.join("`, `pgdock restart ")
        ));
    }
    let agent = names(&|applied| !applied.agent.is_empty());
    if !agent.is_empty() {
        output::note(&format!("next: restart the agents of {}, one after the other", agent.join(", ")));
    }
}

/// No node at all could be done.
pub(super) fn none_left(results: &[(NodeName, Result<Installed>)]) -> Result<()> {
    if results.iter().any(|(_, result)| result.is_err()) {
        return Err(Error::needs_operator("not every node took the bundle, so none is restarted")
            .hint("correct the bundle, or name the nodes that have it"));
    }
    Ok(())
}
