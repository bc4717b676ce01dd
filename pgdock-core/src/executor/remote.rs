//! What executors of other machines share: a shell on the node that says who it is, before it becomes a program or
//! takes a file.

use std::time::Duration;

use bytes::Bytes;

use super::command::{Command, Exit, Stdin};
use super::shown;
use crate::{Error, Result};

pub(super) mod files;
pub(super) mod script;

use script::Process;

/// How much is heard before the mark.
const NOISE_MAX: usize = 64 << 10;

/// What no login shell says by itself.
pub(super) fn mark() -> String {
    format!("pgdock-{}", crate::dice::unique())
}

/// A command that outlived its timeout: it was killed, or had not begun.
pub(super) fn out_of_time(node: &str, command: &Command, timeout: Duration, started: bool) -> Error {
    let about = format!("node={node}, seconds={}, command={command}", timeout.as_secs_f64());
    match started {
        true => Error::unavailable(format!("a command took too long and was killed. {about}")).outcome_unknown(),
        false => Error::unavailable(format!("a command could not be started in time. {about}")),
    }
}

/// What a program reads, opened before anything is started.
pub(super) enum Input {
    Empty,
    Bytes(Bytes),
    File(tokio::fs::File),
}

impl Input {
    pub(super) async fn open(stdin: &Stdin) -> Result<Self> {
        Ok(match stdin {
            Stdin::Empty => Self::Empty,
            Stdin::Bytes(bytes) => Self::Bytes(bytes.clone()),
            Stdin::File(path) => Self::File(tokio::fs::File::open(path).await.map_err(|e| {
                Error::invalid(format!("the input of a command cannot be read. path={}", path.display())).because(e)
            })?),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// What comes on one output before the shell's word, and that word.
#[derive(Debug, Default)]
pub(super) struct Preface {
    held: Vec<u8>,
    pub(super) said: Option<String>,
}

impl Preface {
    /// Takes what came, and gives what is the program's.
    pub(super) fn take(&mut self, mark: &str, data: Bytes) -> Result<Option<Bytes>> {
        if self.said.is_some() {
            return Ok(Some(data));
        }
        self.held.extend_from_slice(&data);
        if let Some(start) = find(&self.held, mark.as_bytes())
            && let Some(length) = self.held[start..].iter().position(|&byte| byte == b'\n')
        {
            let words = &self.held[start + mark.len()..start + length];
            self.said = Some(String::from_utf8_lossy(words).trim().to_owned());
            return Ok(Some(self.held.split_off(start + length + 1).into()));
        }
        if self.held.len() > NOISE_MAX {
            return Err(Error::invalid("the login shell writes without end")
                .hint("its start files (such as .bashrc) must be silent where no terminal is"));
        }
        Ok(None)
    }

    /// The end of what came before the word.
    pub(super) fn noise(&self) -> String {
        let noise = self.held.trim_ascii();
        String::from_utf8_lossy(&noise[noise.len().saturating_sub(500)..]).into_owned()
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Who says `run PID START`.
pub(super) fn introduced(said: &str) -> Option<Process> {
    let mut words = said.strip_prefix("run ")?.split(' ');
    Some(Process { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? })
}

/// Why a shell did not become its program.
pub(super) fn not_started(
    (node, hint): (&str, &str),
    command: &Command,
    stdout: &Preface,
    stderr: &Preface,
    exit: Exit,
) -> Error {
    match stdout.said.as_deref() {
        Some("no-program") => Error::invalid(format!(
            "a command cannot be started: there is no such program. node={node}, command={command}"
        )),
        Some("no-dir") => Error::invalid(format!(
            "a command cannot be started in its folder. node={node}, command={command}{}",
            shown(command.surroundings().0)
        )),
        _ => Error::invalid(format!("the node's shell does not run commands. node={node}, exit={exit}"))
            .because(format!("{} {}", stdout.noise(), stderr.noise()).trim().to_owned())
            .hint(hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_output_begins_after_the_mark() {
        let mut preface = Preface::default();
        let mut seen = Vec::new();
        for piece in ["motd\nma", "rk run 12 3", "4\nfirst\nmark", " second"] {
            if let Some(data) = preface.take("mark", piece.into()).unwrap() {
                seen.extend_from_slice(&data);
            }
        }
        assert_eq!(seen, b"first\nmark second");
        let said = preface.said.clone().unwrap();
        assert_eq!(introduced(&said), Some(Process { pid: 12, started: 34 }));
        assert_eq!(introduced("no-dir"), None);
        let endless = Preface::default().take("mark", vec![b'x'; NOISE_MAX + 1].into());
        assert!(endless.unwrap_err().to_string().contains("login shell"));
    }
}
