//! [`FastHasher`]: a hasher for what nobody chooses to collide: states are hashed by the million, field by field, and
//! most fields are a byte.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// Odd numbers without a pattern.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const SECRET: u64 = 0xd6e8_feb8_6659_fd93;

/// Gathers bytes into words, and mixes each word in by the halves of a product.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FastHasher {
    hash: u64,
    word: u64,
    bits: u32,
    words: u64,
}

/// The number that stands for a state: two of some millions are the same once in a million runs.
pub(crate) fn fingerprint(state: &impl Hash) -> u64 {
    BuildHasherDefault::<FastHasher>::default().hash_one(state)
}

fn mixed(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word ^ SECRET) * u128::from(word.rotate_left(32) ^ hash.rotate_left(17) ^ FACTOR);
    (product as u64) ^ ((product >> 64) as u64) ^ hash.rotate_left(23)
}

impl FastHasher {
    fn byte(&mut self, byte: u8) {
        self.word |= u64::from(byte) << self.bits;
        self.bits += 8;
        if self.bits == 64 {
            self.hash = mixed(self.hash, self.word);
            (self.word, self.bits) = (0, 0);
            self.words += 1;
        }
    }
}

impl Hasher for FastHasher {
    fn finish(&self) -> u64 {
        let length = self.words << 6 | u64::from(self.bits);
        mixed(mixed(self.hash, self.word), length.wrapping_mul(FACTOR))
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.byte(*byte));
    }

    fn write_u8(&mut self, i: u8) {
        self.byte(i);
    }

    fn write_u16(&mut self, i: u16) {
        self.write(&i.to_le_bytes());
    }

    /// Lengths, which are small here.
    fn write_usize(&mut self, i: usize) {
        self.byte(u8::try_from(i).unwrap_or(u8::MAX));
    }

    /// Which variant of an enum.
    fn write_isize(&mut self, i: isize) {
        self.byte(u8::try_from(i).unwrap_or(u8::MAX));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_differs_in_a_few_small_fields_does_not_collide() {
        let mut seen = HashSet::new();
        let base = [0u8; 40];
        for (i, j, k) in (0..40).flat_map(|i| (i..40).flat_map(move |j| (j..40).map(move |k| (i, j, k)))) {
            for value in 1..4 {
                let mut state = base;
                state[i] = value;
                state[j] += 4;
                state[k] += 16;
                seen.insert((fingerprint(&state), state));
            }
        }
        let states: HashSet<_> = seen.iter().map(|(_, state)| state).collect();
        let fingerprints: HashSet<_> = seen.iter().map(|(id, _)| id).collect();
        assert_eq!(fingerprints.len(), states.len());
    }

    #[test]
    fn a_shorter_list_is_another_one() {
        let mut none = FastHasher::default();
        let mut zero = FastHasher::default();
        none.write(&[]);
        zero.write(&[0]);
        assert_ne!(none.finish(), zero.finish());
    }
}
