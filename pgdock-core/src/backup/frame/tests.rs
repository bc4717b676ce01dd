use proptest::prelude::*;

use super::*;
use crate::ErrorKind;
use crate::backup::object::{decode, encode};

fn name(text: &str) -> Key {
    text.parse().unwrap()
}

fn encrypted(byte: u8) -> Codec {
    Codec { cipher: Some(Arc::new(Cipher::new(&[byte; 32]).unwrap())), ..Codec::default() }
}

fn read(codec: &Codec, key: &Key, object: &[u8]) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    decode(codec, key, &mut object.to_vec(), &mut content).map(|_| content)
}

/// Content that compresses somewhat.
fn drawn(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length).map(|at| if at % 7 < 4 { next() as u8 } else { (at >> 8) as u8 }).collect()
}

#[test]
fn every_flipped_bit_and_every_truncation_is_found() {
    for codec in [Codec::default(), encrypted(1)] {
        let key = name("base/x/data/00000001");
        let content = drawn(3, 700);
        let object = encode(&codec, &key, &content).unwrap().bytes;
        assert_eq!(read(&codec, &key, &object).unwrap(), content);
        for at in 0..object.len() * 8 {
            let mut flipped = object.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let error = read(&codec, &key, &flipped).expect_err("a flipped bit is found");
            assert_eq!(error.kind(), ErrorKind::Invalid, "bit {at}: {error}");
            assert!(error.to_string().contains(key.as_str()), "{error}");
        }
        for length in 0..object.len() {
            assert!(read(&codec, &key, &object[..length]).is_err(), "{length}");
        }
        assert!(read(&codec, &key, &[&object[..], &[0]].concat()).is_err());
    }
}

#[test]
fn frames_can_be_neither_left_out_nor_exchanged() {
    for codec in [Codec::default(), encrypted(1)] {
        let key = name("a");
        // Of equal size, so that nothing but the content tells them apart.
        let content = [vec![1; FRAME], vec![2; FRAME], vec![3; 10]].concat();
        let object = encode(&codec, &key, &content).unwrap().bytes;
        let header = HEADER + if codec.cipher.is_some() { WRAPPED } else { 0 };
        let length = |at: usize| LENGTHS + u32::from_le_bytes(object[at..at + 4].try_into().unwrap()) as usize;
        let (first, second) = (header, header + length(header));
        let third = second + length(second);
        assert_eq!(second - first, third - second);
        let without = [&object[..first], &object[second..]].concat();
        assert!(read(&codec, &key, &without).is_err());
        let exchanged = [&object[..first], &object[second..third], &object[first..second], &object[third..]].concat();
        assert!(read(&codec, &key, &exchanged).is_err());
        let twice = [&object[..second], &object[first..]].concat();
        assert!(read(&codec, &key, &twice).is_err());
    }
}

#[test]
fn an_encrypted_object_opens_by_its_key_and_under_its_name_alone() {
    let (codec, key) = (encrypted(1), name("base/x/manifest"));
    let secret = b"a text that nobody else is to read".repeat(20);
    let object = encode(&codec, &key, &secret).unwrap().bytes;
    assert!(!object.windows(8).any(|w| w == &secret[..8]));
    assert_eq!(read(&codec, &key, &object).unwrap(), secret);
    let error = read(&encrypted(2), &key, &object).unwrap_err();
    assert!(error.to_string().contains("another key"), "{error}");
    let error = read(&codec, &name("base/y/manifest"), &object).unwrap_err();
    assert!(error.to_string().contains("another name"), "{error}");
    let error = read(&Codec::default(), &key, &object).unwrap_err();
    assert!(error.to_string().contains("no key is given"), "{error}");
    // Whoever can write to the store, but has no key, could otherwise put what he likes.
    let plain = encode(&Codec::default(), &key, &secret).unwrap().bytes;
    assert!(read(&codec, &key, &plain).unwrap_err().to_string().contains("not encrypted"));
}

#[test]
fn a_frame_that_claims_to_be_large_takes_no_memory() {
    let codec = Codec::default();
    let mut decoder = Decoder::new(&codec, &name("a")).unwrap();
    let mut out = Vec::new();
    decoder.take(&mut [&MAGIC[..], &[0]].concat(), &mut out).unwrap();
    let lengths = [u32::MAX.to_le_bytes(), 10u32.to_le_bytes()].concat();
    assert!(decoder.take(&mut lengths.clone(), &mut out).is_err());
    // One that unpacks to more than it says.
    let mut bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let mut decoder = Decoder::new(&codec, &name("a")).unwrap();
    decoder.take(&mut [&MAGIC[..], &[0]].concat(), &mut out).unwrap();
    let lengths = [(bomb.len() as u32).to_le_bytes(), 4096u32.to_le_bytes()].concat();
    decoder.take(&mut lengths.clone(), &mut out).unwrap();
    assert!(decoder.take(&mut bomb, &mut out).is_err());
    assert!(out.is_empty() && out.capacity() <= 2 * FRAME, "{}", out.capacity());
}

#[test]
fn content_that_does_not_compress_grows_by_little() {
    for codec in [Codec::default(), encrypted(1)] {
        let mut content = vec![0; 16 << 20];
        aws_lc_rs::rand::fill(&mut content).unwrap();
        let object = encode(&codec, &name("a"), &content).unwrap();
        assert!(object.bytes.len() < content.len() + 4096, "{object:?}");
        assert_eq!(object.plain_digest, Digest::of(&content));
        assert_eq!(object.stored_digest, Digest::of(&object.bytes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_pushed_in_any_pieces_comes_back(seed: u64, pieces in proptest::collection::vec(0usize..900_000, 0..6), sealed: bool) {
        let codec = if sealed { encrypted(4) } else { Codec::default() };
        let (key, content) = (name("a/b"), drawn(seed, pieces.iter().sum()));
        let mut encoder = Encoder::new(&codec, &key).unwrap();
        let mut rest = &content[..];
        for piece in pieces {
            encoder.push(&rest[..piece]).unwrap();
            rest = &rest[piece..];
        }
        let object = encoder.finish().unwrap();
        prop_assert_eq!(object.plain_len, content.len() as u64);
        prop_assert_eq!(read(&codec, &key, &object.bytes).unwrap(), content);
    }

    #[test]
    fn damage_to_a_large_object_is_found(seed: u64, at: prop::sample::Index, bit in 0u8..8, cut: bool, sealed: bool) {
        let codec = if sealed { encrypted(4) } else { Codec::default() };
        let key = name("a/b");
        let mut object = encode(&codec, &key, &drawn(seed, (2 << 20) + 77)).unwrap().bytes;
        let at = at.index(object.len());
        if cut { object.truncate(at) } else { object[at] ^= 1 << bit }
        prop_assert!(read(&codec, &key, &object).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), begun: bool) {
        let bytes = if begun { [&MAGIC[..], &[0], &bytes].concat() } else { bytes };
        prop_assert!(read(&Codec::default(), &name("a"), &bytes).is_err());
    }
}
