//! Whether a server is the right one: the files that OpenSSH calls `known_hosts`.
//!
//! Read as sshd(8) describes them: several names in a line, patterns, negation, `[host]:port`, names that are
//! hashed, `@revoked`. Lines of `@cert-authority` are passed over: certificates are not asked for.

use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use russh::keys::{HashAlg, PublicKey, PublicKeyBase64 as _};

use crate::{Error, Result};

/// What files say of one server.
#[derive(Debug)]
pub(super) struct Known {
    name: String,
    node: String,
    files: Vec<PathBuf>,
    keys: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    algorithm: String,
    blob: Vec<u8>,
    revoked: bool,
    place: String,
}

impl Known {
    /// Reads all files, and keeps what concerns one server.
    pub(super) fn read(files: &[PathBuf], host: &str, port: u16, node: &str) -> Result<Self> {
        let host = host.to_ascii_lowercase();
        let name = if port == 22 { host } else { format!("[{host}]:{port}") };
        let mut keys = Vec::new();
        for file in files {
            match std::fs::read(file) {
                Ok(text) => keys.extend(entries(&String::from_utf8_lossy(&text), &name, file)),
                Err(e) if matches!(e.kind(), Io::NotFound | Io::NotADirectory) => {}
                Err(e) => {
                    let message = format!("a file of known hosts cannot be read. node={node}, file={}", file.display());
                    return Err(Error::invalid(message).because(e));
                }
            }
        }
        Ok(Self { name, node: node.to_owned(), files: files.to_vec(), keys })
    }

    /// Whether a key of this kind is known: the server is asked for such a one first.
    pub(super) fn has(&self, algorithm: &str) -> bool {
        self.keys.iter().any(|entry| !entry.revoked && entry.algorithm == algorithm)
    }

    /// Whether this is the server's key.
    pub(super) fn check(&self, key: &PublicKey) -> Result<()> {
        let blob = key.public_key_bytes();
        if let Some(entry) = self.keys.iter().find(|entry| entry.revoked && entry.blob == blob) {
            return Err(self.refusal(key, "the server shows a key that was revoked", &entry.place).hint(
                "somebody may have got hold of that key, and stand between: give the server new ones before anything else",
            ));
        }
        if self.keys.iter().any(|entry| !entry.revoked && entry.blob == blob) {
            return Ok(());
        }
        let algorithm = key.algorithm().to_string();
        let file = self.files.first().map_or_else(|| "known_hosts".into(), |file| file.display().to_string());
        let print = "ssh-keygen -l -f";
        let look = format!("compare the fingerprint on that machine itself: {print} /etc/ssh/ssh_host_*_key.pub");
        if let Some(entry) = self.keys.iter().find(|entry| !entry.revoked && entry.algorithm == algorithm) {
            return Err(self
                .refusal(key, "the server shows another key than the one that is known", &entry.place)
                .hint(format!("somebody may stand between; or the machine was set up anew: {look}"))
                .hint(format!(
                    "only if it is the same, take the old one out of {}, and add the new one: {}",
                    entry.place,
                    self.adds(key, &file)
                )));
        }
        let files = self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ");
        Err(self
            .refusal(key, "the server's key is not known", &files)
            .hint(look)
            .hint(format!("if it is the same: {}", self.adds(key, &file))))
    }

    fn refusal(&self, key: &PublicKey, what: &str, file: &str) -> Error {
        Error::needs_operator(format!(
            "{what}. node={}, key={}, fingerprint={}, file={file}",
            self.node,
            key.algorithm(),
            key.fingerprint(HashAlg::Sha256)
        ))
    }

    /// The command that makes a key known.
    fn adds(&self, key: &PublicKey, file: &str) -> String {
        format!("echo '{} {} {}' >> {file}", self.name, key.algorithm(), STANDARD.encode(key.public_key_bytes()))
    }
}

