//! The files of a restored data directory: made, filled, and brought to disk.

use std::collections::{BTreeMap, HashSet};
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{CONTROL, CONTROL_UNTIL, Destination};
use crate::backup::index::{Line, Pack, Part};
use crate::backup::manifest::Manifest;
use crate::durable;
use crate::postgres::conf_file;
use crate::postgres::os_user::OsUser;
use crate::{Error, Result};

/// Where the files of a backup go.
#[derive(Debug)]
pub(super) struct Places {
    data: PathBuf,
    /// Tablespaces outside the data directory: where each goes.
    tablespaces: BTreeMap<u32, PathBuf>,
    owner: Option<OsUser>,
}

impl Places {
    /// Makes the data directory and the folders of the tablespaces, which must be new or empty.
    pub(super) fn prepare(manifest: &Manifest, to: &Destination) -> Result<Self> {
        let absolute = |path: &Path| {
            let fine = path.is_absolute() && path.to_str().is_some_and(|p| !p.contains(['\n', '\r', '\\']));
            if fine {
                Ok(path.to_owned())
            } else {
                Err(Error::invalid(format!("not an absolute, plain path. path={}", path.display())))
            }
        };
        let data = absolute(&to.data)?;
        let mut tablespaces = BTreeMap::new();
        for space in &manifest.tablespaces {
            let place = to.tablespaces.get(&space.oid).cloned().unwrap_or_else(|| PathBuf::from(&space.path));
            tablespaces.insert(space.oid, absolute(&place)?);
        }
        if let Some(oid) = to.tablespaces.keys().find(|oid| !tablespaces.contains_key(oid)) {
            let known: Vec<_> = tablespaces.keys().map(ToString::to_string).collect();
            return Err(Error::invalid(format!(
                "the backup has no such tablespace. oid={oid}, known={}",
                known.join(",")
            )));
        }
        let mut distinct = HashSet::new();
        for place in tablespaces.values().chain([&data]) {
            if !distinct.insert(place) {
                return Err(Error::invalid(format!(
                    "two folders of the backup would go to one place. path={}",
                    place.display()
                )));
            }
            fresh(place)?;
        }
        let this = Self { data, tablespaces, owner: to.owner.clone() };
        for place in this.tablespaces.values().chain([&this.data]) {
            // Those above are for PostgreSQL's user to pass.
            let above = durable::folder_of(place);
            durable::create_folder(above, 0o755).map_err(|e| cannot("make a folder", above, e))?;
            durable::create_folder(place, 0o700).map_err(|e| cannot("make a folder", place, e))?;
            this.own(place)?;
            std::fs::set_permissions(place, Permissions::from_mode(0o700))
                .map_err(|e| cannot("close a folder", place, e))?;
        }
        if this.tablespaces.is_empty() {
            has_room(&this.data, manifest.plain)?;
        }
        Ok(this)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.data.join(if path == CONTROL { CONTROL_UNTIL } else { path })
    }

    fn own(&self, path: &Path) -> Result<()> {
        match &self.owner {
            Some(owner) => owner.take_path(path).map_err(|e| cannot("give a file to its owner", path, e)),
            None => Ok(()),
        }
    }

