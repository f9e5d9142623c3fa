//! Slot tables: rows that hooks take, one per key, and that user space gives back.
//!
//! A slot table is three maps and a word of the [ledger](crate::ledger::Ledger): an *index* (hash:
//! key → slot), *rows* (array: slot → row, mapped into user space), *free slots* (a stack), and the
//! *reach*, above which no slot was ever taken. The life of a row is the same in every table:
//!
//! 1. **find or take** (hook): the slot in the index, or one from the stack, unless the tenant has
//!    its [share](crate::share) already. A slot that is taken extends the reach; then its row is
//!    written and the index gets the key. Of two CPUs that add the same key the second gives its
//!    slot back and uses that of the first.
//! 2. **publish** (hook): `born_us` is written last. A row without it is not in use.
//! 3. **read** (user space): the rows within reach, published at least [`YOUNG_US`] ago. `born_us`
//!    also differs when a slot is taken again: it is the row's generation.
//! 4. **forget** (user space): the key leaves the index, so hooks no longer find the row.
//! 5. **wait** (user space): a hook may have found the slot just before, and sockets still hold
//!    its number, until nothing has moved in it for a while.
//! 6. **free** (user space): the row is cleared and its slot goes back on the stack.
//!
//! The first [`SlotRow::RESERVED`] slots are never on the stack: they take what finds no slot of
//! its own, so totals stay exact when the table is full.

use crate::share::Tenant;
use crate::wire::Wire;

/// Rows of edges, in [`crate::ledger::Ledger::reach`].
pub const EDGES: usize = 0;
/// Rows of owners.
pub const OWNERS: usize = 1;
/// Rows of failed binds.
pub const BIND_FAILURES: usize = 2;
/// Rows of listeners.
pub const LISTENERS: usize = 3;
/// Rows of connects that were refused before a SYN.
pub const UNSENT: usize = 4;
/// How many slot tables there are.
pub const TABLES: usize = 5;
/// Rows for durations ([`crate::durations`]): shared out among tenants as slots are.
pub const HISTOGRAMS: usize = TABLES;
/// How many tables are shared out.
pub const SHARED: usize = TABLES + 1;

/// A row is read when it is so old, microseconds. The store that publishes it comes last, but there
/// are processors (aarch64) that may show it before those that it announces.
pub const YOUNG_US: u64 = 10;

/// A row of a slot table.
///
/// # Safety
/// The key must be the first field, for the kernel half writes it there; [`slot_row!`] proves it.
///
/// [`slot_row!`]: crate::slot_row!
pub unsafe trait SlotRow: Wire {
    /// What a row belongs to.
    type Key: Wire;
    /// Which table: [`EDGES`] and its kin.
    const TABLE: usize;
    /// How many of the first slots belong to no key.
    const RESERVED: u32;
    /// The ledger's class for new keys, and its reason for those that found no slot; `None` if the
    /// facts in the rows are counted elsewhere.
    const LEDGER: Option<(usize, usize)>;
    /// Where in the row `born_us` is.
    const BORN_US: usize;
    /// Where in the row its [`Tenant`] is.
    const TENANT: usize;

    /// What the row belongs to.
    fn key(&self) -> Self::Key;

    /// When its slot was taken, CLOCK_MONOTONIC microseconds; 0 if it is free or reserved.
    fn born_us(&self) -> u64;

    /// Whose share the slot counts against.
    fn tenant(&self) -> Tenant;
}

/// What user space asks for to take a slot back, in this order, with a wait in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaim<K> {
    /// Hooks shall no longer find the row of this key.
    Forget(K),
    /// Clear the row of this slot and offer the slot again.
    Free(u32),
}

/// Whether a row published at `born_us` may be read at `now_us`.
#[inline(always)]
pub const fn is_readable(born_us: u64, now_us: u64) -> bool {
    born_us <= now_us.saturating_sub(YOUNG_US)
}

/// Declares that a wire struct is a row of a slot table.
#[macro_export]
macro_rules! slot_row {
    ($row:ident { key: $key:ty, table: $table:expr, reserved: $reserved:expr, ledger: $ledger:expr }) => {
        const _: () = {
            assert!(core::mem::offset_of!($row, key) == 0, "the key is not the first field");
            assert!(
                core::mem::offset_of!($row, born_us).is_multiple_of(8),
                "born_us cannot be read in one load"
            );
            assert!($table < $crate::slot_table::TABLES, "not one of the tables");
        };

        // SAFETY: a wire struct whose first field is the key, asserted just above.
        unsafe impl $crate::slot_table::SlotRow for $row {
            type Key = $key;
            const TABLE: usize = $table;
            const RESERVED: u32 = $reserved;
            const LEDGER: Option<(usize, usize)> = $ledger;
            const BORN_US: usize = core::mem::offset_of!($row, born_us);
            const TENANT: usize = core::mem::offset_of!($row, tenant);

            fn key(&self) -> $key {
                self.key
            }

            fn born_us(&self) -> u64 {
                self.born_us
            }

            fn tenant(&self) -> $crate::share::Tenant {
                self.tenant
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::FailureRow;
    use crate::edge::EdgeRow;
    use crate::listener::ListenerRow;
    use crate::owner::OwnerRow;
    use crate::unsent::UnsentRow;

    #[test]
    fn every_table_has_a_place_of_its_own_in_the_reach() {
        let mut tables = [
            EdgeRow::TABLE,
            OwnerRow::TABLE,
            FailureRow::TABLE,
            ListenerRow::TABLE,
            UnsentRow::TABLE,
        ];
        tables.sort_unstable();
        assert!(tables.iter().copied().eq(0..TABLES));
    }

    #[test]
    fn a_row_waits_until_its_contents_are_visible_everywhere() {
        assert!(!is_readable(100, 100 + YOUNG_US - 1));
        assert!(is_readable(100, 100 + YOUNG_US));
        assert!(is_readable(0, 0));
    }

    #[test]
    fn born_us_is_where_the_readers_look() {
        fn check<R: SlotRow>(row: &R, expected: u64) {
            let at = &row.as_bytes()[R::BORN_US..R::BORN_US + 8];
            assert_eq!(at, expected.to_ne_bytes());
        }
        check(&EdgeRow { born_us: 5, ..EdgeRow::zeroed() }, 5);
        check(&OwnerRow { born_us: 6, ..OwnerRow::zeroed() }, 6);
        check(&FailureRow { born_us: 7, ..FailureRow::zeroed() }, 7);
        check(&ListenerRow { born_us: 8, ..ListenerRow::zeroed() }, 8);
        check(&UnsentRow { born_us: 9, ..UnsentRow::zeroed() }, 9);
    }
}
