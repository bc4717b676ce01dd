//! Files that appear whole or not at all, also across a crash of the machine.
//!
//! A [`Staged`] file is written under a hidden name beside its target and moved there once it is on disk.
//! While its writer lives it holds a lock on the file, so that [`sweep`] can tell what a crash left behind.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::dice::unique;

const SUFFIX: &str = ".pgdock-tmp";

/// A file on its way to its place. Dropped before it lands, it is removed.
#[derive(Debug)]
pub(crate) struct Staged {
    file: File,
    path: PathBuf,
    target: PathBuf,
    landed: bool,
}

/// Why a staged file did not land.
#[derive(Debug)]
pub(crate) struct LandError {
    pub(crate) source: io::Error,
    /// Whether the new file may be in place all the same.
    pub(crate) perhaps_visible: bool,
}

impl LandError {
    fn before(source: io::Error) -> Self {
        Self { source, perhaps_visible: false }
    }

    fn perhaps(source: io::Error) -> Self {
        Self { source, perhaps_visible: true }
    }
}

impl Staged {
    /// Makes an empty file beside `target`, whose folder must exist.
    pub(crate) fn create(target: &Path, mode: u32) -> io::Result<Self> {
        let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        loop {
            let hidden = format!(".{}.{}{SUFFIX}", name.to_string_lossy(), &unique()[..16]);
            let path = folder_of(target).join(hidden);
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            let staged = Self { file, path, target: target.to_owned(), landed: false };
            // A sweep that came between the two calls holds the lock, or has removed the file already.
            if flock(&staged.file, FlockOperation::NonBlockingLockExclusive).is_ok()
                && staged.file.metadata()?.nlink() > 0
            {
                staged.file.set_permissions(std::fs::Permissions::from_mode(mode))?;
                return Ok(staged);
            }
        }
    }

    /// The file to write to.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Removes what crashes of earlier writers left in the same folder.
    pub(crate) fn sweep_beside(&self) -> io::Result<()> {
        sweep(folder_of(&self.target))
    }

    /// Puts the file in its place, over whatever is there.
    pub(crate) fn replace(mut self) -> Result<(), LandError> {
        self.file.sync_all().map_err(LandError::before)?;
        std::fs::rename(&self.path, &self.target).map_err(LandError::perhaps)?;
        self.landed = true;
        sync_folder(folder_of(&self.target)).map_err(LandError::perhaps)
    }

    /// Puts the file in its place if nothing is there; says whether it did.
    pub(crate) fn create_new(self) -> Result<bool, LandError> {
        self.file.sync_all().map_err(LandError::before)?;
        match std::fs::hard_link(&self.path, &self.target) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(LandError::perhaps(e)),
        }
        // The hidden name goes before the folder is synced, so that a crash does not bring it back.
        let folder = folder_of(&self.target).to_owned();
        drop(self);
        sync_folder(&folder).map(|()| true).map_err(LandError::perhaps)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.landed {
            // Nothing to be done about a failure here: `sweep` comes by later.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether a name is that of a staged file.
pub(crate) fn is_staged(name: &std::ffi::OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name.ends_with(SUFFIX.as_bytes())
}

/// Removes the staged files in a folder whose writers are gone.
pub(crate) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !is_staged(&entry.file_name()) {
            continue;
        }
        // Its writer may finish or vanish at any moment, so that every failure here is fine.
        // What a link or a pipe of that name leads to is not for us to wait for.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(entry.path()) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Makes a folder and those above it, each on disk before the next.
pub(crate) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let above = folder_of(path);
    create_folder(above, mode)?;
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => sync_folder(above),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(io::ErrorKind::NotADirectory.into()),
        Err(e) => Err(e),
    }
}

/// The folder that holds a path.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Brings the names in a folder to disk.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_lands_whole_or_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        let staged = Staged::create(&target, 0o640).unwrap();
        staged.file().write_all(b"one").unwrap();
        assert!(!target.exists());
        staged.replace().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
        assert_eq!(target.metadata().unwrap().mode() & 0o777, 0o640);

        drop(Staged::create(&target, 0o600).unwrap());
        assert!(!Staged::create(&target, 0o600).unwrap().create_new().unwrap());
        assert_eq!(names(dir.path()), ["a"]);
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
    }

    #[test]
    fn a_sweep_spares_files_that_are_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a");
        let living = Staged::create(&target, 0o600).unwrap();
        std::fs::write(dir.path().join(".a.0123.pgdock-tmp"), "left by a crash").unwrap();
        std::fs::write(dir.path().join(".a.tmp"), "somebody else's").unwrap();
        sweep(dir.path()).unwrap();
        assert_eq!(names(dir.path()).len(), 2);
        assert!(living.create_new().unwrap());
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, [".a.tmp", "a"]);
    }
}
