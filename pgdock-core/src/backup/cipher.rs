//! [`Cipher`]: encryption of objects under the archive's key.
//!
//! Each object has a key of its own, drawn for it alone, so that the counter which serves as nonce of its frames never
//! comes twice under one key. That key lies in the object's header, sealed by AES-256-GCM under the archive's key and bound
//! to the object's name: an object that was moved to another name does not open, and neither does a frame at another place.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret, SecretString};

use crate::backup_sink::Key;
use crate::{Error, Result};

/// How many bytes a key has.
const KEY: usize = 32;
/// How many bytes sealing adds.
pub(super) const TAG: usize = 16;
/// How many bytes of an archive's key tell which one it is.
const ID: usize = 8;
/// The header of an encrypted object after its flags: the key's identity, a nonce, the object's own key, its tag.
pub(super) const WRAPPED: usize = ID + NONCE_LEN + KEY + TAG;

/// The archive's key. Nothing of it appears in its `Debug` text.
pub struct Cipher {
    id: [u8; ID],
    key: LessSafeKey,
}

impl Cipher {
    /// With the bytes of a key.
    ///
    /// # Errors
    /// `Internal` when the machine's cipher refuses.
    pub fn new(key: &[u8; KEY]) -> Result<Self> {
        let derived = blake3::derive_key("pgdock 2026 identity of an archive's key", key);
        let mut id = [0; ID];
        id.copy_from_slice(&derived[..ID]);
        Ok(Self { id, key: aes(key)? })
    }

    /// With a key as 64 hexadecimal digits; blanks around them do not count.
    ///
    /// # Errors
    /// `Invalid` where it is none. The text is not repeated.
    pub fn from_hex(text: &SecretString) -> Result<Self> {
        let text = text.expose_secret().trim().as_bytes();
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let mut key = [0; KEY];
        if text.len() != KEY * 2 {
            return Err(bad_key());
        }
        for (byte, pair) in key.iter_mut().zip(text.chunks(2)) {
            *byte = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low).ok_or_else(bad_key)?;
        }
        Self::new(&key)
    }

    /// Which key it is, for people: 16 hexadecimal digits that tell nothing else of it.
    #[must_use]
    pub fn id(&self) -> String {
        self.id.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Draws a key for an object, and seals it for the object's header.
    pub(super) fn draw(&self, name: &Key) -> Result<(ObjectKey, [u8; WRAPPED])> {
        let (mut own, mut nonce) = ([0; KEY], [0; NONCE_LEN]);
        aws_lc_rs::rand::fill(&mut own).map_err(|_| failed())?;
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| failed())?;
        let object = ObjectKey::new(aes(&own)?, name);
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name.as_str()), &mut own)
            .map_err(|_| failed())?;
        let mut wrapped = [0; WRAPPED];
        let parts = [&self.id[..], &nonce[..], &own[..], tag.as_ref()].concat();
        wrapped.copy_from_slice(&parts);
        Ok((object, wrapped))
    }

    /// Opens an object's key from its header.
    pub(super) fn open(&self, wrapped: &[u8; WRAPPED], name: &Key) -> Result<ObjectKey> {
        let (id, rest) = wrapped.split_at(ID);
        if id != self.id {
            let theirs: String = id.iter().map(|b| format!("{b:02x}")).collect();
            let message =
                format!("the object was encrypted with another key. key={name}, wanted={theirs}, given={}", self.id());
            return Err(Error::invalid(message).hint("give the key that the archive was begun with"));
        }
        let (nonce, sealed) = rest.split_at(NONCE_LEN);
        let mut own = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let opened = self.key.open_in_place(nonce, Aad::from(name.as_str()), &mut own).map_err(|_| {
            Error::invalid(format!("the object is damaged, or was written under another name. key={name}"))
        })?;
        Ok(ObjectKey::new(aes(opened)?, name))
    }
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cipher").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The key of one object. Its counter moves with each part that is sealed or opened.
pub(super) struct ObjectKey {
    key: LessSafeKey,
    name: Vec<u8>,
    number: u64,
}

