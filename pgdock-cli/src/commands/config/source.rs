//! Which commit a folder is at, where it is a checkout of git.

use std::path::Path;
use std::process::{Command, Stdio};

use pgdock_core::NodeName;
use pgdock_core::bundle::Source;

/// The commit that is checked out, and whether what goes into a bundle was changed since. Nothing where the folder is no
/// checkout, or there is no git.
pub(super) fn of(dir: &Path, node: &NodeName) -> Option<Source> {
    let commit = git(dir, &["rev-parse", "--verify", "HEAD"])?;
    let paths = ["cluster.toml", "shared", node.as_str()];
    let status = ["status", "--porcelain", "--untracked-files=all", "--"];
    let changed = git(dir, &status.into_iter().chain(paths).collect::<Vec<_>>())?;
    Some(Source { commit: commit.trim().to_owned(), changed: !changed.trim().is_empty() })
}

fn git(dir: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(dir).args(args).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
