//! Owners: the rows the kernel half keeps of who acts, and which of them are still needed.
//!
//! A row is needed while an edge names it. One that has not been for long is given back in two
//! steps, like a slot of [`super::tables`]: first new connections no longer find it, and once no
//! edge has named it since, it is cleared and offered again.

use agent_common::owner::{OWNER_OVERFLOW, OwnerKey, OwnerRow};
use agent_common::slot_table::Reclaim;
use hashbrown::{HashMap, HashSet};

use super::tables::IDLE_SECONDS;

/// All owners.
#[derive(Default)]
pub struct Owners {
    rows: HashMap<u32, Owner>,
    taken: u64,
}

struct Owner {
    row: OwnerRow,
    unused_since: Option<u64>,
    forgotten: bool,
}

impl Owners {
    /// Takes in a row the kernel half has filled.
    pub fn insert(&mut self, index: u32, row: OwnerRow) {
        self.taken += 1;
        self.rows.insert(index, Owner { row, unused_since: None, forgotten: false });
    }

    /// The row with this number; none for the overflow row.
    pub fn row(&self, index: u32) -> Option<&OwnerRow> {
        self.rows.get(&index).map(|owner| &owner.row)
    }

    /// All rows, each with its number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &OwnerRow)> {
        self.rows.iter().map(|(index, owner)| (*index, &owner.row))
    }

    /// Inode of the network namespace of an owner, 0 if it is not known.
    pub fn netns(&self, index: u32) -> u32 {
        self.row(index).map_or(0, |row| row.key.netns)
    }

    /// All network namespaces with an owner.
    pub fn namespaces(&self) -> impl Iterator<Item = u32> {
        self.rows.values().map(|owner| owner.row.key.netns)
    }

    /// Rows of a network namespace.
    pub fn in_namespace(&self, netns: u32) -> impl Iterator<Item = u32> {
        let rows = self.rows.iter().filter(move |(_, owner)| owner.row.key.netns == netns);
        rows.map(|(index, _)| *index)
    }

    /// How many rows were ever taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Says at `now` (seconds, any epoch) which rows are in use, and what to do with the others.
    pub fn update(&mut self, now: u64, used: &HashSet<u32>) -> Vec<Reclaim<OwnerKey>> {
        let mut reclaim = Vec::new();
        for (index, owner) in &mut self.rows {
            if used.contains(index) || *index == OWNER_OVERFLOW {
                owner.unused_since = None;
                continue;
            }
            let since = *owner.unused_since.get_or_insert(now);
            if owner.forgotten && since < now {
                reclaim.push(Reclaim::Free(*index));
            } else if !owner.forgotten && now.saturating_sub(since) >= IDLE_SECONDS {
                // From here on it must be unused for another round.
                owner.forgotten = true;
                owner.unused_since = Some(now);
                reclaim.push(Reclaim::Forget(owner.row.key));
            }
        }
        for step in &reclaim {
            if let Reclaim::Free(index) = step {
                self.rows.remove(index);
            }
        }
        reclaim
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::wire::Wire as _;

    #[test]
    fn a_row_is_given_back_only_after_nobody_used_it_twice() {
        let mut owners = Owners::default();
        let row = OwnerRow { tgid: 7, ..OwnerRow::zeroed() };
        owners.insert(3, row);
        let used: HashSet<u32> = [3].into();
        let unused = HashSet::new();
        assert_eq!(owners.update(0, &unused), []);
        assert_eq!(owners.update(1, &used), []);
        assert_eq!(owners.update(2, &unused), []);
        assert_eq!(owners.update(2 + IDLE_SECONDS, &unused), [Reclaim::Forget(row.key)]);
        // A connection that had found it just before.
        assert_eq!(owners.update(3 + IDLE_SECONDS, &used), []);
        assert_eq!(owners.update(4 + IDLE_SECONDS, &unused), []);
        assert_eq!(owners.update(5 + IDLE_SECONDS, &unused), [Reclaim::Free(3)]);
        assert!(owners.row(3).is_none());
        assert_eq!(owners.taken(), 1);
    }
}
