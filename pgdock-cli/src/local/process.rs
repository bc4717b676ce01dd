//! The processes of a node: its agent, and its PostgreSQL.

use std::path::{Path, PathBuf};

use pgdock_core::agent::deadman;
use pgdock_core::settings::NodeSettings;
use rustix::process::{Pid, Signal};

/// The processes that hold a node's lock open: its agent, and one that tries to become it.
///
/// They are found by what they hold rather than by a file with a number in it, which a crash leaves behind.
pub(crate) fn agent_pids(node: &NodeSettings) -> Vec<Pid> {
    agents_of(&node.home)
}

/// The same of a node's folder, also of one that is no member any more.
pub(crate) fn agents_of(home: &Path) -> Vec<Pid> {
    let lock = home.join("agent.lock");
    let Ok(lock) = lock.canonicalize() else { return Vec::new() };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| holds(*pid, &lock))
        .collect()
}

/// The process of a node's agent.
pub(crate) fn agent_pid(node: &NodeSettings) -> Option<Pid> {
    agent_pids(node).first().copied()
}

fn holds(pid: Pid, file: &Path) -> bool {
    let fds = PathBuf::from(format!("/proc/{}/fd", pid.as_raw_nonzero()));
    // Those of other users cannot be read, nor those of a process that has just ended.
    std::fs::read_dir(fds)
        .is_ok_and(|fds| fds.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == file)))
}

/// Whether anything of a node runs.
pub(crate) fn is_up(node: &NodeSettings) -> bool {
    agent_pid(node).is_some() || deadman::any_alive(&node.home.join("data"))
}

/// The postmaster, as PostgreSQL's own lock file names it.
pub(crate) fn postmaster_pid(node: &NodeSettings) -> Option<Pid> {
    postmaster_at(&node.home)
}

/// The same of a node's folder.
pub(crate) fn postmaster_at(home: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(home.join("data").join("postmaster.pid")).ok()?;
    Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
}

/// Kills a node's agent and every process of its PostgreSQL at once, as a failing machine would.
pub(crate) fn kill_node(node: &NodeSettings) {
    for pid in agent_pids(node) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    deadman::kill_all(&node.home.join("data"));
}

/// The processes of this program that work for the cluster in a folder as `what`: `agent` or `deadman`.
/// Unlike [`agent_pids`] it finds an agent that has only just begun.
pub(crate) fn helpers(dir: &str, what: &str) -> Vec<Pid> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let me = rustix::process::getpid();
    processes
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| *pid != me && works_for(*pid, dir, what))
        .collect()
}

fn works_for(pid: Pid, dir: &str, what: &str) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) else { return false };
    let line = String::from_utf8_lossy(&line);
    let args: Vec<_> = line.split('\0').skip(1).collect();
    let inside = |arg: &str| arg.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    args.contains(&what) && args.iter().any(|arg| inside(arg))
}

/// Awaits the processes that an earlier life of this process left to it: it became another program, and they stayed its children.
/// Nobody else asks how they ended.
pub(crate) fn await_inherited() {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    let me = rustix::process::getpid().as_raw_nonzero().to_string();
    for entry in processes.flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything; then come the state and the parent.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let (true, Some(pid)) = (parent == Some(me.as_str()), pid) {
            std::thread::spawn(move || rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()));
        }
    }
}
