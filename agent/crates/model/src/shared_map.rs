//! A map from numbers that many readers keep copies of: a copy shares everything but what changes
//! after it was made.
//!
//! Numbers are given out one after the other, so neighbours were born together and mostly change
//! together. Each 256 of them are a chunk behind a pointer; to change one entry costs a copy of its
//! chunk if a reader has it, not of the whole map.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

/// Numbers of one chunk differ in these bits only.
const CHUNK_BITS: u32 = 8;

/// The map.
#[derive(Clone, Debug)]
pub(crate) struct SharedMap<T> {
    chunks: BTreeMap<u32, Arc<HashMap<u32, T>>>,
}

impl<T> Default for SharedMap<T> {
    fn default() -> Self {
        Self { chunks: BTreeMap::new() }
    }
}

impl<T: Clone> SharedMap<T> {
    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        self.chunks.get(&(number >> CHUNK_BITS))?.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(&(number >> CHUNK_BITS))?;
        Arc::make_mut(chunk).get_mut(&number)
    }

    pub(crate) fn insert(&mut self, number: u32, value: T) {
        let chunk = self.chunks.entry(number >> CHUNK_BITS).or_default();
        Arc::make_mut(chunk).insert(number, value);
    }

    pub(crate) fn len(&self) -> usize {
        self.chunks.values().map(|chunk| chunk.len()).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.values().flat_map(|chunk| chunk.iter()).map(|(number, value)| (*number, value))
    }

    /// Drops the entries of which `keep` is false.
    pub(crate) fn retain(&mut self, keep: impl Fn(u32, &T) -> bool) {
        self.chunks.retain(|_, chunk| {
            if !chunk.iter().all(|(number, value)| keep(*number, value)) {
                Arc::make_mut(chunk).retain(|number, value| keep(*number, value));
            }
            !chunk.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> SharedMap<u32> {
        let mut map = SharedMap::default();
        (0..1000).for_each(|number| map.insert(number, number * 2));
        map
    }

    #[test]
    fn a_copy_keeps_what_it_had_and_shares_what_did_not_change() {
        let mut map = map();
        let copy = map.clone();
        *map.get_mut(300).expect("there") = 7;
        map.insert(2000, 8);
        assert_eq!((map.get(300), map.get(2000), map.len()), (Some(&7), Some(&8), 1001));
        assert_eq!((copy.get(300), copy.get(2000), copy.len()), (Some(&600), None, 1000));
        let is_shared = |chunk: u32| Arc::ptr_eq(&map.chunks[&chunk], &copy.chunks[&chunk]);
        assert_eq!([0, 1, 2, 3].map(is_shared), [true, false, true, true]);
    }

    #[test]
    fn what_is_dropped_is_gone_and_the_rest_is_still_shared() {
        let mut map = map();
        let copy = map.clone();
        map.retain(|number, _| !(256..600).contains(&number));
        assert_eq!((map.len(), copy.len()), (656, 1000));
        assert!(map.iter().all(|(number, value)| *value == number * 2));
        assert_eq!(map.chunks.keys().copied().collect::<Vec<_>>(), [0, 2, 3]);
        assert!(Arc::ptr_eq(&map.chunks[&0], &copy.chunks[&0]));
    }
}
