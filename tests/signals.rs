//! Signals whose effect is waited for.
//!
//! `kill(2)` returns when a signal is pending. A process that has been sent `SIGSTOP` may answer one request more
//! on another processor, which a test must not take for an answer of a frozen one.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The kernel stops a thread as soon as it next leaves the kernel; more than this is a test that hangs.
const LIMIT: Duration = Duration::from_secs(10);

/// The state of a process, as `/proc` has it (proc(5)); `None` where it is gone.
#[must_use]
pub fn state(pid: Pid) -> Option<char> {
    state_in(&Path::new("/proc").join(pid.as_raw_nonzero().to_string()))
}

/// Stops a process, with all its threads, and returns when none of them runs. One that has ended is left alone.
///
/// # Panics
/// Where a thread still runs long after.
pub fn stop(pid: Pid) {
    // It may have ended by itself.
    let _ = kill_process(pid, Signal::STOP);
    let deadline = Instant::now() + LIMIT;
    while runs(pid) {
        assert!(Instant::now() < deadline, "process {pid:?} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a thread of a process is neither stopped nor gone.
fn runs(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    threads.into_iter().flatten().flatten().any(|thread| state_in(&thread.path()).is_some_and(|s| !stopped(s)))
}

/// Whether something in this state does nothing more: stopped, traced, or dead.
#[must_use]
pub fn stopped(state: char) -> bool {
    matches!(state, 'T' | 't' | 'Z' | 'X')
}

fn state_in(directory: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(directory.join("stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_many_threads_is_stopped_when_it_is_said_to_be() {
        let spin =
            "import threading\nfor _ in range(4): threading.Thread(target=lambda: exec('while True: pass')).start()";
        let Ok(mut child) = std::process::Command::new("python3").args(["-c", spin]).spawn() else { return };
        let pid = Pid::from_child(&child);
        for _ in 0..50 {
            stop(pid);
            assert!(!runs(pid) && state(pid).is_some_and(stopped));
            kill_process(pid, Signal::CONT).unwrap();
            assert!(runs(pid), "it goes on");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(state(pid), None);
        stop(pid);
    }
}
