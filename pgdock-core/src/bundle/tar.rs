//! The archive of a bundle: plain `ustar` (POSIX.1-1988), regular files alone, the same bytes for the same files.
//!
//! What is read must be byte for byte what this module would write. So there is no second way to say the same, and
//! nothing in an archive that nobody looked at.

use std::collections::BTreeMap;

use super::path;
use crate::{Error, Result};

const BLOCK: usize = 512;
const SIZE_AT: std::ops::Range<usize> = 124..135;
const SUM_AT: std::ops::Range<usize> = 148..156;
/// The name of the first entry.
pub(super) const LIST: &str = "bundle.json";

/// The largest archive, in bytes.
pub(crate) const ARCHIVE_MAX: usize = 64 << 20;
/// The most files.
pub(crate) const FILES_MAX: usize = 10_000;

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Whether it can be run: mode 0755 rather than 0644.
    pub(crate) runs: bool,
    /// What it holds.
    pub(crate) bytes: Vec<u8>,
}

impl File {
    pub(crate) fn mode(&self) -> u32 {
        if self.runs { 0o755 } else { 0o644 }
    }
}

/// Writes an archive: the list first, then the files by name.
pub(super) fn write(list: &[u8], files: &BTreeMap<String, File>) -> Vec<u8> {
    write_named(LIST, list, files)
}

