//! Counts of slots under names that may still change.
//!
//! A slot belongs to one name at a time. When it gets a better one and no other slot has the old
//! one, the whole row moves: nothing is split. When others still have the old name, or the new one
//! is somebody else's, what was counted stays where it was, so that no counter goes back, and the
//! new name counts from then on. A row ends with its last slot; one whose last slot went to somebody
//! else stays for an hour, as it has counts that nobody else has.

use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;

use super::hashed::{Hashed, Sought};
use super::per_slot::PerSlot;
use super::reclaim::IDLE_SECONDS;
use super::tally::Merge;

/// A name that can stand for those that found no row.
pub trait Name: Clone + Eq + Hash {
    /// The name of the row that takes them.
    fn other() -> Self;
}

/// Rows by name, and which slots feed them.
pub struct Attributed<K, V> {
    rows: HashMap<Hashed<K>, Row<V>>,
    slots: PerSlot<Slot<K>>,
    capacity: usize,
    folded: u64,
    now: u64,
}

struct Row<V> {
    value: Arc<V>,
    slots: u32,
    /// Since when no slot has had it, seconds.
    left_since: Option<u64>,
}

struct Slot<K> {
    /// What it asked for.
    wanted: K,
    /// What it got.
    given: K,
}

// === impl Attributed ===

impl<K: Name, V: Clone + Default + Merge> Attributed<K, V> {
    /// No rows yet, and at most `capacity` of them; a further one takes the rest.
    pub fn new(capacity: usize) -> Self {
        Self { rows: HashMap::new(), slots: PerSlot::default(), capacity, folded: 0, now: 0 }
    }

    /// It is `now` (seconds, any epoch that only grows): rows that were left long ago end.
    pub fn advance(&mut self, now: u64) {
        self.now = now;
        self.rows.retain(|_, row| {
            row.left_since.is_none_or(|since| now.saturating_sub(since) < IDLE_SECONDS)
        });
    }

    /// Gives a slot a name; nothing changes if it has it already. `is_another`: the name is not a
    /// better one, but somebody else's. Returns whether the name is new to it.
    pub fn assign(&mut self, slot: u32, name: &K, is_another: bool) -> bool {
        if self.slots.get(slot).is_some_and(|slot| slot.wanted == *name) {
            return false;
        }
        let moved = if is_another { self.abandon(slot) } else { self.leave(slot) };
        let is_full = self.rows.len() >= self.capacity && !self.contains(name);
        let given = if is_full { K::other() } else { name.clone() };
        self.folded += u64::from(is_full);
        let row = self.rows.entry(Hashed::new(given.clone())).or_insert_with(Row::default);
        row.slots += 1;
        row.left_since = None;
        if let Some(value) = moved {
            Arc::make_mut(&mut row.value).merge(&value);
        }
        self.slots.insert(slot, Slot { wanted: name.clone(), given });
        true
    }

    /// Whether there is a row of this name.
    pub fn contains(&self, name: &K) -> bool {
        self.rows.contains_key(&Sought::new(name))
    }

    /// The counts of the row that a slot belongs to, to be added to.
    pub fn value_mut(&mut self, slot: u32) -> Option<&mut V> {
        let row = self.rows.get_mut(&Sought::new(&self.slots.get(slot)?.given))?;
        Some(Arc::make_mut(&mut row.value))
    }

    /// The slot is no more; its row keeps its counts as long as another slot has the name.
    pub fn release(&mut self, slot: u32) {
        self.leave(slot);
    }

    /// Every row.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.rows.iter().map(|(name, row)| (name.key.as_ref(), &row.value))
    }

    /// How many slots, over time, found no row of their own.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// Takes a slot out of its row, which stays.
    fn abandon(&mut self, slot: u32) -> Option<Arc<V>> {
        let Slot { given, .. } = self.slots.remove(slot)?;
        let row = self.rows.get_mut(&Sought::new(&given))?;
        row.slots -= 1;
        row.left_since = (row.slots == 0).then_some(self.now);
        None
    }

    /// Takes a slot out of its row; returns the counts if it was the last one there.
    fn leave(&mut self, slot: u32) -> Option<Arc<V>> {
        let Slot { given, .. } = self.slots.remove(slot)?;
        let row = self.rows.get_mut(&Sought::new(&given))?;
        row.slots -= 1;
        if row.slots > 0 {
            return None;
        }
        self.rows.remove(&Sought::new(&given)).map(|row| row.value)
    }
}

