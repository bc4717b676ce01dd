//! What PostgreSQL runs as its `archive_command` or `restore_command`: a few bytes over the Unix socket, without a runtime,
//! settings or secrets.
//!
//! PostgreSQL reads the exit status. Above 125 its archiver ends at once, which the postmaster makes up for later, and
//! recovery stops with an error; below that the archiver tries again, and recovery takes it that there is no such file.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Try again later, or: there is no such file.
const NO: u8 = 1;
/// Do not go on.
const ABORT: u8 = 130;
/// Longer than the other side takes to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// What is asked of the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// May PostgreSQL give this file up?
    Push(String),
    /// Put this file there.
    Fetch(String, PathBuf),
}

/// `archive_command`: the program that asks the socket whether a file may be given up.
#[must_use]
pub fn archive_command(program: &Path, socket: &Path) -> String {
    format!("{} wal push --socket {} %f", quoted(program), quoted(socket))
}

/// `restore_command`: the program that asks the socket for a file.
#[must_use]
pub fn restore_command(program: &Path, socket: &Path) -> String {
    format!("{} wal fetch --socket {} %f %p", quoted(program), quoted(socket))
}

/// A path as one word of a shell, for a setting in which `%` stands for something.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''").replace('%', "%%"))
}

/// What the arguments ask of a socket; `None` where they ask for something else.
#[must_use]
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Option<(PathBuf, Ask)> {
    let args: Vec<OsString> = args.into_iter().skip(1).collect();
    let words: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    let is = |word: &OsStr, text: &str| word == OsStr::new(text);
    let text = |word: &OsStr| word.to_str().map(str::to_owned);
    match words[..] {
        [wal, push, flag, socket, name] if is(wal, "wal") && is(push, "push") && is(flag, "--socket") => {
            Some((socket.into(), Ask::Push(text(name)?)))
        }
        [wal, fetch, flag, socket, name, to] if is(wal, "wal") && is(fetch, "fetch") && is(flag, "--socket") => {
            Some((socket.into(), Ask::Fetch(text(name)?, to.into())))
        }
        _ => None,
    }
}

/// To be called first thing in `main`: does what PostgreSQL asks for, where it is PostgreSQL that has started the program.
#[must_use]
pub fn intercept(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let (socket, ask) = parse(args)?;
    Some(run(&socket, &ask).into())
}

/// Asks, and tells the exit status. Reasons go to standard error, which is PostgreSQL's log.
#[must_use]
pub fn run(socket: &Path, ask: &Ask) -> u8 {
    let complain = |why: &str| {
        let _ = writeln!(std::io::stderr().lock(), "pgdock: {why}");
    };
    let failed = match ask {
        Ask::Push(_) => NO,
        Ask::Fetch(..) => ABORT,
    };
    match exchange(socket, ask) {
        Ok(Said::Yes) => 0,
        Ok(Said::Missing) => NO,
        Ok(Said::No(why)) => {
            complain(&why);
            failed
        }
        Ok(Said::Stopping) => ABORT,
        Err(error) => {
            complain(&format!("the agent's socket does not answer: {error}. path={}", socket.display()));
            failed
        }
    }
}

enum Said {
    Yes,
    Missing,
    No(String),
    Stopping,
}

fn exchange(socket: &Path, ask: &Ask) -> std::io::Result<Said> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let line = match ask {
        Ask::Push(name) => format!("push {name}\n"),
        Ask::Fetch(name, _) => format!("fetch {name}\n"),
    };
    stream.write_all(line.as_bytes())?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let (head, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
    Ok(match (head, ask) {
        ("ok", Ask::Push(_)) => Said::Yes,
        ("ok", Ask::Fetch(_, to)) => {
            let length = rest.parse().map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
            take(stream, length, to)?;
            Said::Yes
        }
        ("missing", _) => Said::Missing,
        ("stopping", _) => Said::Stopping,
        ("not-yet" | "failed", _) => Said::No(rest.to_owned()),
        _ => return Err(std::io::ErrorKind::UnexpectedEof.into()),
    })
}

/// Writes what comes into a file; PostgreSQL moves that to its place once this program has ended well.
fn take(mut from: impl Read, length: u64, to: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create(to)?;
    let came = std::io::copy(&mut (&mut from).take(length), &mut file)?;
    if came != length {
        // Only what this program has written there itself: a device is no file.
        if file.metadata().is_ok_and(|found| found.is_file()) {
            let _ = std::fs::remove_file(to);
        }
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn args(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    /// A socket that gives one answer.
    fn answers(answer: &'static [u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            stream.write_all(answer).unwrap();
        });
        (dir, path)
    }

    #[test]
    fn only_what_postgresql_runs_is_intercepted() {
        let push = parse(args("pgdock wal push --socket /run/s 000000010000000000000003")).unwrap();
        assert_eq!(push, ("/run/s".into(), Ask::Push("000000010000000000000003".into())));
        let fetch = parse(args("pgdock wal fetch --socket /run/s 00000002.history pg_wal/RECOVERYHISTORY")).unwrap();
        assert_eq!(fetch.1, Ask::Fetch("00000002.history".into(), "pg_wal/RECOVERYHISTORY".into()));
        for other in ["pgdock", "pgdock status", "pgdock wal push", "pgdock wal fetch 00000002.history x"] {
            assert_eq!(parse(args(other)), None, "{other}");
        }
    }

    #[test]
    fn commands_are_one_word_each_to_a_shell() {
        let command = archive_command(Path::new("/opt/it's 100%/pgdock"), Path::new("/run/wal.sock"));
        assert_eq!(command, r"'/opt/it'\''s 100%%/pgdock' wal push --socket '/run/wal.sock' %f");
    }

    #[test]
    fn the_exit_status_is_what_postgresql_expects() {
        let push = Ask::Push("000000010000000000000003".into());
        let dir = tempfile::tempdir().unwrap();
        let fetch = Ask::Fetch("000000010000000000000003".into(), dir.path().join("RECOVERYXLOG"));
        for (ask, answer, status) in [
            (&push, &b"ok\n"[..], 0),
            (&push, b"not-yet the store does not answer\n", NO),
            (&push, b"stopping\n", ABORT),
            (&push, b"", NO),
            (&fetch, b"missing\n", NO),
            (&fetch, b"failed the store does not answer\n", ABORT),
            (&fetch, b"ok 4\nab", ABORT),
            (&fetch, b"", ABORT),
        ] {
            let (_dir, socket) = answers(answer);
            assert_eq!(run(&socket, ask), status, "{ask:?} {}", String::from_utf8_lossy(answer));
        }
        assert_eq!(run(Path::new("/nonexistent"), &push), NO);
        assert_eq!(run(Path::new("/nonexistent"), &fetch), ABORT, "or recovery would end too early");
    }

    #[test]
    fn what_is_fetched_is_whole_or_not_there() {
        let (dir, socket) = answers(b"ok 3\nabc");
        let to = dir.path().join("RECOVERYXLOG");
        assert_eq!(run(&socket, &Ask::Fetch("000000010000000000000003".into(), to.clone())), 0);
        assert_eq!(std::fs::read(&to).unwrap(), b"abc");
        let (_dir, socket) = answers(b"ok 4\nabc");
        assert_eq!(run(&socket, &Ask::Fetch("000000010000000000000003".into(), to.clone())), ABORT);
        assert!(!to.exists());
    }
}
