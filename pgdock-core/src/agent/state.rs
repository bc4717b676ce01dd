//! [`StateFile`]: what an agent must remember over its own restart, on disk before it is acted upon.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::durable::Staged;
use crate::view::Durable;
use crate::{Error, Result};

/// The file `state.json` in a node's home, and its content in memory.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    durable: Arc<Mutex<Durable>>,
    /// Held while the file is written; `durable` never is, so that nobody waits for a disk to read it.
    writing: Arc<Mutex<()>>,
}

impl StateFile {
    /// Reads the file, or begins without one.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let durable = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::needs_operator(format!("the agent's state is not readable. file={}", path.display()))
                    .because(e)
                    .hint("it holds pledges: remove it only when this node's data directory is removed, too")
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Durable::default(),
            Err(e) => {
                return Err(
                    Error::internal(format!("cannot read the agent's state. file={}", path.display())).because(e)
                );
            }
        };
        Ok(Self { path: path.to_owned(), durable: Arc::new(Mutex::new(durable)), writing: Arc::default() })
    }

    /// What it holds.
    pub(crate) fn get(&self) -> Durable {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it: on disk first, then in memory. On an error nothing has changed. Changes come one after the
    /// other, and one that was begun is ended even if nobody waits for it any more: else one could undo
    /// another, and with it a pledge.
    pub(crate) async fn update(&self, change: impl FnOnce(&mut Durable) + Send + 'static) -> Result<()> {
        let (path, durable, writing) = (self.path.clone(), Arc::clone(&self.durable), Arc::clone(&self.writing));
        tokio::task::spawn_blocking(move || {
            let _turn = writing.lock().unwrap_or_else(PoisonError::into_inner);
            let before = durable.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut next = before.clone();
            change(&mut next);
            if next == before {
                return Ok(());
            }
            let bytes =
                serde_json::to_vec_pretty(&next).map_err(|e| Error::internal("cannot encode the state").because(e))?;
            write(&path, &bytes).map_err(|e| {
                Error::unavailable(format!("cannot write the agent's state. file={}", path.display())).because(e)
            })?;
            *durable.lock().unwrap_or_else(PoisonError::into_inner) = next;
            Ok(())
        })
        .await
        .map_err(|e| Error::internal("the writer of the state ended early").because(e))?
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let staged = Staged::create(path, 0o600)?;
    staged.sweep_beside()?;
    staged.file().write_all(bytes)?;
    staged.replace().map_err(|e| e.source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Term;

    #[tokio::test]
    async fn it_survives_and_a_failed_write_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let state = StateFile::open(&path).unwrap();
        state.update(|d| d.reign = Term(7)).await.unwrap();
        assert_eq!(StateFile::open(&path).unwrap().get().reign, Term(7));

        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        assert!(state.update(|d| d.reign = Term(8)).await.is_err());
        assert_eq!(state.get().reign, Term(7));
    }

    #[tokio::test]
    async fn changes_at_the_same_time_do_not_undo_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let state = StateFile::open(&path).unwrap();
        let (one, other) = tokio::join!(state.update(|d| d.reign = Term(7)), state.update(|d| d.rewound = true));
        one.and(other).unwrap();
        let on_disk = StateFile::open(&path).unwrap().get();
        assert_eq!((on_disk.reign, on_disk.rewound), (Term(7), true));
    }

    #[test]
    fn a_truncated_file_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        std::fs::write(&path, "{\"pledge\":").unwrap();
        assert_eq!(StateFile::open(&path).unwrap_err().kind(), crate::ErrorKind::NeedsOperator);
    }
}
