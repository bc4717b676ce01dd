//! What the catalogs of PostgreSQL know of a name, as tables that the compiler builds.
//!
//! The texts under `data/` are written by `scripts/functions.sh`; a line is `class name`. They become open-addressing
//! hash tables in constant evaluation, so that a lookup neither allocates nor initialises anything.
#![allow(long_running_const_eval, reason = "two thousand names are hashed while compiling; it takes milliseconds")]

/// What calling a function, or reading a relation, of this name means for routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Any node may answer.
    Read,
    /// A word that the grammar keeps for itself; before a parenthesis it is no call.
    Grammar,
    /// Changes something.
    Write,
    /// The answer, or the effect, belongs to one server.
    Node,
    /// Lives on one connection, of any node.
    PinAny,
    /// Lives on one connection of the primary.
    PinPrimary,
    /// Lives on the connection that an earlier statement used.
    PinCurrent,
    /// A session setting.
    Set,
}

impl Class {
    const fn from_label(label: &[u8]) -> Self {
        match label {
            b"read" => Self::Read,
            b"grammar" => Self::Grammar,
            b"write" => Self::Write,
            b"node" => Self::Node,
            b"pin-any" => Self::PinAny,
            b"pin-primary" => Self::PinPrimary,
            b"pin-current" => Self::PinCurrent,
            b"set" => Self::Set,
            _ => panic!("unknown class in the data"),
        }
    }
}

static FUNCTIONS: Table<8192> = Table::new(include_bytes!("data/functions.txt"));
static OPERATORS: Table<256> = Table::new(include_bytes!("data/operators.txt"));
static RELATIONS: Table<64> = Table::new(include_bytes!("data/relations.txt"));

/// The class of a function of `pg_catalog`. `exact` compares as written (a quoted name), else case is folded.
pub(super) fn function(name: &[u8], exact: bool) -> Option<Class> {
    FUNCTIONS.get(name, exact)
}

/// Whether `pg_catalog` has an operator of this name.
pub(super) fn operator(name: &[u8]) -> bool {
    OPERATORS.get(name, true).is_some()
}

/// The class of a system view, where not every node gives the same answer.
pub(super) fn relation(name: &[u8], exact: bool) -> Option<Class> {
    if starts_with(name, b"pg_stat_") || starts_with(name, b"pg_statio_") {
        return Some(Class::Node);
    }
    RELATIONS.get(name, exact)
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.len() > prefix.len() && name[..prefix.len()].eq_ignore_ascii_case(prefix)
}

/// An open-addressing table of names in lower case; at most half full, so that a miss ends soon.
struct Table<const SLOTS: usize> {
    text: &'static [u8],
    slots: [Slot; SLOTS],
}

#[derive(Clone, Copy)]
struct Slot {
    /// Where the name begins in the text; zero for an empty slot, since a label comes first.
    start: u32,
    length: u8,
    class: Class,
}

impl<const SLOTS: usize> Table<SLOTS> {
    const fn new(text: &'static [u8]) -> Self {
        assert!(SLOTS.is_power_of_two());
        let mut slots = [Slot { start: 0, length: 0, class: Class::Read }; SLOTS];
        let (mut at, mut count) = (0, 0);
        while at < text.len() {
            let label = at;
            while text[at] != b' ' {
                at += 1;
            }
            let class = Class::from_label(text.split_at(at).0.split_at(label).1);
            at += 1;
            let start = at;
            let mut hash = SEED;
            while text[at] != b'\n' {
                hash = mix(hash, text[at]);
                at += 1;
            }
            let mut slot = fold(hash) & (SLOTS - 1);
            while slots[slot].start != 0 {
                slot = (slot + 1) & (SLOTS - 1);
            }
            assert!(at - start <= u8::MAX as usize);
            slots[slot] = Slot { start: start as u32, length: (at - start) as u8, class };
            at += 1;
            count += 1;
        }
        assert!(count * 2 <= SLOTS);
        Self { text, slots }
    }

    fn get(&self, name: &[u8], exact: bool) -> Option<Class> {
        let mut slot = fold(name.iter().fold(SEED, |hash, byte| mix(hash, *byte))) & (SLOTS - 1);
        loop {
            let Slot { start, length, class } = self.slots[slot];
            if start == 0 {
                return None;
            }
            if usize::from(length) == name.len() {
                let known = &self.text[start as usize..start as usize + name.len()];
                if if exact { known == name } else { known.eq_ignore_ascii_case(name) } {
                    return Some(class);
                }
            }
            slot = (slot + 1) & (SLOTS - 1);
        }
    }
}

const SEED: u32 = 0x811c_9dc5;

/// One step of FNV-1a over the name with letters in lower case. Other bytes may collide: the comparison decides.
const fn mix(hash: u32, byte: u8) -> u32 {
    (hash ^ (byte | 0x20) as u32).wrapping_mul(0x0100_0193)
}

const fn fold(hash: u32) -> usize {
    (hash ^ (hash >> 15)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_data_is_found_again() {
        let text = include_str!("data/functions.txt");
        assert!(text.lines().count() > 2000);
        for line in text.lines() {
            let (label, name) = line.split_once(' ').unwrap();
            assert_eq!(function(name.as_bytes(), true), Some(Class::from_label(label.as_bytes())), "{name}");
            let shouted = name.to_ascii_uppercase();
            assert_eq!(function(shouted.as_bytes(), false), function(name.as_bytes(), true), "{name}");
        }
    }

    #[test]
    fn the_overrides_are_in_the_table() {
        let overrides = include_str!("data/overrides.txt");
        for line in overrides.lines().filter(|line| !line.is_empty() && !line.starts_with('#') && !line.ends_with('*'))
        {
            let (label, name) = line.split_once(' ').unwrap();
            assert_eq!(function(name.as_bytes(), true), Some(Class::from_label(label.as_bytes())), "{name}");
        }
    }

    #[test]
    fn case_matters_only_between_quotes_and_what_is_absent_is_unknown() {
        assert_eq!(function(b"NextVal", false), Some(Class::Write));
        assert_eq!(function(b"NextVal", true), None);
        assert_eq!(function(b"", false), None);
        assert_eq!(function(b"my_func", false), None);
        assert!(operator(b"<->") && !operator(b"==>"));
        assert_eq!(relation(b"PG_locks", false), Some(Class::Node));
        assert_eq!(relation(b"pg_stat_statements", false), Some(Class::Node));
        assert_eq!(relation(b"pg_stats", false), None);
    }
}
