//! [`Digest`]: what tells one content from another.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The BLAKE3 digest of some content; as text 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// How many bytes it has.
    pub const BYTES: usize = 32;

    /// Of content that lies in memory.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        blake3::hash(content).into()
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.into())
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        // Upper case would be a second text for the same digest.
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let parsed = lower.then(|| blake3::Hash::from_hex(&text).ok()).flatten();
        parsed
            .map(Self::from)
            .ok_or_else(|| Error::invalid(format!("not a digest of 64 hexadecimal digits. text={text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_both_ways() {
        let digest = Digest::of(b"abc");
        let text = digest.to_string();
        assert!(text.starts_with("6437b3ac38465133ffb63b75273a8db5"), "{text}");
        assert_eq!(Digest::try_from(text.clone()).unwrap(), digest);
        for bad in [String::new(), text[1..].to_owned(), text.to_uppercase(), format!("{text}0")] {
            assert!(Digest::try_from(bad).is_err());
        }
    }
}
