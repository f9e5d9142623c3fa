//! A table by numbers of edges, which are those of the slots of the kernel's table.
//!
//! They are small, and those in use lie close together, as the lowest free one is handed
//! out first. So rows lie in pages: a new row takes a new page at most. A hash table that has grown
//! too large is copied as a whole by whoever inserts next: with a million rows that takes 130 ms
//! (a family of `prometheus-client` in `benches/insert.rs`).

use std::array;

/// Rows of a page.
const PAGE: usize = 256;

/// Rows by slot. Memory follows the highest slot in use (8 bytes per page) and the pages in use.
pub(super) struct PerSlot<T> {
    pages: Vec<Option<Box<Page<T>>>>,
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

    /// The row of a slot.
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        let (page, row) = place(slot);
        self.pages.get(page)?.as_ref()?.rows.get(row)?.as_ref()
    }

    /// The row of a slot, to be changed.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        let (page, row) = place(slot);
        self.pages.get_mut(page)?.as_mut()?.rows.get_mut(row)?.as_mut()
    }

    /// Puts a row there instead of the one before, if any.
    pub(super) fn insert(&mut self, slot: u32, value: T) -> &mut T {
        self.remove(slot);
        self.get_or_insert_with(slot, || value)
    }

    /// The row of a slot, which is made if there is none.
    pub(super) fn get_or_insert_with(&mut self, slot: u32, new: impl FnOnce() -> T) -> &mut T {
        let (page, row) = place(slot);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(Box::default);
        page.rows[row].get_or_insert_with(|| {
            page.used += 1;
            self.len += 1;
            new()
        })
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let (at, row) = place(slot);
        let page = self.pages.get_mut(at)?.as_mut()?;
        let value = page.rows.get_mut(row)?.take()?;
        page.used -= 1;
        self.len -= 1;
        if page.used == 0 {
            self.pages[at] = None;
        }
        Some(value)
    }

    /// Keeps the rows for which `stays` holds.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(u32, &mut T) -> bool) {
        for (at, place) in self.pages.iter_mut().enumerate() {
            let Some(page) = place else { continue };
            for (row, place) in page.rows.iter_mut().enumerate() {
                let slot = (at * PAGE + row) as u32;
                if place.as_mut().is_some_and(|value| !stays(slot, value)) {
                    *place = None;
                    page.used -= 1;
                    self.len -= 1;
                }
            }
            if page.used == 0 {
                *place = None;
            }
        }
    }
}

impl<T> Default for PerSlot<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { rows: array::from_fn(|_| None), used: 0 }
    }
}

fn place(slot: u32) -> (usize, usize) {
    (slot as usize / PAGE, slot as usize % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Whatever is done to it, it holds what an ordinary map would.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0u8..4, 0u32..1200, 0u64..9), 0..200)) {
            let (mut ours, mut map) = (PerSlot::default(), BTreeMap::new());
            for (what, slot, value) in steps {
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
                let pages = ours.pages.iter().flatten().map(|page| page.used);
                prop_assert!(pages.clone().all(|used| used > 0), "an empty page stays");
                prop_assert_eq!(pages.sum::<usize>(), map.len());
            }
        }
    }
}
