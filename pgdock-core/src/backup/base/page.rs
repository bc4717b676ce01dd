//! Checksums of PostgreSQL's pages (`src/include/storage/checksum_impl.h` and `README` there tell of the algorithm).

use crate::Lsn;

/// The size of a page that is checked. Servers that were built for another are not checked.
pub(super) const PAGE: usize = 8192;

const LANES: usize = 32;
const PRIME: u32 = 16_777_619;
const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What a look at a page told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is what was written, or was never written.
    Fine,
    /// Its checksum is wrong, and nothing else will mend it: or it was read while it was being written.
    Wrong,
    /// Its checksum is wrong; it says that it was changed at that position, so that recovery writes it anew if it is true.
    Torn(Lsn),
}

/// Looks at a page, whose number in its relation is `block`, for a backup that recovers from `start` on.
pub(super) fn look(page: &[u8; PAGE], block: u32, start: Lsn) -> Seen {
    let short = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    let word = |at: usize| u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    // A page without space is one that a relation was extended by, and is not in use yet.
    if short(14) == 0 || checksum(page, block) == short(8) {
        return Seen::Fine;
    }
    let changed = Lsn(u64::from(word(0)) << 32 | u64::from(word(4)));
    if changed >= start { Seen::Torn(changed) } else { Seen::Wrong }
}

/// The checksum of a page.
pub(super) fn checksum(page: &[u8; PAGE], block: u32) -> u16 {
    let mix = |sum: u32, value: u32| {
        let mixed = sum ^ value;
        mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
    };
    let mut sums = OFFSETS;
    for (number, row) in page.chunks_exact(LANES * 4).enumerate() {
        let mut values = [0u32; LANES];
        for (value, bytes) in values.iter_mut().zip(row.chunks_exact(4)) {
            *value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        if number == 0 {
            // The checksum itself counts as nothing.
            values[2] &= 0xFFFF_0000;
        }
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = mix(*sum, value);
        }
    }
    let folded = sums.into_iter().fold(0, |folded, sum| folded ^ mix(mix(sum, 0), 0)) ^ block;
    // Never nothing: that means that a page has no checksum.
    u16::try_from(folded % 65_535 + 1).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(changed: u64) -> [u8; PAGE] {
        let mut page = [0u8; PAGE];
        for (at, byte) in page.iter_mut().enumerate().skip(24) {
            *byte = (at * 7 % 251) as u8;
        }
        page[..4].copy_from_slice(&((changed >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(changed as u32).to_le_bytes());
        page[14..16].copy_from_slice(&8000u16.to_le_bytes());
        let sum = checksum(&page, 5);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    #[test]
    fn flipped_bits_and_another_place_are_seen() {
        let good = page(100);
        assert_eq!(look(&good, 5, Lsn(200)), Seen::Fine);
        assert_eq!(look(&good, 6, Lsn(200)), Seen::Wrong, "a page of another place");
        let unseen = (0..PAGE * 8).filter(|bit| {
            let mut flipped = good;
            flipped[bit / 8] ^= 1 << (bit % 8);
            look(&flipped, 5, Lsn(200)) == Seen::Fine
        });
        // Of 65535 checksums one is right by chance.
        assert!(unseen.count() <= 6);
        assert_eq!(look(&[0; PAGE], 5, Lsn(200)), Seen::Fine, "a new page");
        let mut torn = page(300);
        torn[5000] ^= 1;
        assert_eq!(look(&torn, 5, Lsn(200)), Seen::Torn(Lsn(300)));
    }
}
