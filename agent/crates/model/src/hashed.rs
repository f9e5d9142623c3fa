//! Keys that store their hash.
//!
//! When a hash table grows, the insert that triggers it rehashes every key. With names in them that
//! takes milliseconds at ten thousand rows, most of it cache misses. A stored hash costs nothing,
//! and of a key behind a pointer only the pointer is copied.

use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::LazyLock;

use hashbrown::{DefaultHashBuilder, Equivalent};

/// Seeded once per process, so that tenants cannot choose colliding names.
static SEED: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// A key and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hashed<K> {
    hash: u64,
    pub(super) key: Box<K>,
}

/// The same for a lookup.
pub(super) struct Sought<'a, K> {
    hash: u64,
    key: &'a K,
}

// === impl Hashed ===

impl<K: Hash> Hashed<K> {
    pub(super) fn new(key: K) -> Self {
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
    pub(super) fn new(key: &'a K) -> Self {
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
    use hashbrown::HashMap;

    #[test]
    fn what_was_put_in_is_found_by_its_key() {
        let mut map = HashMap::new();
        for n in 0..1000 {
            map.insert(Hashed::new(n.to_string()), n);
        }
        for n in 0..1000 {
            assert_eq!(map.get(&Sought::new(&n.to_string())), Some(&n));
        }
        assert_eq!(map.get(&Sought::new(&"1000".to_owned())), None);
        assert_eq!(map.remove(&Sought::new(&"7".to_owned())), Some(7));
    }
}
