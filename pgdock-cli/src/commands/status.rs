//! `pgdock status`

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use pgdock_core::cluster::ClusterStatus;
use pgdock_core::{Cluster, Error, Result};

use crate::cli::{Format, Output};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, status, table};

/// Show roles, timelines, positions, lag and problems
///
/// Ends with 3 where something is wrong.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Show it again and again, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// How often, in seconds
    #[arg(long, default_value_t = 1.0, requires = "watch", value_parser = interval, value_name = "SECONDS")]
    interval: f64,
    #[command(flatten)]
    output: Output,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected 0.1 to 3600".to_owned()),
    }
}

pub(crate) async fn run(context: &Context, args: StatusArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let format = args.output.output;
    if args.watch {
        watch(&cluster, Duration::from_secs_f64(args.interval), format).await?;
        return Ok(Exit::Done);
    }
    let now = cluster.status().await?;
    output::data(&render(&now, format)?)?;
    Ok(if now.is_healthy() { Exit::Done } else { Exit::Unhealthy })
}

fn render(now: &ClusterStatus, format: Format) -> Result<String> {
    match format {
        Format::Table => Ok(status::render(now)),
        Format::Json => {
            serde_json::to_string_pretty(now).map_err(|e| Error::internal("cannot write as JSON").because(e))
        }
    }
}

/// Redraws in place on a terminal; elsewhere one status follows the other.
async fn watch(cluster: &Cluster, interval: Duration, format: Format) -> Result<()> {
    let in_place = std::io::stdout().is_terminal() && format == Format::Table;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    let mut drawn = 0;
    loop {
        let now = tokio::select! {
            _ = &mut stop => return Ok(()),
            now = async { ticks.tick().await; cluster.status().await } => now?,
        };
        let mut text = render(&now, format)?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if in_place {
            // Back to where the last one began, and clear from there.
            let back = if drawn > 0 { format!("\x1b[{drawn}A\r\x1b[J") } else { String::new() };
            output::data(&format!("{back}{text}"))?;
            drawn = rows(&text, table::terminal_width());
        } else {
            output::data(&text)?;
        }
    }
}

/// How many rows a text takes on a terminal that wraps long lines.
fn rows(text: &str, width: Option<usize>) -> usize {
    let of_line = |line: &str| width.map_or(1, |width| line.chars().count().div_ceil(width.max(1)).max(1));
    text.lines().map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_lines_count_as_they_are_shown() {
        assert_eq!(rows("a\n\nb\n", Some(80)), 3);
        assert_eq!(rows(&format!("{}\nb\n", "x".repeat(161)), Some(80)), 4);
        assert_eq!(rows(&"x".repeat(80), Some(80)), 1);
        assert_eq!(rows(&"x".repeat(200), None), 1);
    }
}