/// The same with another first file.
pub(super) fn write_named(first: &str, list: &[u8], files: &BTreeMap<String, File>) -> Vec<u8> {
    let mut archive = Vec::new();
    entry(&mut archive, first, 0o644, list);
    for (path, file) in files {
        entry(&mut archive, path, file.mode(), &file.bytes);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn entry(archive: &mut Vec<u8>, path: &str, mode: u32, bytes: &[u8]) {
    let mut header = [0u8; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", bytes.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum = sum(&header);
    header[SUM_AT].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&header);
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

fn sum(header: &[u8]) -> u32 {
    header.iter().enumerate().map(|(at, byte)| if SUM_AT.contains(&at) { 32 } else { u32::from(*byte) }).sum()
}

/// Reads an archive: the list, and the files by name.
///
/// # Errors
/// `Invalid`, naming the entry, for anything that [`write`] would not have written.
pub(super) fn read(archive: &[u8]) -> Result<(Vec<u8>, BTreeMap<String, File>)> {
    if archive.len() > ARCHIVE_MAX {
        return Err(refuse(&format!("it is too large. bytes={}, max={ARCHIVE_MAX}", archive.len())));
    }
    let mut files = BTreeMap::new();
    let mut rest = archive;
    loop {
        let Some((header, after)) = rest.split_at_checked(BLOCK) else {
            return Err(refuse("it ends too early").hint("send it anew"));
        };
        if header.iter().all(|b| *b == 0) {
            break;
        }
        let (name, runs, size) = read_header(header)?;
        let padded = size.next_multiple_of(BLOCK);
        if after.len() < padded {
            return Err(refuse(&format!("it ends too early. entry={name}")).hint("send it anew"));
        }
        if files.len() >= FILES_MAX {
            return Err(refuse(&format!("it holds too many files. max={FILES_MAX}")));
        }
        let file = File { runs, bytes: after[..size].to_vec() };
        if files.insert(name.clone(), file).is_some() {
            return Err(refuse(&format!("a name is there twice. entry={name}")));
        }
        rest = &after[padded..];
    }
    for name in files.keys() {
        let above = name.match_indices('/').map(|(at, _)| &name[..at]);
        if let Some(above) = above.into_iter().find(|above| files.contains_key(*above)) {
            return Err(refuse(&format!("a name is that of a file and of a folder. entry={above}")));
        }
    }
    let Some(list) = files.remove(LIST) else {
        return Err(refuse("it has no bundle.json").hint("`pgdock config build` makes one"));
    };
    // Order, owners, times, padding, what follows the end: all as it would be written.
    if write(&list.bytes, &files) != archive {
        return Err(refuse("it was not written by pgdock: its headers, order or padding differ"));
    }
    Ok((list.bytes, files))
}

fn read_header(header: &[u8]) -> Result<(String, bool, usize)> {
    let name = &header[..100];
    let name = &name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())];
    let shown = String::from_utf8_lossy(name).escape_debug().to_string();
    let bad = |why: &str| refuse(&format!("{why}. entry={shown}"));
    let told = std::str::from_utf8(&header[148..154]).ok().and_then(|text| u32::from_str_radix(text, 8).ok());
    if told != Some(sum(header)) {
        return Err(bad("the sum of a header is wrong").hint("send it anew"));
    }
    let Ok(name) = std::str::from_utf8(name) else {
        return Err(bad("a name is not UTF-8"));
    };
    if let Some(why) = path::fault(name) {
        return Err(bad(&format!("a name is refused: {why}")));
    }
    match header[156] {
        b'0' => {}
        b'1' | b'2' => return Err(bad("a link is refused")),
        b'3' | b'4' | b'6' => return Err(bad("a device or pipe is refused")),
        b'5' => return Err(bad("an entry of a folder is refused")),
        _ => return Err(bad("this kind of entry is refused")),
    }
    let runs = match &header[100..108] {
        b"0000644\0" => false,
        b"0000755\0" => true,
        _ => return Err(bad("a mode other than 0644 and 0755 is refused")),
    };
    let size = std::str::from_utf8(&header[SIZE_AT]).ok().and_then(|text| usize::from_str_radix(text, 8).ok());
    match size {
        Some(size) if size <= ARCHIVE_MAX => Ok((name.to_owned(), runs, size)),
        Some(size) => Err(bad(&format!("a file is too large. bytes={size}, max={ARCHIVE_MAX}"))),
        None => Err(bad("the size of a file cannot be read")),
    }
}

fn refuse(why: &str) -> Error {
    Error::invalid(format!("the bundle's archive is refused: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn file(text: &str) -> File {
        File { runs: false, bytes: text.as_bytes().to_vec() }
    }

    fn sample() -> Vec<u8> {
        write(b"{}", &[("cluster.toml".to_owned(), file("a")), ("n1/x".to_owned(), file("b"))].into())
    }

    /// Changes a header, and corrects its sum.
    fn changed(mut archive: Vec<u8>, entry: usize, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let header = &mut archive[entry * 2 * BLOCK..][..BLOCK];
        change(header);
        let sum = sum(header);
        header[SUM_AT].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive
    }

    fn named(header: &mut [u8], name: &str) {
        header[..100].fill(0);
        header[..name.len()].copy_from_slice(name.as_bytes());
    }

    fn refused(archive: &[u8], why: &str) {
        let error = read(archive).unwrap_err();
        assert!(error.to_string().contains(why), "expected {why}, found {error}");
    }

    #[test]
    fn hostile_archives_are_refused() {
        for (name, why) in [
            ("/etc/passwd", "absolute"),
            ("../../etc/passwd", "elsewhere"),
            ("n1/../../x", "elsewhere"),
            ("./x", "elsewhere"),
            ("n1//x", "empty"),
            ("n1/", "empty"),
            ("a\\b", "backslash"),
            ("a\nb", "control"),
            ("cluster.toml", "twice"),
            ("cluster.toml/x", "a file and of a folder"),
        ] {
            refused(&changed(sample(), 2, |h| named(h, name)), why);
        }
        for (kind, why) in
            [(b'1', "link"), (b'2', "link"), (b'3', "device"), (b'5', "folder"), (b'x', "kind"), (0, "kind")]
        {
            refused(&changed(sample(), 2, |h| h[156] = kind), why);
        }
        refused(&changed(sample(), 2, |h| h[100..107].copy_from_slice(b"0004755")), "mode");
        refused(&changed(sample(), 2, |h| h[SIZE_AT].copy_from_slice(b"77777777777")), "too large");
        refused(&changed(sample(), 2, |h| h[SIZE_AT].copy_from_slice(b"00000100000")), "too early");
        refused(&changed(sample(), 2, |h| h[SIZE_AT].copy_from_slice(b"-0000000001")), "size");
        refused(&changed(sample(), 2, |h| h[136..147].copy_from_slice(b"00000000001")), "not written by pgdock");
        refused(&changed(sample(), 2, |h| h[108..115].copy_from_slice(b"0001750")), "not written by pgdock");
        refused(&changed(sample(), 2, |h| named(h, "a")), "not written by pgdock");
        refused(&changed(sample(), 0, |h| named(h, "list.json")), "bundle.json");
        let mut sum = sample();
        sum[0] ^= 1;
        refused(&sum, "sum");
        let mut more = sample();
        more.extend_from_slice(b"more");
        refused(&more, "not written by pgdock");
        for end in [0, 100, BLOCK, 3 * BLOCK, sample().len() - 2 * BLOCK] {
            assert!(read(&sample()[..end]).is_err(), "{end}");
        }
        refused(&[], "too early");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(files in btree_map("[a-z]{1,8}(/[a-zA-Z0-9._-]{1,20}[a-z])?", (any::<bool>(), vec(any::<u8>(), 0..1500)), 0..12)) {
            let files: BTreeMap<_, _> = files.into_iter().map(|(path, (runs, bytes))| (path, File { runs, bytes })).collect();
            let clash = files.keys().any(|path| path.split_once('/').is_some_and(|(above, _)| files.contains_key(above)));
            prop_assume!(!clash);
            let archive = write(b"list", &files);
            prop_assert_eq!(read(&archive).unwrap(), (b"list".to_vec(), files.clone()));
            prop_assert_eq!(write(b"list", &files), archive);
        }

        #[test]
        fn no_bytes_break_it(bytes in vec(any::<u8>(), 0..3000)) {
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn one_changed_byte_is_noticed(at in 0usize..5 * BLOCK, by in 1u8..) {
            let mut archive = sample();
            archive[at] ^= by;
            // Within a file's content it is the digest that tells.
            let content = [BLOCK..BLOCK + 2, 3 * BLOCK..3 * BLOCK + 1];
            if !content.iter().any(|range| range.contains(&at)) {
                prop_assert!(read(&archive).is_err());
            }
        }
    }
}
