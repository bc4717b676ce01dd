//! What every [`Executor`] must do. Run it on yours, with a folder on the node that may be written to:
//!
//! ```no_run
//! # use std::path::Path;
//! # use pgdock_core::executor::{LocalExecutor, conformance};
//! # async fn test() {
//! conformance::run(&LocalExecutor, Path::new("/tmp/scratch"), conformance::Supports::all()).await;
//! # }
//! ```
//!
//! Every function panics with what it saw.

use std::path::Path;
use std::time::Duration;

use super::{Command, Executor, ExecutorExt, Exit, Output, Stdin, Stream};
use crate::{Error, ErrorKind};

/// What an executor can do.
#[derive(Clone, Copy, Debug)]
pub struct Supports {
    /// It runs real programs; `/bin/sh` and the usual tools are there.
    pub programs: bool,
}

impl Supports {
    /// All that there is.
    #[must_use]
    pub fn all() -> Self {
        Self { programs: true }
    }

    /// Files only: commands are scripted.
    #[must_use]
    pub fn files() -> Self {
        Self { programs: false }
    }
}

/// How often something is looked for before it counts as missing, and the pause between.
const LOOKS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(20);

/// The whole suite. `dir` is an empty folder on the node.
pub async fn run(executor: &dyn Executor, dir: &Path, supports: Supports) {
    files_come_back_as_they_went(executor, dir).await;
    a_file_that_fails_half_way_is_not_there(executor, dir).await;
    a_missing_file_is_told_apart(executor, dir).await;
    a_missing_program_is_invalid(executor).await;
    if supports.programs {
        programs_get_what_the_command_says(executor, dir).await;
        exits_are_told_apart(executor).await;
        output_comes_while_the_program_runs(executor, dir).await;
        much_output_is_passed_on_whole(executor).await;
        input_that_is_not_read_does_no_harm(executor).await;
        a_failure_says_what_the_program_said(executor).await;
        an_open_output_does_not_hold_a_program_that_ended(executor).await;
        what_takes_too_long_is_killed(executor, dir).await;
        what_is_cancelled_is_killed(executor, dir).await;
        files_have_their_mode(executor, dir).await;
    }
}

/// Small, empty and large files; the second over the first.
pub async fn files_come_back_as_they_went(executor: &dyn Executor, dir: &Path) {
    let path = dir.join("file with 'quotes' and spaces");
    let large: Vec<u8> = (0..1_000_003_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for content in [&b"one"[..], b"", b"\0\xff\r\n", &large] {
        executor.put_bytes(content, &path, 0o600).await.unwrap_or_else(|e| panic!("{executor}: {}", e.chain()));
        let read = executor.get_bytes(&path, large.len()).await.unwrap_or_else(|e| panic!("{executor}: {}", e.chain()));
        assert!(read == content, "{executor}: {} bytes came back as {} others", content.len(), read.len());
    }
    let error = executor.get_bytes(&path, 10).await.expect_err("a file larger than the bound must be refused");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{executor}: {error}");
}

/// The old file stands when its successor does not arrive whole.
pub async fn a_file_that_fails_half_way_is_not_there(executor: &dyn Executor, dir: &Path) {
    struct Breaks(bool);
    impl tokio::io::AsyncRead for Breaks {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(if std::mem::replace(&mut self.0, true) {
                Err(std::io::ErrorKind::ConnectionReset.into())
            } else {
                buffer.put_slice(b"half of ");
                Ok(())
            })
        }
    }
    let path = dir.join("atomic");
    let put = executor.put_file(&mut Breaks(false), &path, 0o600).await;
    assert!(put.is_err(), "{executor}: half a file was taken for a whole one");
    assert!(executor.get_bytes(&path, 100).await.is_err(), "{executor}: half a file was left");
    executor.put_bytes(b"old", &path, 0o600).await.expect("a file can be written");
    let put = executor.put_file(&mut Breaks(false), &path, 0o600).await;
    assert!(put.is_err(), "{executor}: half a file was taken for a whole one");
    let read = executor.get_bytes(&path, 100).await.expect("the old file stands");
    assert_eq!(read, b"old", "{executor}: a put that failed changed the file");
}

/// No such file, or no such folder to write to, is the caller's mistake.
pub async fn a_missing_file_is_told_apart(executor: &dyn Executor, dir: &Path) {
    let error = executor.get_bytes(&dir.join("no such file"), 10).await.expect_err("there is no such file");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{executor}: {error}");
    assert!(error.to_string().contains("no such file"), "{executor}: the path is missing: {error}");
}