    /// Makes a folder or a file, with nothing in it.
    pub(super) fn make(&self, line: &Line) -> Result<()> {
        match line {
            Line::Pack(_) => Ok(()),
            Line::Folder { path, mode } => {
                let full = self.path(path);
                let space = path
                    .strip_prefix("pg_tblspc/")
                    .and_then(|oid| oid.parse().ok())
                    .and_then(|oid: u32| self.tablespaces.get(&oid));
                let made = match space {
                    Some(place) => std::os::unix::fs::symlink(place, &full),
                    None => DirBuilder::new().mode(*mode).create(&full),
                };
                made.map_err(|e| cannot("make a folder", &full, e))?;
                self.own(&full)
            }
            Line::File { path, size, mode, .. } => {
                let full = self.path(path);
                let made = || {
                    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&full)?;
                    file.set_len(*size)?;
                    file.set_permissions(Permissions::from_mode(*mode))
                };
                made().map_err(|e| cannot("make a file", &full, e))?;
                self.own(&full)
            }
        }
    }

    fn open(&self, part: &Part) -> Result<File> {
        let full = self.path(&part.path);
        let file = OpenOptions::new().write(true).open(&full).map_err(|e| cannot("open a file", &full, e))?;
        let size = file.metadata().map_err(|e| cannot("open a file", &full, e))?.len();
        if part.at.checked_add(part.length).is_none_or(|end| end > size) {
            let message = format!(
                "the index of the backup names content behind a file's end. path={}, size={size}, at={}",
                part.path, part.at
            );
            return Err(Error::invalid(message));
        }
        Ok(file)
    }

    /// Writes a whole file, over whatever is there.
    pub(super) fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let full = self.data.join(path);
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&full)?;
            file.write_all(content)
        };
        write().map_err(|e| cannot("write a file", &full, e))?;
        self.own(&full)
    }

    /// Adds settings to the end of `postgresql.auto.conf`, and takes away what contradicts them.
    pub(super) fn add_settings(&self, settings: &str) -> Result<()> {
        let path = "postgresql.auto.conf";
        let full = self.data.join(path);
        let found = match std::fs::read(&full) {
            Ok(found) => String::from_utf8_lossy(&found).into_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(cannot("read a file", &full, e)),
        };
        let mut text = conf_file::strip_auto_conf(&found, true).unwrap_or(found);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.write(path, (text + settings).as_bytes())
    }

    /// Where tablespaces are, for PostgreSQL: it makes their links anew by it.
    pub(super) fn write_tablespace_map(&self) -> Result<()> {
        if self.tablespaces.is_empty() {
            return Ok(());
        }
        let lines: String =
            self.tablespaces.iter().map(|(oid, place)| format!("{oid} {}\n", place.display())).collect();
        self.write("tablespace_map", lines.as_bytes())
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.data.join(from), self.data.join(to));
        std::fs::rename(&from, &to)
            .and_then(|()| durable::sync_folder(durable::folder_of(&to)))
            .map_err(|e| cannot("name the control file", &to, e))
    }

    /// Brings all files and folders to disk, on several threads.
    pub(super) fn sync(&self, threads: usize) -> Result<()> {
        // One call that writes everything in an order that suits the disk; the many that follow find little left, and tell of errors.
        for place in self.tablespaces.values().chain([&self.data]) {
            let folder = File::open(place).map_err(|e| cannot("open a folder", place, e))?;
            rustix::fs::syncfs(&folder).map_err(|e| cannot("bring files to disk", place, e.into()))?;
        }
        let (paths, failed) = (Mutex::new(self.tree()), AtomicBool::new(false));
        let next = || if failed.load(Ordering::Relaxed) { None } else { paths.lock().ok()?.next() };
        let sync = || -> Result<()> {
            while let Some(path) = next() {
                let path = path?;
                File::open(&path)
                    .and_then(|file| file.sync_all())
                    .map_err(|e| cannot("bring a file to disk", &path, e))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| sync().inspect_err(|_| failed.store(true, Ordering::Relaxed))))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(Error::internal("a thread of the restore died")))
            })
        })?;
        for place in self.tablespaces.values().chain([&self.data]) {
            durable::sync_folder(durable::folder_of(place)).map_err(|e| cannot("bring a folder to disk", place, e))?;
        }
        Ok(())
    }

    /// All files and folders, one folder's names in memory at a time.
    fn tree(&self) -> impl Iterator<Item = Result<PathBuf>> + Send {
        let mut folders: Vec<PathBuf> = self.tablespaces.values().chain([&self.data]).cloned().collect();
        let mut open: Option<std::fs::ReadDir> = None;
        std::iter::from_fn(move || {
            loop {
                if let Some(entries) = &mut open {
                    match entries.next() {
                        Some(Ok(entry)) => match entry.file_type() {
                            Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                            Ok(kind) if kind.is_file() => return Some(Ok(entry.path())),
                            Ok(_) => {}
                            Err(e) => return Some(Err(cannot("look at a file", &entry.path(), e))),
                        },
                        Some(Err(e)) => {
                            return Some(Err(Error::unavailable("cannot read a restored folder").because(e)));
                        }
                        None => open = None,
                    }
                } else {
                    let folder = folders.pop()?;
                    match std::fs::read_dir(&folder) {
                        Ok(entries) => open = Some(entries),
                        Err(e) => return Some(Err(cannot("read a folder", &folder, e))),
                    }
                    return Some(Ok(folder));
                }
            }
        })
    }
}

/// Refuses to begin what cannot fit. Where it cannot be told, the disk will.
fn has_room(place: &Path, bytes: u64) -> Result<()> {
    let Ok(found) = rustix::fs::statvfs(place) else { return Ok(()) };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free >= bytes {
        return Ok(());
    }
    let message =
        format!("the backup does not fit on that disk. path={}, needed={bytes}, free={free}", place.display());
    Err(Error::unavailable(message).hint("make room, or name a place on another disk"))
}

/// Refuses a folder with something in it.
fn fresh(place: &Path) -> Result<()> {
    let found = match std::fs::read_dir(place) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(_) => true,
    };
    if found {
        let message =
            format!("there is something in the place that the backup would be restored to. path={}", place.display());
        return Err(Error::conflict(message).hint("name a folder that does not exist yet, or is empty"));
    }
    Ok(())
}

/// Distributes the content of a pack over the files that it belongs to.
pub(super) struct PartWriter<'a> {
    places: &'a Places,
    pack: &'a Pack,
    /// Which part is written, where it stands, and the digest of what was written of it.
    next: usize,
    done: u64,
    file: Option<File>,
    hasher: blake3::Hasher,
}

impl<'a> PartWriter<'a> {
    pub(super) fn new(places: &'a Places, pack: &'a Pack) -> Self {
        Self { places, pack, next: 0, done: 0, file: None, hasher: blake3::Hasher::new() }
    }

