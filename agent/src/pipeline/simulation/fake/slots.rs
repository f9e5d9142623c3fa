//! A table of rows with an index, as both halves share it.

use std::collections::{BTreeMap, BTreeSet};

use agent_common::drained::Row;
use agent_common::slot_table::{Reclaim, SlotRow};
use agent_common::wire::Wire;

/// Rows by slot, and which key has which.
pub(super) struct Slots<K, R> {
    index: BTreeMap<Vec<u8>, u32>,
    pub(super) rows: BTreeMap<u32, R>,
    free: BTreeSet<u32>,
    keys: std::marker::PhantomData<K>,
}

// === impl Slots ===

impl<K: Wire, R> Slots<K, R> {
    pub(super) fn new(first: u32, count: u32) -> Self {
        let (index, rows) = (BTreeMap::new(), BTreeMap::new());
        Self { index, rows, free: (first..first + count).collect(), keys: std::marker::PhantomData }
    }

    /// The slot of a key, and whether it was taken just now; none if all are taken.
    pub(super) fn find_or_take(&mut self, key: &K, row: impl FnOnce() -> R) -> Option<(u32, bool)> {
        if let Some(slot) = self.index.get(key.as_bytes()) {
            return Some((*slot, false));
        }
        let slot = self.free.pop_first()?;
        self.index.insert(key.as_bytes().to_vec(), slot);
        self.rows.insert(slot, row());
        Some((slot, true))
    }

    /// An agent that took the tables over may forget a key that an earlier one has forgotten, and
    /// that was taken again since: then another row is taken the next time.
    fn forget(&mut self, key: &K) {
        self.index.remove(key.as_bytes());
    }

    /// What is done to a row on its way back; the row if it is free now.
    pub(super) fn reclaim(&mut self, step: &Reclaim<K>) -> Option<R> {
        match step {
            Reclaim::Forget(key) => {
                self.forget(key);
                None
            }
            Reclaim::Free(slot) => Some(self.free(*slot)),
        }
    }

    pub(super) fn capacity(&self) -> u64 {
        (self.free.len() + self.rows.len()) as u64
    }

    fn free(&mut self, slot: u32) -> R {
        assert!(!self.index.values().any(|other| *other == slot), "freed before it was forgotten");
        assert!(self.free.insert(slot), "freed twice");
        self.rows.remove(&slot).expect("a row that is in use")
    }
}

/// Rows of a table as a drain reads them.
pub(super) fn rows<R: SlotRow>(table: &Slots<R::Key, R>) -> Vec<Row<R>> {
    table.rows.iter().map(|(slot, row)| Row { slot: *slot, row: *row }).collect()
}
