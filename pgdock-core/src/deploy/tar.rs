//! Tar archives made in memory: files alone, in the order in which they are added, and nothing that differs between two
//! machines (POSIX.1-1988, `ustar`).

use crate::{Error, Result};

const BLOCK: usize = 512;
/// The longest name that the short header holds.
const NAME_MAX: usize = 100;

/// An archive that grows.
#[derive(Debug, Default)]
pub(super) struct Tar(Vec<u8>);

impl Tar {
    /// Adds a file.
    pub(super) fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        if name.len() > NAME_MAX || name.is_empty() {
            return Err(Error::invalid(format!(
                "the name of a file does not fit into an archive. file={name}, bytes={}, max={NAME_MAX}",
                name.len()
            )));
        }
        let mut head = [0_u8; BLOCK];
        let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{:07o}", mode & 0o7777));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, "00000000000");
        // The sum is made with blanks in its own place.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&head);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_systems_tar_unpacks_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = Tar::default();
        let large = vec![7_u8; 100_000];
        tar.file("Dockerfile", 0o644, b"FROM scratch\n").unwrap();
        tar.file("a/b c", 0o600, &large).unwrap();
        tar.file("empty", 0o755, b"").unwrap();
        assert!(tar.file(&"x".repeat(101), 0o600, b"").is_err());
        let mut child =
            Command::new("tar").arg("-xpf").arg("-").current_dir(&dir).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&tar.finish()).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read(dir.path().join("Dockerfile")).unwrap(), b"FROM scratch\n");
        assert_eq!(std::fs::read(dir.path().join("a/b c")).unwrap(), large);
        let mode = std::fs::metadata(dir.path().join("empty")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}
