//! [`Command`] and how it ends: plain data, the same for every executor.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncWrite;

use crate::{Error, Result};

/// How long a command may run unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How much of each stream is kept unless told otherwise.
const OUTPUT_MAX: usize = 1 << 20;
/// How much of what a failed program said its error repeats.
const TAIL_MAX: usize = 2_000;

/// Where programs are looked for unless the command says otherwise.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run, with all that it gets.
#[derive(Clone)]
pub struct Command {
    pub(super) program: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, SecretString>,
    pub(super) dir: Option<PathBuf>,
    pub(super) stdin: Stdin,
    pub(super) timeout: Duration,
    pub(super) output_max: usize,
}

/// What a program reads on its standard input.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Stdin {
    /// Nothing: the end at once.
    #[default]
    Empty,
    /// These bytes, which may be a secret.
    Bytes(Bytes),
    /// A file of the caller's machine, read while the program runs.
    File(PathBuf),
}

impl Command {
    /// A program by its path, or by a name that is looked for along `PATH`.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            dir: None,
            stdin: Stdin::Empty,
            timeout: TIMEOUT,
            output_max: OUTPUT_MAX,
        }
    }

    /// A line for `/bin/sh`. Values from elsewhere belong into [`env`](Self::env), not into the line.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new("/bin/sh").arg("-c").arg(line)
    }

    /// Adds an argument. Never a secret: every user of the machine sees it.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment. It is never logged.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The folder that it starts in; as a rule the root.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// What it reads. As a rule nothing.
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// How long it may run, from the call to its end. Default one minute.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many bytes of each stream [`ExecutorExt::output`](super::ExecutorExt::output) keeps, the last
    /// ones. Default 1 MiB.
    #[must_use]
    pub fn output_max(mut self, bytes: usize) -> Self {
        self.output_max = bytes;
        self
    }

    /// The program, for implementations.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.program
    }

    /// Its arguments, for implementations.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.args
    }

    /// Its environment with a `PATH`, for implementations: the values are secrets.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let path = (!self.env.contains_key("PATH")).then_some(("PATH", PATH));
        path.into_iter().chain(self.env.iter().map(|(name, value)| (name.as_str(), value.expose_secret())))
    }

    /// Its folder, standard input and time, for implementations.
    #[must_use]
    pub fn surroundings(&self) -> (Option<&PathBuf>, &Stdin, Duration) {
        (self.dir.as_ref(), &self.stdin, self.timeout)
    }
}

/// Program and arguments, quoted as for a shell.
impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, word) in std::iter::once(&self.program).chain(&self.args).enumerate() {
            let space = if i == 0 { "" } else { " " };
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                write!(f, "{space}{word}")?;
            } else {
                write!(f, "{space}'{}'", word.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

/// Without the values of the environment, and without the standard input.
impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command")
            .field("line", &format_args!("{self}"))
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("dir", &self.dir)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Stdin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

/// One of a program's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether it ended with code 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// How a program ended, and what was kept of what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// The end of its standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: Vec<u8>,
    /// How many bytes of both were not kept.
    pub dropped: u64,
}

impl Output {
    /// Its standard output as text, without white space around it.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// The last of what it said: of its standard error, or else of its standard output.
    #[must_use]
    pub fn tail(&self) -> String {
        let said = if self.stderr.trim_ascii().is_empty() { &self.stdout } else { &self.stderr };
        let said = said.trim_ascii();
        String::from_utf8_lossy(&said[said.len().saturating_sub(TAIL_MAX)..]).into_owned()
    }

    pub(super) fn check(&self, node: &str, command: &Command) -> Result<()> {
        if !self.exit.success() {
            let failed = format!("a command failed. node={node}, exit={}, command={command}", self.exit);
            let tail = self.tail();
            return Err(if tail.is_empty() { Error::internal(failed) } else { Error::internal(failed).because(tail) });
        }
        if self.dropped > 0 {
            return Err(Error::internal(format!(
                "a command wrote more than is kept. node={node}, max={}, command={command}",
                command.output_max
            )));
        }
        Ok(())
    }
}

/// The ends of both streams.
#[derive(Debug)]
pub(crate) struct Kept {
    max: usize,
    stdout: VecDeque<u8>,
    stderr: VecDeque<u8>,
    dropped: u64,
}

impl Kept {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, stdout: VecDeque::new(), stderr: VecDeque::new(), dropped: 0 }
    }

    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let kept = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        kept.extend(bytes);
        let excess = kept.len().saturating_sub(self.max);
        kept.drain(..excess);
        self.dropped += excess as u64;
    }

    pub(crate) fn output(self, exit: Exit) -> Output {
        Output { exit, stdout: self.stdout.into(), stderr: self.stderr.into(), dropped: self.dropped }
    }
}

/// A buffer that refuses to grow beyond a bound.
#[derive(Debug)]
pub(super) struct Bounded {
    bytes: Vec<u8>,
    max: usize,
    overflowed: bool,
}

impl Bounded {
    pub(super) fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max, overflowed: false }
    }

    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.bytes.len() + bytes.len() > self.max {
            self.overflowed = true;
            return Poll::Ready(Err(std::io::ErrorKind::FileTooLarge.into()));
        }
        self.bytes.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let command = Command::shell("echo $TOKEN").env("TOKEN", "hunter2").stdin(Stdin::Bytes("s3cret".into()));
        let shown = format!("{command} {command:?} {:?}", command.stdin);
        assert!(!shown.contains("hunter2") && !shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("/bin/sh -c 'echo $TOKEN'"), "{shown}");
    }

    #[test]
    fn the_end_of_a_long_output_is_kept() {
        let mut kept = Kept::new(4);
        kept.take(Stream::Stdout, b"abc");
        kept.take(Stream::Stdout, b"defgh");
        kept.take(Stream::Stderr, b"xy");
        let output = kept.output(Exit::Code(0));
        assert_eq!((&output.stdout[..], &output.stderr[..], output.dropped), (&b"efgh"[..], &b"xy"[..], 4));
    }

    #[test]
    fn a_failure_repeats_what_the_program_said_last() {
        let command = Command::new("initdb");
        let output = Output { exit: Exit::Code(1), stdout: vec![], stderr: b"no room\n".to_vec(), dropped: 0 };
        let error = output.check("n1", &command).unwrap_err();
        assert_eq!(error.chain(), "a command failed. node=n1, exit=code 1, command=initdb: no room");
    }
}
