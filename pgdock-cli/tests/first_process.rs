//! `pgdock agent` as the first process of a container: here of a namespace of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long something may take that a busy machine does soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says that the test cannot run here; with `PGDOCK_REAL=required` that is a failure.
fn skip(why: &str) {
    assert!(std::env::var("PGDOCK_REAL").as_deref() != Ok("required"), "cannot test on real parts: {why}");
    eprintln!("skipped: {why}");
}

/// A namespace with its first process. All of it is killed when it is dropped.
struct Namespace {
    outside: Child,
    lines: Receiver<String>,
}

impl Namespace {
    fn start(home: &Path) -> Self {
        let mut outside = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"])
            .arg(env!("CARGO_BIN_EXE_pgdock"))
            .args(["agent", "--home"])
            .arg(home)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(outside.stderr.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("{line}");
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { outside, lines }
    }

    /// Waits for a line with this in it.
    fn says(&self, what: &str) {
        while !self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it does not say {what:?}")).contains(what) {
        }
    }

    /// Its processes: their numbers out here and in there, and their states.
    fn processes(&self) -> Vec<(String, String, char)> {
        let first = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.outside.id())).unwrap();
        let space = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = space(first.trim());
        let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().into_string().ok());
        let all = all.filter(|pid| pid.parse::<u32>().is_ok() && own.is_some() && space(pid) == own);
        all.filter_map(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
            let inside = field("NSpid:")?.split_whitespace().last()?.to_owned();
            Some((pid, inside, field("State:")?.trim().chars().next()?))
        })
        .collect()
    }

    fn signal(&self, signal: &str, inside: impl Fn(&str) -> bool) {
        let (pid, ..) = self.processes().into_iter().find(|(_, pid, _)| inside(pid)).expect("a process");
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

#[test]
fn the_first_process_keeps_an_agent_reaps_orphans_and_ends_when_told() {
    let allowed = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return skip("namespaces of processes need root, and unshare");
    }
    let home = tempfile::tempdir().unwrap();
    let mut space = Namespace::start(home.path());
    space.says("there is no configuration yet");

    // The agent is its child, and is started again.
    space.signal("-KILL", |pid| pid != "1");
    space.says("started again");
    space.says("there is no configuration yet");

    // What loses its parent is taken note of by the first process when it ends.
    let (first, ..) = space.processes().into_iter().find(|(_, pid, _)| pid == "1").unwrap();
    let orphan = Command::new("nsenter")
        .args(["--target", &first, "--pid", "--", "/bin/sh", "-c", "(sleep 0.2 & echo $!)"])
        .output()
        .unwrap();
    let orphan = String::from_utf8(orphan.stdout).unwrap().trim().to_owned();
    assert!(!orphan.is_empty());
    let began = std::time::Instant::now();
    while space.processes().iter().any(|(_, pid, _)| *pid == orphan) {
        assert!(began.elapsed() < PATIENCE, "an orphan is left: {:?}", space.processes());
        std::thread::sleep(Duration::from_millis(20));
    }

    space.signal("-TERM", |pid| pid == "1");
    assert_eq!(space.outside.wait().unwrap().code(), Some(0));
}
