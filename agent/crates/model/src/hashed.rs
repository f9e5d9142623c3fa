//! A hash table that grows without a stall.
//!
//! When a hash table grows, the insert that triggers it rehashes and moves every key: with names in
//! them that takes milliseconds at ten thousand rows, and a hundred at a million
//! (`benches/insert.rs`). So a key's hash is stored, of a key behind a pointer only the pointer is
//! moved, and the table consists of many small ones, of which an insert makes one grow.

use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::LazyLock;

use hashbrown::{DefaultHashBuilder, Equivalent, HashMap};

/// Seeded once per process, so that tenants cannot choose colliding names.
static SEED: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// How many tables one consists of: at a million rows, 4096 in each.
const SHARDS: usize = 256;

/// A table with keys that store their hash.
pub(super) struct HashedMap<K, V> {
    shards: Box<[HashMap<Hashed<K>, V>]>,
    len: usize,
}

/// A key and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hashed<K> {
    hash: u64,
    key: Box<K>,
}

/// The same for a lookup.
struct Sought<'a, K> {
    hash: u64,
    key: &'a K,
}

// === impl HashedMap ===

impl<K, V> HashedMap<K, V> {
    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Every row, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flatten().map(|(hashed, value)| (&*hashed.key, value))
    }

    /// Every value, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(HashMap::values)
    }

    /// Keeps the rows for which `keep` holds.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        for shard in &mut self.shards {
            shard.retain(|_, value| keep(value));
        }
        self.len = self.shards.iter().map(HashMap::len).sum();
    }

    /// Removes every row.
    pub(super) fn clear(&mut self) {
        self.shards.iter_mut().for_each(HashMap::clear);
        self.len = 0;
    }
}

impl<K: Eq + Hash, V> HashedMap<K, V> {
    /// Whether there is a row for `key`.
    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The row of `key`.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let sought = Sought::new(key);
        self.shards.get(shard(sought.hash))?.get(&sought)
    }

    /// The row of `key`, to change it.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let sought = Sought::new(key);
        self.shards.get_mut(shard(sought.hash))?.get_mut(&sought)
    }

    /// Removes the row of `key`.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let sought = Sought::new(key);
        let removed = self.shards.get_mut(shard(sought.hash))?.remove(&sought);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// The row of `key`, a new one if there is none.
    pub(super) fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let hashed = Hashed::new(key);
        #[expect(clippy::indexing_slicing, reason = "`shard` is below the number of shards")]
        let shard = &mut self.shards[shard(hashed.hash)];
        shard.entry(hashed).or_insert_with(|| {
            self.len += 1;
            V::default()
        })
    }
}

impl<K, V> Default for HashedMap<K, V> {
    fn default() -> Self {
        Self { shards: std::iter::repeat_with(HashMap::new).take(SHARDS).collect(), len: 0 }
    }
}

/// The table of a hash: by bits that neither choose a place there (the lowest) nor are compared
/// there (the highest seven).
const fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

// === impl Hashed ===

impl<K: Hash> Hashed<K> {
    fn new(key: K) -> Self {
        Self { hash: SEED.hash_one(&key), key: Box::new(key) }
    }
}

impl<K> Hash for Hashed<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

// === impl Sought ===

impl<'a, K: Hash> Sought<'a, K> {
    fn new(key: &'a K) -> Self {
        Self { hash: SEED.hash_one(key), key }
    }
}

impl<K> Hash for Sought<'_, K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<K: Eq> Equivalent<Hashed<K>> for Sought<'_, K> {
    fn equivalent(&self, other: &Hashed<K>) -> bool {
        self.hash == other.hash && *self.key == *other.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_by_its_key() {
        let mut map = HashedMap::<String, u32>::default();
        for n in 0..1000 {
            *map.or_default(n.to_string()) += n;
        }
        *map.or_default("7".to_owned()) += 1;
        assert_eq!((map.len(), map.iter().count()), (1000, 1000));
        for n in 0..1000 {
            assert_eq!(map.get(&n.to_string()), Some(&(n + u32::from(n == 7))));
        }
        assert_eq!(map.get(&"1000".to_owned()), None);
        assert_eq!(map.remove(&"7".to_owned()), Some(8));
        assert_eq!(map.remove(&"7".to_owned()), None);
        map.retain(|n| n % 2 == 0);
        assert_eq!((map.len(), map.values().count()), (500, 500));
        assert!(map.contains_key(&"8".to_owned()) && !map.contains_key(&"9".to_owned()));
        map.clear();
        assert_eq!((map.len(), map.iter().next()), (0, None));
    }

    #[test]
    fn rows_are_spread_over_all_tables() {
        let mut map = HashedMap::<u32, ()>::default();
        (0..100_000).for_each(|n| *map.or_default(n) = ());
        let largest = map.shards.iter().map(HashMap::len).max();
        assert!(largest < Some(2 * 100_000 / SHARDS), "{largest:?}");
    }
}
