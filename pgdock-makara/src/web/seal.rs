//! What a session remembers, as a text that nobody else can write.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{CommitToken, Memory};

/// The version of the format: what is signed with it is never taken for another.
const VERSION: &str = "1";
/// The longest text that is looked at. A cookie has no room for more.
const TEXT_MAX: usize = 4096;

/// The secret with which sessions are signed, the same for all processes that share them. At least 32 bytes.
#[derive(Clone)]
pub struct Key(hmac::Key);

/// A secret is too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError(());

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the secret that signs sessions is too short: expected 32 bytes or more, from a source of randomness",
        )
    }
}

impl std::error::Error for KeyError {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// A key of this secret.
    ///
    /// # Errors
    ///
    /// The secret is shorter than 32 bytes.
    pub fn new(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < 32 {
            return Err(KeyError(()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// Writes down what a session remembers, with a signature.
    #[must_use]
    pub fn seal(&self, memory: &Memory) -> String {
        let mut text = VERSION.to_owned();
        let millis = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let id = |id: &str| URL_SAFE_NO_PAD.encode(id);
        for (router, until) in &memory.deadlines {
            text += &format!("|{}~{}", id(router), millis(*until));
        }
        for (router, (token, until)) in &memory.tokens {
            text += &format!("|{}~{}~{token}", id(router), millis(*until));
        }
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, text.as_bytes()));
        format!("{text}|{signature}")
    }

    /// Reads it again. `None` for what this key has not signed. What is over is left out, and what lasts longer than
    /// `ttl_max` is cut: no text keeps its bearer on the primary for ever.
    #[must_use]
    pub fn open(&self, sealed: &str, now: SystemTime, ttl_max: Duration) -> Option<Memory> {
        if sealed.len() > TEXT_MAX {
            return None;
        }
        let (text, signature) = sealed.rsplit_once('|')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.0, text.as_bytes(), &signature).ok()?;
        let mut parts = text.split('|');
        if parts.next() != Some(VERSION) {
            return None;
        }
        let (mut deadlines, mut tokens) = (BTreeMap::new(), BTreeMap::new());
        for part in parts {
            let mut fields = part.splitn(3, '~');
            let router = String::from_utf8(URL_SAFE_NO_PAD.decode(fields.next()?).ok()?).ok()?;
            let until = SystemTime::UNIX_EPOCH + Duration::from_millis(fields.next()?.parse().ok()?);
            let until = until.min(now + ttl_max);
            let token = fields.next().map(str::parse::<CommitToken>).transpose().ok()?;
            if until <= now {
                continue;
            }
            match token {
                Some(token) => _ = tokens.insert(router, (token, until)),
                None => _ = deadlines.insert(router, until),
            }
        }
        Some(Memory { deadlines, tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn memory() -> Memory {
        let token = CommitToken { system: 7, timeline: 2, lsn: 0x1_0000_00FF };
        Memory {
            deadlines: BTreeMap::from([("app".to_owned(), at(5)), ("odd|~.id".to_owned(), at(7))]),
            tokens: BTreeMap::from([("app".to_owned(), (token, at(9)))]),
        }
    }

    #[test]
    fn what_is_sealed_is_read_again_and_what_is_over_is_not() {
        let key = Key::new(&[7; 32]).unwrap();
        let sealed = key.seal(&memory());
        let hour = Duration::from_secs(3600);
        assert_eq!(key.open(&sealed, at(0), hour), Some(memory()));
        let later = key.open(&sealed, at(6), hour).unwrap();
        assert_eq!((later.deadlines.len(), later.tokens.len()), (1, 1));
        assert_eq!(key.open(&sealed, at(9), hour), Some(Memory::default()));
        let cut = key.open(&sealed, at(0), Duration::from_secs(6)).unwrap();
        assert_eq!(cut.deadlines.values().copied().collect::<Vec<_>>(), [at(5), at(6)]);
        assert_eq!(cut.tokens["app"].1, at(6));
        assert!(sealed.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\ ".contains(&byte)), "fit for a cookie");
    }

    #[test]
    fn nothing_that_another_wrote_is_read() {
        let key = Key::new(&[7; 32]).unwrap();
        let (sealed, hour) = (key.seal(&memory()), Duration::from_secs(3600));
        assert_eq!(Key::new(&[8; 32]).unwrap().open(&sealed, at(0), hour), None);
        for index in 0..sealed.len() {
            let mut forged = sealed.clone().into_bytes();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_ne!(key.open(&forged, at(0), hour), Some(memory()), "{index}");
        }
        for text in ["", "1", "1|", "|", "app:1700000000", &"1|".repeat(4000)] {
            assert_eq!(key.open(text, at(0), hour), None, "{text}");
        }
        assert_eq!(Key::new(b"short").unwrap_err(), KeyError(()));
        assert!(!format!("{key:?}").contains('7'));
    }
}