    pub(super) fn write(&mut self, mut content: &[u8]) -> Result<()> {
        // The digest of a pack with one part is proven already.
        let proven = self.pack.parts.len() == 1;
        while !content.is_empty() {
            let part =
                self.pack.parts.get(self.next).ok_or_else(|| Error::invalid("a pack is longer than its parts"))?;
            let left = part.length - self.done;
            let (now, later) = content.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(content.len()));
            let file = match &self.file {
                Some(file) => file,
                None => self.file.insert(self.places.open(part)?),
            };
            let full = || self.places.path(&part.path);
            file.write_all_at(now, part.at + self.done).map_err(|e| cannot("write a file", &full(), e))?;
            if !proven {
                self.hasher.update(now);
            }
            self.done += now.len() as u64;
            content = later;
            if self.done == part.length {
                if !proven && part.digest != self.hasher.finalize().into() {
                    return Err(Error::invalid(format!(
                        "a file of the backup is not what was written. path={}",
                        part.path
                    )));
                }
                self.hasher.reset();
                (self.next, self.done, self.file) = (self.next + 1, 0, None);
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<()> {
        if self.next == self.pack.parts.len() {
            Ok(())
        } else {
            Err(Error::invalid("a pack is shorter than its parts"))
        }
    }
}

fn cannot(what: &str, path: &Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, StorageFull};
    let failed = Error::unavailable(format!("cannot {what}. path={}", path.display()));
    match error.kind() {
        StorageFull | QuotaExceeded => {
            failed.hint("there is no room on that disk: remove what was restored so far, and name another place")
        }
        PermissionDenied => failed.hint("the user that restores must be able to write there"),
        _ => failed,
    }
    .because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::Tablespace;
    use crate::backup::manifest::tests::sample;

    fn to(data: PathBuf, tablespaces: &[(u32, PathBuf)]) -> Destination {
        Destination { data, tablespaces: tablespaces.iter().cloned().collect(), owner: None, processes: 1 }
    }

    #[test]
    fn only_fresh_places_with_room_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = sample(1_000, 1, 1, 2);
        let data = dir.path().join("new/data");
        Places::prepare(&manifest, &to(data.clone(), &[])).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(data.parent().unwrap())), (0o700, 0o755));
        assert!(Places::prepare(&manifest, &to("relative".into(), &[])).is_err());
        let error = Places::prepare(&manifest, &to(data.clone(), &[(5, dir.path().join("x"))])).unwrap_err();
        assert!(error.to_string().contains("no such tablespace"), "{error}");
        std::fs::write(data.join("thesis.txt"), "the only copy").unwrap();
        let error = Places::prepare(&manifest, &to(data.clone(), &[])).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Conflict, "{error}");

        manifest.tablespaces.push(Tablespace { oid: 5, path: data.to_str().unwrap().to_owned() });
        let free = dir.path().join("free");
        assert!(Places::prepare(&manifest, &to(free.clone(), &[])).is_err(), "where the tablespace was is something");
        let error = Places::prepare(&manifest, &to(free.clone(), &[(5, free.clone())])).unwrap_err();
        assert!(error.to_string().contains("one place"), "{error}");

        manifest.tablespaces.clear();
        manifest.plain = u64::MAX;
        let error = Places::prepare(&manifest, &to(free, &[])).unwrap_err();
        assert!(error.to_string().contains("does not fit"), "{error}");
    }

    #[test]
    fn content_goes_to_its_parts_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::prepare(&sample(1_000, 1, 1, 2), &to(dir.path().join("data"), &[])).unwrap();
        let file = |path: &str, size| Line::File { path: path.into(), size, mode: 0o640, mtime: 0 };
        places.make(&file("a", 8)).unwrap();
        places.make(&file("b", 3)).unwrap();
        let part = |path: &str, at, content: &[u8]| Part {
            path: path.into(),
            at,
            length: content.len() as u64,
            digest: crate::backup::Digest::of(content),
        };
        let mut pack = Pack {
            number: 0,
            stored: 0,
            digest: crate::backup::Digest::of(b""),
            parts: vec![part("a", 4, b"tail"), part("b", 0, b"abc")],
        };
        let write = |pack: &Pack, pieces: &[&[u8]]| {
            let mut writer = PartWriter::new(&places, pack);
            pieces.iter().try_for_each(|piece| writer.write(piece))?;
            writer.finish()
        };
        write(&pack, &[b"ta", b"ila", b"bc"]).unwrap();
        assert_eq!(std::fs::read(dir.path().join("data/a")).unwrap(), b"\0\0\0\0tail");
        assert_eq!(std::fs::read(dir.path().join("data/b")).unwrap(), b"abc");
        assert!(write(&pack, &[b"tail", b"abd"]).unwrap_err().to_string().contains("path=b"));
        assert!(write(&pack, &[b"tail"]).unwrap_err().to_string().contains("shorter"));
        assert!(write(&pack, &[b"tailabcd"]).unwrap_err().to_string().contains("longer"));
        pack.parts[0].at = 5;
        assert!(write(&pack, &[b"tailabc"]).unwrap_err().to_string().contains("behind a file's end"));
    }
}