impl<V: Default> Default for Row<V> {
    fn default() -> Self {
        Self { value: Arc::default(), slots: 0, left_since: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Count(u64);

    impl Merge for Count {
        fn merge(&mut self, other: &Self) {
            self.0 += other.0;
        }
    }

    impl Name for &'static str {
        fn other() -> Self {
            "other"
        }
    }

    type Counts = Attributed<&'static str, Count>;

    fn add(counts: &mut Counts, slot: u32, name: &'static str, n: u64) {
        counts.assign(slot, &name, false);
        counts.value_mut(slot).expect("it has a row").0 += n;
    }

    fn rows(counts: &Counts) -> Vec<(&'static str, u64)> {
        let mut rows: Vec<_> = counts.iter().map(|(name, value)| (*name, value.0)).collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn a_late_name_takes_the_whole_row_along() {
        let mut counts = Counts::new(8);
        add(&mut counts, 1, "10.0.0.1", 5);
        add(&mut counts, 1, "shop", 2);
        assert_eq!(rows(&counts), [("shop", 7)]);
    }

    #[test]
    fn a_row_that_others_still_have_does_not_go_back() {
        let mut counts = Counts::new(8);
        add(&mut counts, 1, "a", 5);
        add(&mut counts, 2, "a", 3);
        add(&mut counts, 1, "b", 1);
        assert_eq!(rows(&counts), [("a", 8), ("b", 1)]);
        // The last one takes what is left with it.
        add(&mut counts, 2, "b", 0);
        assert_eq!(rows(&counts), [("b", 9)]);
    }

    #[test]
    fn somebody_else_takes_nothing_along() {
        let mut counts = Counts::new(8);
        add(&mut counts, 1, "a", 5);
        add(&mut counts, 2, "a", 1);
        counts.assign(1, &"b", true);
        counts.assign(2, &"b", true);
        assert_eq!(rows(&counts), [("a", 6), ("b", 0)]);
        counts.advance(IDLE_SECONDS - 1);
        assert_eq!(rows(&counts).len(), 2);
        counts.advance(IDLE_SECONDS);
        assert_eq!(rows(&counts), [("b", 0)]);
    }

    #[test]
    fn a_row_ends_with_its_last_slot() {
        let mut counts = Counts::new(8);
        add(&mut counts, 1, "a", 5);
        add(&mut counts, 2, "a", 3);
        counts.release(1);
        assert_eq!(rows(&counts), [("a", 8)]);
        counts.release(2);
        assert_eq!(rows(&counts), []);
        assert_eq!(counts.value_mut(2), None);
    }

    #[test]
    fn a_full_table_keeps_totals_exact() {
        let mut counts = Counts::new(2);
        for (slot, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "a")] {
            add(&mut counts, slot, name, 10);
        }
        assert_eq!(rows(&counts), [("a", 20), ("b", 10), ("other", 20)]);
        assert_eq!(counts.folded(), 2);
        // Asking again for what it did not get is no further one.
        add(&mut counts, 3, "c", 1);
        assert_eq!((rows(&counts)[2], counts.folded()), (("other", 21), 2));
    }

    proptest! {
        /// However slots are renamed: nothing is lost, nothing counted twice, and no row that
        /// stays goes back.
        #[test]
        fn totals_are_conserved_and_rows_only_grow(
            steps in prop::collection::vec((0u32..6, 0usize..5, 0u64..9, any::<bool>()), 1..80)
        ) {
            const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
            let mut counts = Counts::new(4);
            let mut total = 0;
            let mut before: Vec<(&str, u64)> = Vec::new();
            for (slot, name, n, is_another) in steps {
                counts.assign(slot, &NAMES[name], is_another);
                add(&mut counts, slot, NAMES[name], n);
                total += n;
                let now = rows(&counts);
                prop_assert_eq!(now.iter().map(|(_, n)| n).sum::<u64>(), total);
                for (name, n) in &before {
                    let still = now.iter().find(|(other, _)| other == name);
                    prop_assert!(still.is_none_or(|(_, now)| now >= n), "{} went back", name);
                }
                before = now;
            }
        }
    }
}
