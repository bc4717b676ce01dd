//! [`Command`]: runs one of PostgreSQL's programs to its end, as PostgreSQL's own user.

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::ChildStdout;

use super::os_user::OsUser;
use crate::{Error, ErrorKind, Result};

/// How much of what a program complains about goes into an error, in bytes.
const TAIL_BYTES: usize = 2000;
/// How much of what a program prints is kept, in bytes.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;

/// A program with its arguments.
///
/// The environment is empty but for `LC_ALL=C`, `TZ=UTC` and what is set here, so that neither the caller's locale nor
/// its `PG…` variables change what the program does. Dropping a run kills the program and its children.
#[derive(Debug)]
pub struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: PathBuf,
    user: OsUser,
    limit: Duration,
}

impl Command {
    /// A program, run in folder `dir` by `user`, that is killed after `limit`.
    #[must_use]
    pub fn new(program: PathBuf, user: &OsUser, dir: &Path, limit: Duration) -> Self {
        Self { program, args: Vec::new(), env: Vec::new(), dir: dir.to_owned(), user: user.clone(), limit }
    }

    /// Adds an argument. Other users of the machine see it: never a secret.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.into(), value.as_ref().to_owned()));
        self
    }

    fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The program for the standard library, to be started by the caller.
    pub(crate) fn to_std(&self) -> std::process::Command {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .process_group(0);
        self.user.apply(&mut command);
        command
    }

    /// What a failed start means.
    pub(crate) fn cannot_run(&self, error: std::io::Error) -> Error {
        let message =
            format!("cannot run {}. program={}, user={}", self.name(), self.program.display(), self.user.name);
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let wrapped = Error::new(if denied { ErrorKind::Invalid } else { ErrorKind::Internal }, message).because(error);
        if denied {
            wrapped.hint(format!("let user {} pass through every folder above {}", self.user.name, self.dir.display()))
        } else {
            wrapped
        }
    }

    /// Runs it, and returns what it printed.
    ///
    /// # Errors
    /// `Unavailable` when it fails or takes too long, with the end of what it complained about.
    pub async fn run(self) -> Result<String> {
        self.run_watched(|_| ()).await
    }

    /// Runs it, and hands each line of its complaints and progress to `watch` as it comes.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_watched(self, watch: impl FnMut(&str) + Send) -> Result<String> {
        let read = async |stdout: ChildStdout| {
            let mut output = Vec::new();
            let mut stdout = stdout.take(OUTPUT_BYTES_MAX);
            stdout.read_to_end(&mut output).await?;
            // The rest is read and let go, so that the program can end.
            tokio::io::copy(&mut stdout.into_inner(), &mut tokio::io::sink()).await?;
            Ok(output)
        };
        let output = self.drive(read, watch).await?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Runs it, and hands each line that it prints to `each` as it comes, however many there are.
    ///
    /// # Errors
    /// As [`run`](Self::run); what it printed until then was handed over.
    pub async fn run_lines(self, mut each: impl FnMut(&str) + Send) -> Result<()> {
        let read = async |stdout: ChildStdout| {
            let mut lines = BufReader::new(stdout).split(b'\n');
            while let Some(line) = lines.next_segment().await? {
                each(&String::from_utf8_lossy(&line));
            }
            Ok(())
        };
        self.drive(read, |_| ()).await
    }

    async fn drive<T, F: Future<Output = std::io::Result<T>>>(
        self,
        read: impl FnOnce(ChildStdout) -> F,
        mut watch: impl FnMut(&str) + Send,
    ) -> Result<T> {
        let name = self.name();
        let mut command = tokio::process::Command::from(self.to_std());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| self.cannot_run(e))?;
        let mut group = Group(child.id());
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::internal(format!("{name} has no output")));
        };
        let mut tail = String::new();
        let work = async {
            let complaints = async {
                let mut lines = BufReader::new(stderr).split(b'\n');
                while let Some(line) = lines.next_segment().await? {
                    // Progress is printed over itself.
                    for part in String::from_utf8_lossy(&line).split('\r').filter(|p| !p.trim().is_empty()) {
                        watch(part);
                        keep_tail(&mut tail, part);
                    }
                }
                Ok::<(), std::io::Error>(())
            };
            let (output, ()) = tokio::try_join!(read(stdout), complaints)?;
            let status = child.wait().await?;
            // Its number may come to mean somebody else now.
            group.0 = None;
            Ok::<_, std::io::Error>((status, output))
        };
        match tokio::time::timeout(self.limit, work).await {
            Err(_) => Err(Error::unavailable(format!(
                "{name} did not end in time and was killed. limit={:?}{}",
                self.limit,
                said(&tail)
            ))),
            Ok(Err(error)) => Err(Error::internal(format!("lost {name} while it ran")).because(error)),
            Ok(Ok((status, output))) if status.success() => Ok(output),
            Ok(Ok((status, _))) => Err(Error::unavailable(format!("{name} failed. status={status}{}", said(&tail)))),
        }
    }
}

fn said(tail: &str) -> String {
    if tail.trim().is_empty() { String::new() } else { format!(", said={}", tail.trim()) }
}

fn keep_tail(tail: &mut String, line: &str) {
    if !tail.is_empty() {
        tail.push_str(" | ");
    }
    tail.push_str(line.trim());
    if tail.len() > TAIL_BYTES {
        let mut cut = tail.len() - TAIL_BYTES;
        while !tail.is_char_boundary(cut) {
            cut += 1;
        }
        tail.drain(..cut);
    }
}

/// Kills a process group when it goes out of scope: `pg_basebackup` has children of its own.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // Where nobody is left, there is nobody to tell.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Command {
        Command::new("/bin/sh".into(), &OsUser::current().unwrap(), Path::new("/"), limit).arg("-c").arg(script)
    }

    #[tokio::test]
    async fn output_and_environment() {
        let text = shell("echo $LC_ALL; env | wc -l >&2; pwd", Duration::from_secs(10)).env("A", "b").run().await;
        assert_eq!(text.unwrap(), "C\n/\n");
    }

    #[tokio::test]
    async fn lines_come_as_they_are_printed_also_those_before_a_failure() {
        let mut lines = Vec::new();
        let run = shell("echo one; echo two; echo why >&2; exit 1", Duration::from_secs(10));
        let error = run.run_lines(|line| lines.push(line.to_owned())).await.unwrap_err();
        assert!(lines == ["one", "two"] && error.to_string().contains("why"), "{lines:?} {error}");
    }

    #[tokio::test]
    async fn a_failure_tells_what_was_said() {
        let error = shell("echo no such thing >&2; exit 3", Duration::from_secs(10)).run().await.unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
        assert!(error.to_string().contains("3"), "{error}");
    }

    #[tokio::test]
    async fn who_takes_too_long_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > '{}'; wait", file.display());
        let error = shell(&script, Duration::from_millis(300)).run().await.unwrap_err();
        assert!(error.to_string().contains("in time"), "{error}");
        let pid = std::fs::read_to_string(file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        for _ in 0..500 {
            // A zombie is dead, too: its parent is gone, and only init has yet to hear of it.
            match std::fs::read_to_string(&stat) {
                Ok(text) if !text.contains(") Z ") => tokio::time::sleep(Duration::from_millis(10)).await,
                _ => return,
            }
        }
        panic!("the child lives on. pid={pid}");
    }

    #[test]
    fn tails_are_bounded() {
        let mut tail = String::new();
        for _ in 0..1000 {
            keep_tail(&mut tail, "käse");
        }
        assert!(tail.len() <= TAIL_BYTES && tail.ends_with("käse"));
    }
}
