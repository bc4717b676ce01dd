//! The first process of a container: it starts the agent, passes signals on, and reaps what nobody else does.
//!
//! An agent that fails is started again, as systemd would: PostgreSQL and the deadman outlive it, and the next one takes them
//! over. The container, and with it whoever is to repair it, stays.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::{Error, Result};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;

/// The shortest and the longest pause before an agent that failed is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Whoever lived so long failed for a new reason.
const WELL: Duration = Duration::from_secs(60);

/// Whether this process is the first one of its machine or container.
pub(crate) fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs this program's own command line once more, as a child, until it is told to stop.
pub(crate) async fn run() -> Result<Exit> {
    let on = |kind| signal(kind).map_err(|e| Error::internal("cannot listen for signals").because(e));
    let (mut terminate, mut interrupt, mut hangup, mut quit) = (
        on(SignalKind::terminate())?,
        on(SignalKind::interrupt())?,
        on(SignalKind::hangup())?,
        on(SignalKind::quit())?,
    );
    let mut children = on(SignalKind::child())?;
    let clock = SystemClock;
    let mut pause = PAUSES.0;
    let mut stopping = false;
    loop {
        let began = clock.now();
        let agent = start()?;
        let ended = loop {
            if let Some(ended) = reap(agent)? {
                break ended;
            }
            let passed_on = tokio::select! {
                _ = children.recv() => None,
                _ = terminate.recv() => Some(Signal::TERM),
                _ = interrupt.recv() => Some(Signal::INT),
                _ = hangup.recv() => Some(Signal::HUP),
                _ = quit.recv() => Some(Signal::QUIT),
            };
            if let Some(signal) = passed_on {
                stopping = true;
                // It may have ended this moment.
                let _ = rustix::process::kill_process(agent, signal);
            }
        };
        let code = ended.exit_status().or(ended.terminating_signal().map(|signal| 128 + signal)).unwrap_or(1);
        if stopping || code == 0 {
            return Ok(Exit::Of(u8::try_from(code).unwrap_or(1)));
        }
        if clock.now().since(began) > WELL {
            pause = PAUSES.0;
        }
        tracing::warn!(code, seconds = pause.as_secs_f64(), "the agent has failed, and is started again");
        let deadline = clock.now() + pause;
        while clock.now() < deadline {
            tokio::select! {
                () = tokio::time::sleep(deadline.since(clock.now())) => {}
                _ = children.recv() => drop(reap(agent)?),
                _ = terminate.recv() => return Ok(Exit::Done),
                _ = interrupt.recv() => return Ok(Exit::Done),
            }
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn start() -> Result<Pid> {
    let program = std::env::current_exe().map_err(|e| Error::internal("cannot tell which program runs").because(e))?;
    let mut command = Command::new(program);
    // A group of its own: what is sent to the terminal's group comes here, and is passed on once.
    command.args(std::env::args_os().skip(1)).process_group(0);
    let child = command.spawn().map_err(|e| Error::internal("cannot start the agent").because(e))?;
    // It is waited for together with all others.
    Pid::from_raw(child.id().cast_signed()).ok_or_else(|| Error::internal("the agent has no number"))
}

/// Takes note of all children that have ended, own and inherited; answers how the agent did, if it has.
fn reap(agent: Pid) -> Result<Option<WaitStatus>> {
    let mut ended = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == agent => ended = Some(status),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ended),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::internal("children cannot be waited for").because(std::io::Error::from(e))),
        }
    }
}
