//! [`Delivery`]: brings a bundle to a node over its [`Executor`], and asks the node what it has.
//!
//! On the node the program `pgdock` does the work (`config install`): it reads the archive on its standard input, and
//! answers with a line of JSON.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::install::{Installed, Listing};
use super::{Bundle, Digest, Image};
use crate::executor::{Command, Executor, ExecutorExt, Exit, Stdin};
use crate::{Error, ErrorKind, NodeName, Result};

/// How long installing may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The largest answer, in bytes.
const ANSWER_MAX: usize = super::tar::ARCHIVE_MAX;

/// The way to one node.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// Runs commands on the node.
    pub executor: &'a dyn Executor,
    /// The program on the node, as a rule `pgdock`.
    pub program: String,
    /// The node.
    pub node: NodeName,
    /// The cluster.
    pub cluster: String,
    /// The node's home.
    pub home: PathBuf,
    /// The operator's folder, where the node is on this machine.
    pub folder: Option<PathBuf>,
}

impl Delivery<'_> {
    /// Delivers an image's bundle, and has it count.
    ///
    /// # Errors
    /// What the node says of the bundle; `Unavailable` when the node does not answer.
    pub async fn update(&self, image: &Image, tag: &str) -> Result<Installed> {
        let bundle = &image.bundle;
        if bundle.manifest().node != self.node || bundle.manifest().cluster != self.cluster {
            return Err(Error::invalid(format!(
                "the image holds the bundle of another node or cluster. tag={tag}, found={} of {}, meant={} of {}",
                bundle.manifest().node,
                bundle.manifest().cluster,
                self.node,
                self.cluster
            )));
        }
        let command = self
            .command("install")
            .args(["--digest", bundle.digest().as_str(), "--tag", tag])
            .stdin(Stdin::Bytes(bundle.archive().clone()));
        self.ask(&command).await
    }

    /// Has the node go back to the bundle before.
    ///
    /// # Errors
    /// As [`update`](Self::update); `NeedsOperator` when there is none.
    pub async fn rollback(&self) -> Result<Installed> {
        self.ask(&self.command("install").arg("--back")).await
    }

    /// What the node has.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn list(&self) -> Result<Listing> {
        self.ask(&self.command("installed")).await
    }

    /// The bundle that counts there.
    ///
    /// # Errors
    /// `NotReady` when there is none; otherwise as [`update`](Self::update).
    pub async fn current(&self) -> Result<Bundle> {
        let archive = self.run(&self.command("installed").arg("--archive")).await?;
        Bundle::from_archive(archive)
    }

    /// Whether the node still has a bundle, so that it need not be sent.
    #[must_use]
    pub fn has(listing: &Listing, digest: &Digest) -> bool {
        listing.entries.iter().any(|entry| entry.digest == *digest)
    }

    fn command(&self, what: &str) -> Command {
        let text = |path: &PathBuf| path.display().to_string();
        let command = Command::new(&self.program)
            .args(["config", what, "--home"])
            .arg(text(&self.home))
            .args(["--node", self.node.as_str(), "--cluster", &self.cluster])
            .timeout(LIMIT)
            .output_max(ANSWER_MAX);
        match &self.folder {
            Some(folder) => command.arg("--folder").arg(text(folder)),
            None => command,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, command: &Command) -> Result<T> {
        let answer = self.run(command).await?;
        serde_json::from_slice(&answer).map_err(|e| {
            Error::internal(format!("the node's answer is not understood. node={}", self.node))
                .because(e)
                .hint("pgdock on the node may be of another version")
                .outcome_unknown()
        })
    }

    async fn run(&self, command: &Command) -> Result<Bytes> {
        let output = self.executor.output(command).await?;
        if output.exit.success() {
            return Ok(output.stdout.into());
        }
        Err(told(&self.node, output.exit, &String::from_utf8_lossy(&output.stderr)))
    }
}

/// The error that the program on the node ended with.
fn told(node: &NodeName, exit: Exit, stderr: &str) -> Error {
    let (hints, lines): (Vec<_>, Vec<_>) = stderr.lines().partition(|line| line.starts_with("hint: "));
    let text = lines.join("\n");
    // What stands before is the log.
    let said = text.rsplit_once("error: ").map_or(text.as_str(), |(_, said)| said).trim();
    let kind = match exit {
        Exit::Code(2) => ErrorKind::Invalid,
        Exit::Code(4) => ErrorKind::NeedsOperator,
        Exit::Code(_) | Exit::Signal(_) => ErrorKind::Unavailable,
    };
    let said = if said.is_empty() { format!("the program ended with {exit}") } else { said.to_owned() };
    let error = Error::new(kind, format!("{node}: {said}"));
    let error = if exit == Exit::Code(5) { error.outcome_unknown() } else { error };
    hints.iter().fold(error, |error, hint| error.hint(&hint["hint: ".len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_error_comes_back_as_it_was() {
        let node = NodeName::new("n2").unwrap();
        let stderr =
            "WARN something\nerror: the bundle is another node's. bundle=n1, node=n2\nhint: build one\nhint: look\n";
        let error = told(&node, Exit::Code(2), stderr);
        assert_eq!(error.to_string(), "n2: the bundle is another node's. bundle=n1, node=n2");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.hints(), ["build one", "look"]);
        assert!(!told(&node, Exit::Code(5), "").outcome_known());
        assert!(told(&node, Exit::Signal(9), "").to_string().contains("signal 9"));
    }
}
