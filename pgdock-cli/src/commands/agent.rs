//! `pgdock agent`

use std::path::PathBuf;

use clap::Args;
use pgdock_core::agent::{Agent, Ended, home};
use pgdock_core::{Error, NodeName, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::exit::Exit;
use crate::{init, local, output};

/// Run the agent of a node: it starts its PostgreSQL, and keeps it in its place
///
/// It ends on SIGTERM or SIGINT, and stops PostgreSQL in order; a leader hands over first.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The node
    #[arg(long, value_name = "NODE", required_unless_present = "home")]
    node: Option<NodeName>,
    /// The node's own folder, on its machine or in its container: the configuration is waited for in DIR/bundles/current, the
    /// secrets in DIR/secrets
    #[arg(long, value_name = "DIR", conflicts_with_all = ["node", "detach"])]
    home: Option<PathBuf>,
    /// Run in the background; returns once it answers
    #[arg(long)]
    detach: bool,
    /// This is the process in the background.
    #[arg(long, hide = true, conflicts_with = "detach")]
    detached: bool,
}

pub(crate) async fn run(context: &Context, args: AgentArgs) -> Result<Exit> {
    if init::is_first() {
        return init::run().await;
    }
    if let (Some(node), true) = (&args.node, args.detach) {
        let cluster = context.cluster().await?;
        let pid = local::launch(context, &cluster, node).await?;
        output::note(&format!("the agent of {node} runs. pid={pid}"));
        return Ok(Exit::Done);
    }
    if args.detached {
        // A session of its own: the terminal that it was started from may close.
        // One that begins anew has left it before.
        match rustix::process::setsid() {
            Ok(_) | Err(rustix::io::Errno::PERM) => {}
            Err(e) => return Err(Error::internal("cannot leave the terminal").because(e)),
        }
    }
    local::await_inherited();
    let stop = CancellationToken::new();
    let signals = listen(stop.clone())?;
    let (settings, node) = match (&args.home, args.node) {
        (Some(home), _) => match home::ready(home, &stop).await? {
            Some(ready) => ready,
            None => return Ok(Exit::Done),
        },
        (None, Some(node)) => (context.settings()?, node),
        // The command line asks for one of the two.
        (None, None) => return Err(Error::invalid("no node was named").hint("`--node NODE`, or `--home DIR`")),
    };
    let agent = Agent::builder(settings)
        .node(node.as_str())
        .search_path(std::env::var_os("PATH"))
        .can_begin_anew(true)
        .build()?;
    let ended = agent.live(stop).await;
    signals.abort();
    match ended? {
        Ended::BeginsAnew => Err(begin_anew()),
        _ => Ok(Exit::Done),
    }
}

/// Becomes this program anew, in the same process: whoever watches over it, a service or a container's first process, sees no end.
/// Comes back only where that fails.
fn begin_anew() -> Error {
    use std::os::unix::process::CommandExt as _;
    // One that was replaced by an upgrade is marked as deleted: then what runs begins anew.
    let program = std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into());
    let failed = std::process::Command::new(program).args(std::env::args_os().skip(1)).exec();
    Error::internal("the agent cannot begin anew").because(failed)
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
