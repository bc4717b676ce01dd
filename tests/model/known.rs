//! [`Known`]: answers that are remembered, since deciding takes longer than looking up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash};
use std::sync::{Mutex, PoisonError};

use crate::fast_hash::{FastHasher, fingerprint};

/// What was thought through before: all of it is a function of little, and little of that differs.
#[derive(Debug)]
pub(crate) struct Known<K, V>(Vec<Mutex<HashMap<K, V, BuildHasherDefault<FastHasher>>>>);

impl<K: Copy + Eq + Hash, V: Clone> Known<K, V> {
    pub(crate) fn new() -> Self {
        Self((0..64).map(|_| Mutex::default()).collect())
    }

    pub(crate) fn get(&self, key: K, think: impl FnOnce(&K) -> V) -> V {
        let hash = fingerprint(&key);
        let shard = &self.0[usize::try_from(hash % 64).unwrap_or(0)];
        let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&key) {
            return known.clone();
        }
        let found = think(&key);
        lock().insert(key, found.clone());
        found
    }
}
