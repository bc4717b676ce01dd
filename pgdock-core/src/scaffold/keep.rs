//! Files that are made whole or not at all, and never overwritten.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::{Written, tokens};
use crate::{Error, Result};

/// A folder to add files to.
#[derive(Debug)]
pub(super) struct Folder<'a> {
    path: PathBuf,
    mode: u32,
    written: &'a mut Written,
}

impl<'a> Folder<'a> {
    /// Makes the folder with this mode where it is not there.
    pub(super) fn open(path: &Path, mode: u32, written: &'a mut Written) -> Result<Self> {
        make_folder(path, mode).map_err(|e| failed(path, e))?;
        Ok(Self { path: path.to_owned(), mode, written })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Makes a file where it is not there.
    pub(super) fn keep(&mut self, name: &str, mode: u32, content: &str) -> Result<()> {
        self.read_or_make(name, mode, || Ok(content.to_owned())).map(drop)
    }

    /// What a file says; where it is not there, it is made first. Where another process makes it meanwhile,
    /// what that one wrote counts.
    pub(super) fn read_or_make(
        &mut self,
        name: &str,
        mode: u32,
        make: impl FnOnce() -> Result<String>,
    ) -> Result<String> {
        let path = self.path(name);
        if !self.has(name) {
            let content = make()?;
            let parent = path.parent().unwrap_or(&self.path);
            make_folder(parent, self.mode).map_err(|e| failed(parent, e))?;
            match write_new(&path, mode, content.as_bytes()) {
                Ok(()) => {
                    self.written.made.push(path);
                    return Ok(content);
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(&path, e)),
            }
        }
        let content = std::fs::read_to_string(&path).map_err(|e| failed(&path, e))?;
        self.written.kept.push(path);
        Ok(content)
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::internal(format!("the file could not be made. file={}", path.display()))
        .because(error)
        .hint("check the owner and the free space of the folder")
}

fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Writes beside, then renames, and refuses to replace.
fn write_new(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", &tokens::random().map_err(io::Error::other)?[..16]));
    let result = write_beside(&beside, mode, content).and_then(|()| rename_new(&beside, path));
    if result.is_err() {
        // The first error counts; at worst a hidden file stays behind.
        let _ = std::fs::remove_file(&beside);
    }
    result?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn write_beside(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The umask may have taken bits away, such as that of execution.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system knows that flag; a hard link refuses to replace as well.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        other => Ok(other?),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}
