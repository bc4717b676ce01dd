//! [`Few`]: a list that lies in the state itself, since states are copied and compared by the million.

use std::ops::{Deref, DerefMut};

/// At most N things. What lies beyond the last is always the same, so that equal lists are equal in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Few<T, const N: usize> {
    items: [T; N],
    len: u8,
}

impl<T: Copy + Default, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Self { items: [T::default(); N], len: 0 }
    }
}

impl<T, const N: usize> Deref for Few<T, N> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.items[..usize::from(self.len)]
    }
}

impl<T, const N: usize> DerefMut for Few<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..usize::from(self.len)]
    }
}

impl<T: Copy + Default + PartialEq, const N: usize> Few<T, N> {
    /// Adds one.
    ///
    /// # Panics
    /// Where there is no more room: the bounds of the world are wider than its states.
    pub fn push(&mut self, item: T) {
        self.items[usize::from(self.len)] = item;
        self.len += 1;
    }

    /// Keeps some of them.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let all = *self;
        *self = Self::default();
        for item in all.iter().filter(|item| keep(item)) {
            self.push(*item);
        }
    }

    /// Drops what is the same as the one before it.
    pub fn dedup(&mut self) {
        let all = *self;
        *self = Self::default();
        for item in all.iter() {
            if self.last() != Some(item) {
                self.push(*item);
            }
        }
    }

    /// Drops all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether there is no more room.
    #[must_use]
    pub fn full(&self) -> bool {
        usize::from(self.len) == N
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_equal_in_full() {
        let mut list: Few<u8, 4> = Few::default();
        for item in [3, 1, 1, 2] {
            list.push(item);
        }
        assert!(list.full());
        list.sort_unstable();
        list.dedup();
        assert_eq!(*list, [1, 2, 3]);
        list.retain(|i| *i != 2);
        let mut same = Few::default();
        same.push(1);
        same.push(3);
        assert_eq!(list, same);
    }
}