/// The lines of a file that concern a server.
fn entries(text: &str, name: &str, file: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut words = line.split_ascii_whitespace().peekable();
        let marker = words.next_if(|word| word.starts_with('@'));
        let (Some(names), Some(algorithm), Some(blob)) = (words.next(), words.next(), words.next()) else { continue };
        if names.starts_with('#') || !matches!(marker, None | Some("@revoked")) || !matches_name(names, name) {
            continue;
        }
        // What is no key cannot be the server's.
        if let Ok(blob) = STANDARD.decode(blob) {
            let place = format!("{}:{}", file.display(), number + 1);
            found.push(Entry { algorithm: algorithm.to_owned(), blob, revoked: marker.is_some(), place });
        }
    }
    found
}

fn matches_name(patterns: &str, name: &str) -> bool {
    if let Some(hashed) = patterns.strip_prefix("|1|") {
        let Some((salt, hash)) = hashed.split_once('|') else { return false };
        let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else { return false };
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
        return hmac::verify(&key, name.as_bytes(), &hash).is_ok();
    }
    let mut matched = false;
    for pattern in patterns.split(',') {
        match pattern.strip_prefix('!') {
            Some(not) if matches_pattern(not, name) => return false,
            Some(_) => {}
            None => matched |= matches_pattern(pattern, name),
        }
    }
    matched
}

/// `*` stands for any characters, `?` for one.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase().into_bytes(), name.as_bytes());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                // The last star takes one character more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";

    fn check(text: &str, host: &str, port: u16) -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        std::fs::write(&file, text).unwrap();
        let known = Known::read(&[dir.path().join("missing"), file], host, port, "ssh://u@h:22").unwrap();
        known.check(&russh::keys::parse_public_key_base64(ONE).unwrap())
    }

    #[test]
    fn a_key_is_known_by_name_port_pattern_and_hash() {
        for (names, host, port) in [
            ("db1", "db1", 22),
            ("DB1,10.0.0.1", "db1", 22),
            ("[db1]:2222", "db1", 2222),
            ("db?.example.*", "db1.example.org", 22),
            ("*,!db2", "db1", 22),
        ] {
            let line = format!("# a comment\n\n{names} ssh-ed25519 {ONE} root@db1\n");
            assert!(check(&line, host, port).is_ok(), "{names}");
        }
        // As `ssh-keygen -H` writes it.
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"some salt");
        let hash = STANDARD.encode(hmac::sign(&key, b"[db1]:2222"));
        let line = format!("|1|{}|{hash} ssh-ed25519 {ONE}\n", STANDARD.encode(b"some salt"));
        assert!(check(&line, "db1", 2222).is_ok());
        assert!(check(&line, "db1", 22).is_err());
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_a_person_needs() {
        for names in ["db2", "[db1]:22", "*,!db1", "#db1"] {
            let error = check(&format!("{names} ssh-ed25519 {ONE}\n"), "db1", 22).unwrap_err();
            assert!(error.to_string().contains("not known"), "{names}: {error}");
            assert!(error.to_string().contains("SHA256:") && error.to_string().contains("known_hosts"), "{error}");
            assert!(error.hints().join(" ").contains(&format!("echo 'db1 ssh-ed25519 {ONE}' >> ")), "{error:?}");
        }
        let changed = check(&format!("other ssh-ed25519 {ONE}\ndb1 ssh-ed25519 {OTHER}\n"), "db1", 22).unwrap_err();
        assert!(changed.to_string().contains("another key") && changed.to_string().contains("known_hosts:2"));
        let revoked = format!("db1 ssh-ed25519 {ONE}\n@revoked * ssh-ed25519 {ONE}\n");
        assert!(check(&revoked, "db1", 22).unwrap_err().to_string().contains("revoked"));
        let authority = format!("@cert-authority db1 ssh-ed25519 {ONE}\n");
        assert!(check(&authority, "db1", 22).is_err());
    }
}
