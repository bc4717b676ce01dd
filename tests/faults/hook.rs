//! [`Hook`]: waits for an agent to say something in its log, so that it can be hit right then.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pgdock_core::NodeName;

/// How often the log is looked at.
const POLL: Duration = Duration::from_millis(1);

/// A place in the log of an agent.
#[derive(Debug)]
pub(super) struct Hook {
    node: NodeName,
    path: PathBuf,
    offset: u64,
    /// The beginning of a line that has not ended yet.
    rest: String,
}

impl Hook {
    /// The present end of a log.
    pub(super) fn at_end(node: NodeName, path: PathBuf) -> Self {
        let offset = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        Self { node, path, offset, rest: String::new() }
    }

    /// Whether a line that came since was complete, and holds the words.
    fn heard(&mut self, words: &str) -> bool {
        let Ok(mut file) = File::open(&self.path) else { return false };
        let mut text = String::new();
        if file.seek(SeekFrom::Start(self.offset)).is_err() {
            return false;
        }
        let Ok(read) = file.read_to_string(&mut text) else { return false };
        self.offset += read as u64;
        self.rest.push_str(&text);
        let Some(end) = self.rest.rfind('\n') else { return false };
        let lines: String = self.rest.drain(..=end).collect();
        lines.lines().any(|line| line.contains(words))
    }
}

/// Waits until one of the agents says the words, and tells which.
pub(super) async fn first_to_say(hooks: &mut [Hook], words: &str, limit: Duration) -> Option<NodeName> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(hook) = hooks.iter_mut().find_map(|hook| hook.heard(words).then_some(&hook.node)) {
            return Some(hook.clone());
        }
        tokio::time::sleep(POLL).await;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn only_what_comes_later_and_is_complete_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n1.log");
        std::fs::write(&path, "begins task=\"promoting\"\n").unwrap();
        let mut hooks = [Hook::at_end(NodeName::new("n1").unwrap(), path.clone())];
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"begins task=\"promoting\"").unwrap();
        assert!(!hooks[0].heard("promoting"));
        file.write_all(b" now\nbegins").unwrap();
        let who = first_to_say(&mut hooks, "promoting", Duration::from_secs(5)).await;
        assert_eq!(who.unwrap().as_str(), "n1");
        assert_eq!(first_to_say(&mut hooks, "promoting", Duration::from_millis(5)).await, None);
    }
}
