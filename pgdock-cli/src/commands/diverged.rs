//! `pgdock diverged list`, `pgdock diverged show`, `pgdock diverged drop`

use std::io::{BufRead as _, IsTerminal as _};
use std::str::FromStr;

use clap::{Args, Subcommand};
use pgdock_core::postgres::diverged::{Kept, KeptChanges};
use pgdock_core::{Error, NodeName, Result};

use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::output::table::Table;

/// Look at commits that a failover lost, and that are kept
///
/// An old primary that comes back is rewound to where the new one took over. What it wrote after that is kept on it.
#[derive(Debug, Args)]
pub(crate) struct DivergedArgs {
    #[command(subcommand)]
    command: DivergedCommand,
}

#[derive(Debug, Subcommand)]
enum DivergedCommand {
    /// List what is kept, on all nodes
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Show which rows were changed, by relation; `pgdock status` does not tell of it any more then
    Show {
        /// Which one, as `list` shows it
        #[arg(value_name = "NODE/ID")]
        which: Which,
        #[command(flatten)]
        output: Output,
    },
    /// Remove one for good: no other copy is left
    Drop {
        /// Which one, as `list` shows it
        #[arg(value_name = "NODE/ID")]
        which: Which,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        output: Output,
    },
}

/// One of them: a node, and the name on it.
#[derive(Clone, Debug)]
struct Which {
    node: NodeName,
    id: String,
}

impl FromStr for Which {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (node, id) = text.split_once('/').ok_or("expected NODE/ID, as `pgdock diverged list` shows it")?;
        Ok(Self { node: NodeName::new(node).map_err(|e| e.to_string())?, id: id.to_owned() })
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.node, self.id)
    }
}

pub(crate) async fn run(context: &Context, args: DivergedArgs) -> Result<Exit> {
    match args.command {
        DivergedCommand::List { output } => list(context, output.output).await,
        DivergedCommand::Show { which, output } => show(context, &which, output.output).await,
        DivergedCommand::Drop { which, yes, output } => drop_one(context, &which, yes, output.output).await,
    }
}

async fn list(context: &Context, format: Format) -> Result<Exit> {
    let found = context.cluster().await?.diverged().await?;
    match format {
        Format::Json => output::json(&found.kept)?,
        Format::Table => {
            let mut table = Table::new([
                "Which",
                "When",
                "TL",
                "From",
                "To",
                "Bytes",
                "Transactions",
                "Seen",
                "Kept until dropped in",
            ]);
            for kept in &found.kept {
                table.row([
                    format!("{}/{}", kept.node, kept.id),
                    format!("{:.0}", kept.found_at),
                    kept.timeline.to_string(),
                    kept.from.to_string(),
                    kept.to.to_string(),
                    kept.bytes.to_string(),
                    transactions(kept),
                    if kept.seen { "yes" } else { "no" }.to_owned(),
                    kept.path.display().to_string(),
                ]);
            }
            output::data(&table.to_string())?;
        }
    }
    for (node, error) in &found.missing {
        output::note(&format!("what {node} keeps is not known: {}", error.chain()));
    }
    Ok(if found.missing.is_empty() { Exit::Done } else { Exit::Failed })
}

/// How many there are, as far as is known.
fn transactions(kept: &Kept) -> String {
    match (kept.transactions, &kept.incomplete) {
        (None, _) => "not known".to_owned(),
        (Some(n), None) => n.to_string(),
        (Some(n), Some(_)) => format!("{n} or more"),
    }
}

async fn show(context: &Context, which: &Which, format: Format) -> Result<Exit> {
    let found = context.cluster().await?.diverged_changes(&which.node, &which.id).await?;
    match format {
        Format::Json => output::json(&found)?,
        Format::Table => output::data(&render(&found))?,
    }
    Ok(Exit::Done)
}

fn render(found: &KeptChanges) -> String {
    let kept = &found.kept;
    let mut table = Table::new(["Database", "Relation", "Inserted", "Updated", "Deleted"]);
    for relation in &found.relations {
        table.row([
            relation.database.clone().unwrap_or_default(),
            relation.name.clone().unwrap_or_else(|| relation.files.clone()),
            relation.rows.inserted.to_string(),
            relation.rows.updated.to_string(),
            relation.rows.deleted.to_string(),
        ]);
    }
    let mut text = format!(
        "{} on timeline {}, from {} to {} ({} bytes), {} transactions\n{}\n\n{table}\n",
        kept.node,
        kept.timeline,
        kept.from,
        kept.to,
        kept.bytes,
        transactions(kept),
        kept.path.display(),
    );
    if let Some(why) = &kept.incomplete {
        text.push_str(&format!("\nThere may be more: {why}\n"));
    }
    text
}

async fn drop_one(context: &Context, which: &Which, yes: bool, format: Format) -> Result<Exit> {
    if !yes && !asked(which)? {
        return Err(Error::needs_operator(format!("nothing was removed. which={which}"))
            .hint("`--yes` removes it without asking"));
    }
    context.cluster().await?.drop_diverged(&which.node, &which.id).await?;
    output::done(&format!("{which} was removed"), format)?;
    Ok(Exit::Done)
}

/// Asks a person, if there is one.
fn asked(which: &Which) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    output::note(&format!("{which} holds the only copy of what was lost there. Type its name to remove it:"));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| Error::internal("cannot read an answer").because(e))?;
    Ok(line.trim() == which.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_rows_are_shown_by_relation() {
        let found = serde_json::json!({
            "kept": {
                "id": "tl1-0-3000148", "node": "n1", "found_at": "2026-01-31T12:00:00Z", "timeline": 1, "from": "0/3000148",
                "to": "0/3002000", "bytes": 7864, "transactions": 2, "incomplete": "it was killed", "disk_bytes": 16777216,
                "seen": true, "path": "/opt/pgdock/n1/diverged/tl1-0-3000148"
            },
            "relations": [
                { "files": "1663/5/16384", "database": "app", "name": "public.accounts", "inserted": 100, "updated": 2, "deleted": 0 },
                { "files": "1663/5/16390", "database": "app", "name": null, "inserted": 0, "updated": 0, "deleted": 1 }
            ],
            "report": {
                "node": "n1", "incarnation": null, "system_identifier": 1, "timeline": 1, "fork": "0/3000148", "end": "0/3002000",
                "found_at": "2026-01-31T12:00:00Z", "files": []
            }
        });
        insta::assert_snapshot!(render(&serde_json::from_value(found).unwrap()), @r"
        n1 on timeline 1, from 0/3000148 to 0/3002000 (7864 bytes), 2 or more transactions
        /opt/pgdock/n1/diverged/tl1-0-3000148

         Database | Relation        | Inserted | Updated | Deleted
        ----------+-----------------+----------+---------+---------
         app      | public.accounts | 100      | 2       | 0
         app      | 1663/5/16390    | 0        | 0       | 1

        There may be more: it was killed
        ");
    }

    #[test]
    fn they_are_named_with_their_node() {
        assert_eq!("n1/tl1-0-3".parse::<Which>().unwrap().to_string(), "n1/tl1-0-3");
        assert!("tl1-0-3".parse::<Which>().is_err());
    }
}
