//! [Durable files](crate::durable) that belong to PostgreSQL's user, off the runtime's threads.

use std::fs::{DirBuilder, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::durable::{Staged, folder_of, sync_folder};
use crate::postgres::os_user::OsUser;
use crate::{Error, Result};

/// Writes a file durably, for nobody but its owner to read.
///
/// Another file of that name is replaced in one step, a link by the file itself. One that already says the same is left as
/// it is, which takes no room: an agent begins on a full disk, too.
pub(super) async fn write(path: &Path, bytes: Vec<u8>, owner: &OsUser) -> Result<()> {
    let (path, owner) = (path.to_owned(), owner.clone());
    blocking(move || write_now(&path, &bytes, &owner).map_err(|e| cannot("write", &path, e))).await
}

/// Removes a file durably; one that is not there is no error.
pub(super) async fn remove(path: &Path) -> Result<()> {
    let path = path.to_owned();
    blocking(move || match std::fs::remove_file(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.and_then(|()| sync_folder(folder_of(&path))).map_err(|e| cannot("remove", &path, e)),
    })
    .await
}

/// Renames durably within a folder.
pub(super) async fn rename(from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (from.to_owned(), to.to_owned());
    blocking(move || {
        std::fs::rename(&from, &to).and_then(|()| sync_folder(folder_of(&to))).map_err(|e| cannot("rename", &from, e))
    })
    .await
}

/// Makes a folder of the owner's, closed to others, where there is none.
pub(super) fn folder(path: &Path, owner: &OsUser) -> Result<()> {
    let make = || {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => {
                result?;
                sync_folder(folder_of(path))?;
            }
        }
        let found = std::fs::symlink_metadata(path)?;
        if !found.is_dir() {
            return Err(std::io::Error::other("something else has that name"));
        }
        if found.uid() != owner.uid {
            owner.take_path(path)?;
        }
        if found.mode() & 0o777 != 0o700 {
            std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
        }
        Ok(())
    };
    make().map_err(|e| cannot("make the folder", path, e))
}

/// Runs what may wait for a disk where it delays nobody else.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("work on files was cut short").because(error)),
    }
}

fn write_now(path: &Path, bytes: &[u8], owner: &OsUser) -> std::io::Result<()> {
    if says(path, bytes, owner).unwrap_or(false) {
        return Ok(());
    }
    let staged = Staged::create(path, 0o600)?;
    staged.sweep_beside()?;
    owner.take(staged.file())?;
    staged.file().write_all(bytes)?;
    staged.replace().map_err(|e| e.source)
}

/// Whether a file of the owner's says just this already, and will after a loss of power.
fn says(path: &Path, bytes: &[u8], owner: &OsUser) -> std::io::Result<bool> {
    let found = std::fs::symlink_metadata(path)?;
    let same = found.is_file()
        && found.len() == bytes.len() as u64
        && (found.uid(), found.gid()) == (owner.uid, owner.gid)
        && found.mode() & 0o777 == 0o600
        && std::fs::read(path)? == bytes;
    if same {
        // Whoever wrote it may have been killed before he had made sure.
        File::open(path)?.sync_all()?;
        sync_folder(folder_of(path))?;
    }
    Ok(same)
}

fn cannot(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::internal(format!("cannot {what}. path={}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_is_replaced_rather_than_followed() {
        let dir = tempfile::tempdir().unwrap();
        let me = OsUser::current().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        std::fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write(&link, b"new".to_vec(), &me).await.unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "old");
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "new");
        assert_eq!(std::fs::metadata(&link).unwrap().mode() & 0o777, 0o600);
        remove(&link).await.unwrap();
        remove(&link).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_there_already_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let me = OsUser::current().unwrap();
        let path = dir.path().join("file");
        let node = || std::fs::metadata(&path).unwrap().ino();
        write(&path, b"one".to_vec(), &me).await.unwrap();
        let first = node();
        write(&path, b"one".to_vec(), &me).await.unwrap();
        assert_eq!(node(), first);
        // Others may have read it: it is made anew, closed to them.
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write(&path, b"one".to_vec(), &me).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        write(&path, b"two".to_vec(), &me).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
    }

    #[test]
    fn a_file_in_the_way_of_a_folder_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs");
        std::fs::write(&path, "").unwrap();
        let error = folder(&path, &OsUser::current().unwrap()).unwrap_err();
        assert!(error.to_string().contains("logs"), "{error}");
    }
}
