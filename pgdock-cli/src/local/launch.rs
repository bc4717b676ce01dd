//! Starts an agent in the background.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgdock_core::clock::{Clock as _, SystemClock};
use pgdock_core::{Cluster, Error, ErrorKind, NodeName, Result};

use super::{agent_pid, agent_pids};
use crate::context::Context;
use crate::exit::Exit;

/// How long an agent may take until it answers.
const START_BUDGET: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// How much of the log an error shows, in lines.
const TAIL: usize = 12;

/// Starts the agent of a node as a process that survives this one, its output in `logs/agent.log` of the
/// node. Returns its process id once it answers.
pub(crate) async fn launch(context: &Context, cluster: &Cluster, node: &NodeName) -> Result<u32> {
    let settings = cluster.settings().node(node)?;
    if let Some(pid) = agent_pid(settings) {
        let pid = pid.as_raw_nonzero();
        return Err(Error::conflict(format!("an agent of this node runs already. node={node}, pid={pid}"))
            .hint("`pgdock down` stops it"));
    }
    let log = Log::open(&settings.home)?;
    let mut child = spawn(context, cluster, node, &log)?;
    let agent = cluster.agent(node)?;
    let deadline = SystemClock.now() + START_BUDGET;
    loop {
        let ended = child.try_wait().map_err(|e| Error::internal("cannot watch the agent").because(e))?;
        if let Some(status) = ended {
            let kind = match status.code() {
                Some(code) if code == i32::from(Exit::Invalid.code()) => ErrorKind::Invalid,
                Some(code) if code == i32::from(Exit::Refused.code()) => ErrorKind::NeedsOperator,
                _ => ErrorKind::Unavailable,
            };
            return Err(log.explain(Error::new(kind, format!("the agent ended at once. node={node}, {status}"))));
        }
        let pid = child.id();
        // Another agent may answer, until this one has found that out.
        let holds = agent_pids(settings).iter().any(|holder| holder.as_raw_nonzero().get().cast_unsigned() == pid);
        if holds && agent.status().await.is_ok() {
            // Reaped should it end before this process does: until then it would look alive to others.
            std::thread::spawn(move || child.wait());
            return Ok(pid);
        }
        if SystemClock.now() >= deadline {
            return Err(log.explain(Error::unavailable(format!("the agent does not answer. node={node}"))));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn spawn(context: &Context, cluster: &Cluster, node: &NodeName, log: &Log) -> Result<Child> {
    let failed = |e: std::io::Error| Error::internal(format!("cannot start the agent. node={node}")).because(e);
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    if context.verbose() {
        command.arg("--verbose");
    }
    command
        .arg("--config")
        .arg(&cluster.settings().dir)
        .args(["agent", "--detached", "--node", node.as_str()])
        // The folder that this was called from may be removed or unmounted later.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.file.try_clone().map_err(failed)?)
        .stderr(log.file.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)
}

/// The agent's log, and where its present life begins in it.
struct Log {
    path: PathBuf,
    file: File,
    begin: u64,
}

impl Log {
    fn open(home: &Path) -> Result<Self> {
        let dir = home.join("logs");
        let path = dir.join("agent.log");
        let failed =
            |e: std::io::Error| Error::invalid(format!("cannot write the log. file={}", path.display())).because(e);
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        let begin = file.metadata().map_err(failed)?.len();
        Ok(Self { path, file, begin })
    }

    /// An error with what the agent said last: its hints where it gave some.
    fn explain(&self, error: Error) -> Error {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.path)
            && file.seek(SeekFrom::Start(self.begin)).is_ok()
        {
            let mut bytes = Vec::new();
            let _ = file.read_to_end(&mut bytes);
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        let (hints, lines): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("hint: "));
        let last = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        let error = if last.is_empty() { error } else { error.because(std::io::Error::other(format!("\n{last}"))) };
        let error = hints.iter().fold(error, |error, hint| error.hint(&hint["hint: ".len()..]));
        error.hint(format!("the log is in {}", self.path.display()))
    }
}
