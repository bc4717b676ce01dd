//! `pgdock node logs`

use std::io::Write as _;

use clap::Args;
use pgdock_core::executor::docker::LogOptions;
use pgdock_core::executor::{Command, ExecutorExt as _};
use pgdock_core::{Error, NodeName, Result};

use crate::context::Context;
use crate::exit::Exit;
use crate::{output, reach};

/// Print what the agent of a node wrote, or PostgreSQL with --postgres
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The node
    node: NodeName,
    /// The last so many lines
    #[arg(long, short = 'n', default_value_t = 100, value_name = "COUNT")]
    lines: u32,
    /// Go on with what is written from now on
    #[arg(long, short)]
    follow: bool,
    /// PostgreSQL's own log
    #[arg(long)]
    postgres: bool,
}

pub(crate) async fn run(context: &Context, args: LogsArgs) -> Result<Exit> {
    let settings = context.settings()?;
    let logs = settings.node(&args.node)?.home.join("logs");
    let pass = |bytes: &[u8]| {
        // Whoever reads has seen enough.
        let _ = std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush());
    };
    let reading = async {
        if args.postgres || reach::is_local(&settings) {
            let file = logs.join(if args.postgres { "postgresql.log" } else { "agent.log" }).display().to_string();
            let executor = reach::opener().executor(&settings, &args.node)?;
            let mut tail = Command::new("tail").args(["-n", &args.lines.to_string()]);
            if args.follow {
                tail = tail.arg("-F").timeout(std::time::Duration::from_secs(366 * 24 * 3_600));
            }
            let tail = tail.arg(&file);
            if !args.follow {
                return executor.run_checked(&tail.output_max(64 << 20)).await.map(|said| pass(&said.stdout));
            }
            return pgdock_core::Executor::run(&*executor, &tail, &mut |_, bytes| pass(bytes)).await.map(drop);
        }
        let machines = reach::machines(&settings, std::slice::from_ref(&args.node))?;
        let options = LogOptions { lines: Some(args.lines), follow: args.follow };
        for machine in &machines {
            machine.logs(options, pass).await?;
        }
        Ok(())
    };
    tokio::select! {
        read = reading => read?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|e| Error::internal("cannot listen for signals").because(e))?;
            output::note("");
        }
    }
    Ok(Exit::Done)
}
