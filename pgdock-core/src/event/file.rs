//! The file of an event log, and the older one that it replaced.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Event;

/// Appends lines; renames the file to the older one when it has grown too large.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    bytes_max: u64,
    /// Open once something was written, closed by a failure.
    file: Option<(File, u64)>,
}

impl EventFile {
    pub(super) fn new(path: &Path, bytes_max: u64) -> Self {
        Self { path: path.to_owned(), bytes_max, file: None }
    }

    /// Appends a line, which is given without its end. After a failure the next call opens the file anew.
    pub(super) fn append(&mut self, line: &str) -> io::Result<()> {
        let mut text = String::with_capacity(line.len() + 1);
        text.push_str(line);
        text.push('\n');
        let (mut file, mut size) = match self.file.take() {
            Some(open) => open,
            None => open(&self.path)?,
        };
        if size > 0 && size + text.len() as u64 > self.bytes_max {
            std::fs::rename(&self.path, older(&self.path))?;
            (file, size) = open(&self.path)?;
        }
        file.write_all(text.as_bytes())?;
        self.file = Some((file, size + text.len() as u64));
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut size = file.metadata()?.len();
    if size > 0 {
        // A crash or a full disk may have left half a line.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

/// The events of both files at and after a time. Lines that are no events are left out: a crash leaves half
/// a line.
pub(super) fn read(path: &Path, since: Option<Timestamp>) -> Vec<Event> {
    [older(path), path.to_owned()]
        .iter()
        .filter(|path| path.is_file())
        .filter_map(|path| File::open(path).ok())
        .flat_map(|file| BufReader::new(file).split(b'\n').map_while(io::Result::ok))
        .filter_map(|line| serde_json::from_slice::<Event>(&line).ok())
        .filter(|event| since.is_none_or(|since| event.at >= since))
        .collect()
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("1.ndjson")
}
