//! A table by numbers of edges: which of the kernel's tables, in the upper bits, and the slot there.
//!
//! Slots are small, and those in use lie close together, as the lowest free one is handed
//! out first. So rows lie in pages: a new row takes a new page at most. A hash table that has grown
//! too large is copied as a whole by the next insert: with a million rows that takes 130 ms
//! (a family of `prometheus-client` in `benches/insert.rs`).

use std::array;

use agent_common::drained::{TABLES, Table};

/// Rows of a page.
const PAGE: usize = 256;

/// Bits of a number that are the slot; a table has at most a million.
const SLOT_BITS: u32 = 24;

/// The number of a slot of a table.
pub(super) const fn number(table: Table, slot: u32) -> u32 {
    (table as u32) << SLOT_BITS | slot
}

/// Rows by number. Memory follows the highest slot in use of each table (8 bytes per page) and the
/// pages in use.
pub(super) struct PerSlot<T> {
    tables: [Vec<Option<Box<Page<T>>>>; TABLES],
    len: usize,
}

struct Page<T> {
    rows: [Option<T>; PAGE],
    used: usize,
}

// === impl PerSlot ===

impl<T> PerSlot<T> {
    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The row of a number.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let (table, page, row) = locate(number);
        self.tables.get(table)?.get(page)?.as_ref()?.rows.get(row)?.as_ref()
    }

    /// The row of a number, to be changed.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (table, page, row) = locate(number);
        self.tables.get_mut(table)?.get_mut(page)?.as_mut()?.rows.get_mut(row)?.as_mut()
    }

    /// Puts a row there instead of the one before, if any.
    pub(super) fn insert(&mut self, number: u32, value: T) -> &mut T {
        self.remove(number);
        self.get_or_insert_with(number, || value)
    }

    /// The row of a number, which is made if there is none.
    pub(super) fn get_or_insert_with(&mut self, number: u32, new: impl FnOnce() -> T) -> &mut T {
        let (table, page, row) = locate(number);
        let pages = &mut self.tables[table];
        if pages.len() <= page {
            pages.resize_with(page + 1, || None);
        }
        let page = pages[page].get_or_insert_with(Box::default);
        page.rows[row].get_or_insert_with(|| {
            page.used += 1;
            self.len += 1;
            new()
        })
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let (table, at, row) = locate(number);
        let slot = self.tables.get_mut(table)?.get_mut(at)?;
        let page = slot.as_mut()?;
        let value = page.rows.get_mut(row)?.take()?;
        page.used -= 1;
        self.len -= 1;
        if page.used == 0 {
            *slot = None;
        }
        Some(value)
    }

    /// Keeps the rows for which `stays` holds.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(u32, &mut T) -> bool) {
        for (table, pages) in self.tables.iter_mut().enumerate() {
            for (at, slot) in pages.iter_mut().enumerate() {
                let Some(page) = slot else { continue };
                for (row, entry) in page.rows.iter_mut().enumerate() {
                    let number = (table << SLOT_BITS | (at * PAGE + row)) as u32;
                    if entry.as_mut().is_some_and(|value| !stays(number, value)) {
                        *entry = None;
                        page.used -= 1;
                        self.len -= 1;
                    }
                }
                if page.used == 0 {
                    *slot = None;
                }
            }
        }
    }
}

impl<T> Default for PerSlot<T> {
    fn default() -> Self {
        Self { tables: array::from_fn(|_| Vec::new()), len: 0 }
    }
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { rows: array::from_fn(|_| None), used: 0 }
    }
}

/// Table, page and row of a number.
fn locate(number: u32) -> (usize, usize, usize) {
    let slot = (number & ((1 << SLOT_BITS) - 1)) as usize;
    ((number >> SLOT_BITS) as usize, slot / PAGE, slot % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Whatever is done to it, it holds what an ordinary map would.
        #[test]
        fn it_is_a_map(
            steps in prop::collection::vec((0u8..4, 0u32..3, 0u32..1200, 0u64..9), 0..200)
        ) {
            let (mut ours, mut map) = (PerSlot::default(), BTreeMap::new());
            for (what, table, slot, value) in steps {
                let slot = table << SLOT_BITS | slot;
                match what {
                    0 | 1 => {
                        prop_assert_eq!(*ours.insert(slot, value), value);
                        map.insert(slot, value);
                    }
                    2 => prop_assert_eq!(ours.remove(slot), map.remove(&slot)),
                    _ => {
                        let stays = |slot: u32, value: u64| u64::from(slot) % 7 != value % 7;
                        ours.retain(|slot, value| stays(slot, *value));
                        map.retain(|slot, value| stays(*slot, *value));
                    }
                }
                prop_assert_eq!(ours.get(slot), map.get(&slot));
                prop_assert_eq!(ours.get_mut(slot), map.get_mut(&slot));
                prop_assert_eq!(ours.len(), map.len());
                let mut all = Vec::new();
                ours.retain(|slot, value| {
                    all.push((slot, *value));
                    true
                });
                prop_assert!(all.into_iter().eq(map.iter().map(|(slot, value)| (*slot, *value))));
                let pages = ours.tables.iter().flatten().flatten().map(|page| page.used);
                prop_assert!(pages.clone().all(|used| used > 0), "an empty page stays");
                prop_assert_eq!(pages.sum::<usize>(), map.len());
            }
        }
    }
}
