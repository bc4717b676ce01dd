//! The demo: a story in acts, told by real processes. Each act says what it does, does it, checks it, and
//! shows what it saw.

mod acts;
mod check;
mod restore;
mod stage;
mod writer;

use pgdock_core::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::commands::demo::DemoArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use stage::{Ending, Stage};

/// Tells the story. Whatever happens in it, nothing is left running, unless it shall be kept.
pub(crate) async fn run(context: &Context, args: DemoArgs) -> Result<Exit> {
    let stage = Stage::set(context, &args).await?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|e| Error::internal("cannot listen for signals").because(e))?;
    let told = tokio::select! {
        told = acts::all(&stage) => Some(told),
        _ = tokio::signal::ctrl_c() => None,
        _ = terminate.recv() => None,
    };
    let ending = match &told {
        Some(Ok(())) => Ending::Done,
        Some(Err(_)) => Ending::Failed,
        None => Ending::Interrupted,
    };
    if args.keep && ending != Ending::Interrupted {
        stage.keep()?;
        return told.unwrap_or(Ok(())).map(|()| Exit::Done);
    }
    let cleared = stage.clear(ending).await;
    told.unwrap_or_else(|| Err(Error::unavailable("interrupted")))?;
    cleared?;
    output::data("\nNothing is left running. All acts succeeded.")?;
    Ok(Exit::Done)
}