/// A program that is not there is the caller's mistake, and the error names it.
pub async fn a_missing_program_is_invalid(executor: &dyn Executor) {
    let error = executor.output(&Command::new("/no/such/program")).await.expect_err("there is no such program");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{executor}: {error}");
    assert!(error.to_string().contains("/no/such/program"), "{executor}: the program is missing: {error}");
}

/// Arguments, environment, folder and input arrive unchanged; the agent's own environment does not.
pub async fn programs_get_what_the_command_says(executor: &dyn Executor, dir: &Path) {
    let odd = "a b'c\"d$e\\f\n*";
    let command = Command::shell(r#"printf '%s|%s|%s|%s|' "$1" "$ODD" "$PWD" "${CARGO_MANIFEST_DIR-none}"; cat"#);
    let command = command.arg("sh").arg(odd).env("ODD", odd).dir(dir).stdin(Stdin::Bytes("in\0put".into()));
    let output = output(executor, &command).await;
    let expected = format!("{odd}|{odd}|{}|none|in\0put", dir.display());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{executor}");
}

/// A code is not a signal, and a failure is not an error.
pub async fn exits_are_told_apart(executor: &dyn Executor) {
    for (line, exit) in [("true", Exit::Code(0)), ("exit 7", Exit::Code(7)), ("kill -TERM $$", Exit::Signal(15))] {
        assert_eq!(output(executor, &Command::shell(line)).await.exit, exit, "{executor}: {line}");
    }
}

/// What a program writes is seen before it ends, each stream as itself.
pub async fn output_comes_while_the_program_runs(executor: &dyn Executor, dir: &Path) {
    let seen = dir.join("seen");
    // It ends only once its first words have been answered by a file.
    let line = r#"echo ready; echo aside >&2; while [ ! -e "$SEEN" ]; do sleep 0.02; done; echo done"#;
    let command = Command::shell(line).env("SEEN", seen.display().to_string()).timeout(PAUSE * LOOKS);
    let (send, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut words = (Vec::new(), Vec::new());
    let mut listen = |stream, bytes: &[u8]| {
        match stream {
            Stream::Stdout => words.0.extend_from_slice(bytes),
            Stream::Stderr => words.1.extend_from_slice(bytes),
        }
        // The receiver is gone once it has heard the first words.
        let _ = send.send(());
    };
    let answer = async {
        heard.recv().await.expect("the program says something");
        executor.put_bytes(b"", &seen, 0o600).await.expect("a file can be written");
    };
    let (exit, ()) = tokio::join!(executor.run(&command, &mut listen), answer);
    assert_eq!(exit.unwrap_or_else(|e| panic!("{executor}: {}", e.chain())), Exit::Code(0));
    assert_eq!(words, (b"ready\ndone\n".to_vec(), b"aside\n".to_vec()), "{executor}");
}

/// More than any pipe holds, on both streams at once.
pub async fn much_output_is_passed_on_whole(executor: &dyn Executor) {
    let line = "head -c 3000000 /dev/zero >&2 & head -c 3000000 /dev/zero; wait";
    let mut counted = (0, 0);
    let mut count = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => counted.0 += bytes.len(),
        Stream::Stderr => counted.1 += bytes.len(),
    };
    let exit = executor.run(&Command::shell(line), &mut count).await;
    assert!(exit.is_ok_and(Exit::success), "{executor}: the program was not seen to its end");
    assert_eq!(counted, (3_000_000, 3_000_000), "{executor}: output was lost");
    let kept = output(executor, &Command::shell("head -c 3000 /dev/zero; printf end").output_max(10)).await;
    assert_eq!((kept.stdout, kept.dropped), (b"\0\0\0\0\0\0\0end".to_vec(), 2993), "{executor}");
}

/// A program may end without having read its input.
pub async fn input_that_is_not_read_does_no_harm(executor: &dyn Executor) {
    let input = Stdin::Bytes(vec![b'x'; 1 << 20].into());
    let output = output(executor, &Command::shell("echo bye; exit 3").stdin(input)).await;
    assert_eq!((output.exit, output.text()), (Exit::Code(3), "bye".to_owned()), "{executor}");
}

/// A checked failure is an error with the program's last words, and without its environment.
pub async fn a_failure_says_what_the_program_said(executor: &dyn Executor) {
    let command = Command::shell("echo no room left >&2; exit 9").env("TOKEN", "hunter2");
    let error = executor.run_checked(&command).await.expect_err("it failed");
    let text = format!("{} {error:?}", error.chain());
    assert!(text.contains("no room left") && text.contains('9'), "{executor}: {text}");
    assert!(!text.contains("hunter2"), "{executor}: a secret is in the error");
}

/// A child that keeps an output open, without writing to it, does not keep the call.
pub async fn an_open_output_does_not_hold_a_program_that_ended(executor: &dyn Executor) {
    let command = Command::shell("sleep 600 & echo $!").timeout(PAUSE * LOOKS);
    let child = output(executor, &command).await.text();
    assert!(is_alive(executor, &child).await, "{executor}: what a program left behind on purpose was killed");
    output(executor, &Command::shell(format!("kill {child}"))).await;
}

/// The timeout kills the program and its children.
pub async fn what_takes_too_long_is_killed(executor: &dyn Executor, dir: &Path) {
    let (command, pids) = stubborn(dir, "late");
    // A busy machine may need longer to start it.
    for millis in [500, 2_000, 8_000] {
        let command = command.clone().timeout(Duration::from_millis(millis));
        let error = executor.output(&command).await.expect_err("it never ends");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{executor}: {error}");
        assert!(!error.outcome_known(), "{executor}: nobody knows what a killed command has done");
        if executor.get_bytes(&pids, 100).await.is_ok_and(|found| found.ends_with(b"\n")) {
            return all_gone(executor, &pids).await;
        }
    }
    panic!("{executor}: the program did not start");
}

/// A caller that goes away takes the program and its children along.
pub async fn what_is_cancelled_is_killed(executor: &dyn Executor, dir: &Path) {
    let (command, pids) = stubborn(dir, "cancelled");
    let started = async {
        for _ in 0..LOOKS {
            if executor.get_bytes(&pids, 100).await.is_ok_and(|found| found.ends_with(b"\n")) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("{executor}: the program did not start");
    };
    tokio::select! {
        ended = executor.output(&command) => panic!("{executor}: it must not end: {ended:?}"),
        () = started => {}
    }
    all_gone(executor, &pids).await;
}

/// A file has the mode that was asked for, whatever it replaces and whatever the umask is.
pub async fn files_have_their_mode(executor: &dyn Executor, dir: &Path) {
    let path = dir.join("mode");
    for mode in [0o600, 0o755, 0o640] {
        executor.put_bytes(b"#!/bin/sh\n", &path, mode).await.expect("a file can be written");
        let stat = Command::new("stat").args(["-c", "%a"]).arg(path.display().to_string());
        assert_eq!(output(executor, &stat).await.text(), format!("{mode:o}"), "{executor}");
    }
    let listed = output(executor, &Command::new("ls").arg("-A").arg(dir.display().to_string())).await.text();
    assert!(!listed.contains("tmp"), "{executor}: temporary files were left: {listed}");
}

/// A program that ends neither by itself nor when asked, with a child, and the file that names both.
fn stubborn(dir: &Path, name: &str) -> (Command, std::path::PathBuf) {
    let pids = dir.join(name);
    let line = r#"trap '' TERM HUP INT; sleep 600 & echo "$$ $!" > "$PIDS"; while :; do sleep 600; done"#;
    (Command::shell(line).env("PIDS", pids.display().to_string()), pids)
}

async fn all_gone(executor: &dyn Executor, pids: &Path) {
    let pids = executor.get_bytes(pids, 100).await.expect("the program wrote its numbers");
    for pid in String::from_utf8_lossy(&pids).split_whitespace() {
        let mut looks = 0;
        while is_alive(executor, pid).await {
            looks += 1;
            assert!(looks < LOOKS, "{executor}: a process outlived its call. pid={pid}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether a process runs; one that has ended and was not yet reaped does not.
async fn is_alive(executor: &dyn Executor, pid: &str) -> bool {
    let state = Command::shell(format!("cut -d' ' -f3 /proc/{pid}/stat 2>/dev/null || true"));
    !matches!(output(executor, &state).await.text().as_str(), "" | "Z" | "X")
}

async fn output(executor: &dyn Executor, command: &Command) -> Output {
    let described = |e: Error| panic!("{executor}: {command}: {}", e.chain());
    executor.output(command).await.unwrap_or_else(described)
}
