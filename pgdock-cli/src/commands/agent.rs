//! `pgdock agent`

use clap::Args;
use pgdock_core::agent::Agent;
use pgdock_core::{Error, NodeName, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::exit::Exit;
use crate::{local, output};

/// Run the agent of a node: it starts its PostgreSQL, and keeps it in its place
///
/// It ends on SIGTERM or SIGINT, and stops PostgreSQL in order; a leader hands over first.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The node
    #[arg(long, value_name = "NODE")]
    node: NodeName,
    /// Run in the background; returns once it answers
    #[arg(long)]
    detach: bool,
    /// This is the process in the background.
    #[arg(long, hide = true, conflicts_with = "detach")]
    detached: bool,
}

pub(crate) async fn run(context: &Context, args: AgentArgs) -> Result<Exit> {
    if args.detach {
        let cluster = context.cluster().await?;
        let pid = local::launch(context, &cluster, &args.node).await?;
        output::note(&format!("the agent of {} runs. pid={pid}", args.node));
        return Ok(Exit::Done);
    }
    if args.detached {
        // A session of its own: the terminal that it was started from may close.
        rustix::process::setsid().map_err(|e| Error::internal("cannot leave the terminal").because(e))?;
    }
    let stop = CancellationToken::new();
    let signals = listen(stop.clone())?;
    let agent =
        Agent::builder(context.settings()?).node(args.node.as_str()).search_path(std::env::var_os("PATH")).build()?;
    let ended = agent.run(stop).await;
    signals.abort();
    ended?;
    Ok(Exit::Done)
}

/// The signals that end an agent in order. Closing its terminal is one.
fn listen(stop: CancellationToken) -> Result<tokio::task::JoinHandle<()>> {
    let on = |kind| signal(kind).map_err(|e| Error::internal("cannot listen for signals").because(e));
    let (mut terminate, mut interrupt, mut hangup) =
        (on(SignalKind::terminate())?, on(SignalKind::interrupt())?, on(SignalKind::hangup())?);
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        tracing::info!("told to stop");
        stop.cancel();
    }))
}
