//! `pgdock backup create`

use std::time::Duration;

use clap::Args;
use pgdock_core::agent::BackupStatus;
use pgdock_core::backup::Label;
use pgdock_core::{Cluster, Error, NodeName, Result};

use crate::cli::Output;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::status::size;
use crate::output::{self, progress};

/// How often it is asked how far it is.
const POLL: Duration = Duration::from_millis(500);
/// How long an agent may be silent while it makes one.
const SILENT_MAX: Duration = Duration::from_secs(120);

/// Take a base backup now
///
/// The agent of the node takes it: that goes on also where this command is ended.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Of which node [default: a standby that streams, or else the leader]
    #[arg(long, value_name = "NODE")]
    node: Option<NodeName>,
    /// Do not wait for its end
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(context: &Context, args: CreateArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let (node, label) = cluster.begin_backup(args.node.as_ref()).await?;
    let format = args.output.output;
    if args.no_wait {
        output::done(&format!("backup {label} began on {node}"), format)?;
        return Ok(Exit::Done);
    }
    let what = format!("taking backup {label} of {node}");
    progress::during(&what, async |progress| follow(&cluster, &node, &label, progress).await).await?;
    output::done(&format!("backup {label} of {node} is made"), format)?;
    Ok(Exit::Done)
}

/// Waits until it has ended, and says how far it is.
async fn follow(cluster: &Cluster, node: &NodeName, label: &Label, progress: &progress::Progress) -> Result<()> {
    let mut silent = Duration::ZERO;
    loop {
        tokio::time::sleep(POLL).await;
        let status = match cluster.agent(node)?.status().await {
            Ok(status) => status.backup.unwrap_or_default(),
            Err(error) => {
                silent += POLL;
                if silent >= SILENT_MAX {
                    return Err(error.outcome_unknown().hint("`pgdock backup list` shows whether it came to be"));
                }
                continue;
            }
        };
        silent = Duration::ZERO;
        match ended(&status, label) {
            Some(Ok(())) => return Ok(()),
            Some(Err(why)) => {
                return Err(Error::unavailable(format!("the backup failed: {why}. label={label}, node={node}")));
            }
            None => progress.say(describe(&status, label, node)),
        }
    }
}

/// How a backup ended, if it has.
fn ended(status: &BackupStatus, label: &Label) -> Option<Result<(), String>> {
    if status.running.as_ref().is_some_and(|running| running.label == *label) {
        return None;
    }
    match &status.ended {
        Some(ended) if ended.label == *label => Some(ended.error.clone().map_or(Ok(()), Err)),
        _ => Some(Err("the agent was restarted meanwhile".to_owned())),
    }
}

/// How far a backup is, with a bar.
fn describe(status: &BackupStatus, label: &Label, node: &NodeName) -> String {
    const WIDTH: u64 = 20;
    let Some(progress) = status.running.as_ref().and_then(|running| running.progress) else {
        return format!("backup {label} of {node} waits for its turn");
    };
    if progress.settling {
        return format!("backup {label} of {node} waits until its WAL is archived");
    }
    let total = progress.total.max(progress.done).max(1);
    let filled = usize::try_from(progress.done * WIDTH / total).unwrap_or_default();
    let bar = format!("{}{}", "#".repeat(filled), "-".repeat(usize::try_from(WIDTH).unwrap_or_default() - filled));
    format!("{node} [{bar}] {} of {}, {} stored", size(progress.done), size(total), size(progress.stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> BackupStatus {
        serde_json::from_str(text).unwrap()
    }

    const LABEL: &str = "20261130T231500Z-0000000a";

    #[test]
    fn how_it_ended_is_told_from_other_backups() {
        let label: Label = LABEL.parse().unwrap();
        let of = |text: &str| ended(&status(text), &label);
        assert_eq!(of(&format!(r#"{{"running":{{"label":"{LABEL}","progress":null}},"ended":null}}"#)), None);
        let with = |label: &str, error: &str| {
            of(&format!(
                r#"{{"running":null,"ended":{{"label":"{label}","at":"2026-11-30T23:20:00Z","error":{error}}}}}"#
            ))
        };
        assert_eq!(with(LABEL, "null"), Some(Ok(())));
        assert_eq!(with(LABEL, "\"no room\""), Some(Err("no room".to_owned())));
        assert!(with("20261130T231500Z-0000000b", "null").is_some_and(|ended| ended.is_err()));
    }

    #[test]
    fn progress_has_a_bar() {
        let (label, node) = (LABEL.parse().unwrap(), NodeName::new("n2").unwrap());
        let at = |done: u64, settling: bool| {
            let progress =
                format!(r#"{{"total":2097152,"done":{done},"stored":1048576,"files":3,"settling":{settling}}}"#);
            describe(
                &status(&format!(r#"{{"running":{{"label":"{LABEL}","progress":{progress}}},"ended":null}}"#)),
                &label,
                &node,
            )
        };
        assert_eq!(at(1_048_576, false), "n2 [##########----------] 1024 kB of 2048 kB, 1024 kB stored");
        assert!(at(2_097_152, true).contains("WAL is archived"));
    }
}