/// What a sealed part is; part of what it is bound to.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Frame = 1,
    Trailer = 2,
}

impl ObjectKey {
    fn new(key: LessSafeKey, name: &Key) -> Self {
        Self { key, name: name.as_str().as_bytes().to_vec(), number: 0 }
    }

    fn next(&mut self, part: Part) -> (Nonce, Aad<Vec<u8>>) {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&self.number.to_le_bytes());
        self.number += 1;
        let bound = [&self.name[..], &[0, part as u8], &nonce].concat();
        (Nonce::assume_unique_for_key(nonce), Aad::from(bound))
    }

    /// Seals what stands in `bytes` from `from` on, and appends the tag.
    pub(super) fn seal(&mut self, part: Part, bytes: &mut Vec<u8>, from: usize) -> Result<()> {
        let (nonce, bound) = self.next(part);
        let tag = self.key.seal_in_place_separate_tag(nonce, bound, &mut bytes[from..]).map_err(|_| failed())?;
        bytes.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens what is sealed; `None` where it was changed or does not belong here.
    pub(super) fn open<'a>(&mut self, part: Part, sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let (nonce, bound) = self.next(part);
        self.key.open_in_place(nonce, bound, sealed).ok().map(|opened| &*opened)
    }
}

impl std::fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectKey").field("number", &self.number).finish_non_exhaustive()
    }
}

fn aes(key: &[u8]) -> Result<LessSafeKey> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).map_err(|_| failed())?))
}

fn bad_key() -> Error {
    Error::invalid("the key of the archive is not 64 hexadecimal digits").hint("make one with `openssl rand -hex 32`")
}

fn failed() -> Error {
    Error::internal("the cipher of the archive failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_and_not_told() {
        let text = "00112233445566778899aAbBcCdDeEfF00112233445566778899aabbccddeeff";
        let cipher = Cipher::from_hex(&format!(" {text}\n").into()).unwrap();
        let debug = format!("{cipher:?}");
        assert!(debug.contains(&cipher.id()) && !debug.contains("112233"), "{debug}");
        for bad in ["", &text[1..], &text.replace('3', "g"), &format!("{text}00")] {
            let error = Cipher::from_hex(&bad.into()).unwrap_err();
            assert!(!error.chain().contains("112233"), "{error}");
        }
    }

    #[test]
    fn no_two_objects_share_a_key() {
        let cipher = Cipher::new(&[7; KEY]).unwrap();
        let name: Key = "a".parse().unwrap();
        let (mut one, mut two) = (cipher.draw(&name).unwrap().0, cipher.draw(&name).unwrap().0);
        let (mut first, mut second) = (b"same".to_vec(), b"same".to_vec());
        one.seal(Part::Frame, &mut first, 0).unwrap();
        two.seal(Part::Frame, &mut second, 0).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn a_part_opens_only_in_its_place() {
        let cipher = Cipher::new(&[7; KEY]).unwrap();
        let name: Key = "a".parse().unwrap();
        let (mut key, header) = cipher.draw(&name).unwrap();
        let (mut first, mut second) = (b"first".to_vec(), b"second".to_vec());
        key.seal(Part::Frame, &mut first, 0).unwrap();
        key.seal(Part::Frame, &mut second, 0).unwrap();
        let open = || cipher.open(&header, &name).unwrap();
        assert_eq!(open().open(Part::Frame, &mut first.clone()).unwrap(), b"first");
        assert!(open().open(Part::Frame, &mut second.clone()).is_none(), "frames do not change places");
        assert!(open().open(Part::Trailer, &mut first.clone()).is_none(), "no frame is taken for a trailer");
        assert!(cipher.open(&header, &"b".parse().unwrap()).is_err(), "nor is one object taken for another");
    }
}
