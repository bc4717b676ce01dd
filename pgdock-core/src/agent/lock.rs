//! One agent a node: a lock that ends with its process.

use std::fs::File;
use std::path::Path;

use crate::{Error, NodeName, Result};

/// Takes the lock of a node, for as long as the file is kept.
pub(crate) fn take(home: &Path, node: &NodeName) -> Result<File> {
    let path = home.join("agent.lock");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| {
            Error::internal(format!("cannot open the agent's lock. file={}", path.display())).because(e)
        })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(e) if e == rustix::io::Errno::WOULDBLOCK => {
            Err(Error::conflict(format!("another agent runs for this node. node={node}, lock={}", path.display()))
                .hint("`pgdock status` shows it; `pgdock down` stops it"))
        }
        Err(e) => Err(Error::internal(format!("cannot lock. file={}", path.display())).because(e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeName::new("n1").unwrap();
        let first = take(dir.path(), &node).unwrap();
        assert_eq!(take(dir.path(), &node).unwrap_err().kind(), crate::ErrorKind::Conflict);
        drop(first);
        take(dir.path(), &node).unwrap();
    }
}
