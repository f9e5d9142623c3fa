//! Taking rows of the kernel's tables back once nothing uses them: forget, wait, free.
//!
//! A row that has been idle for long is first *forgotten*: its key is removed from the kernel's
//! index, so new connections no longer find it. A hook may have found it just before, so it is
//! *freed* (cleared and offered again) only after it was idle in another collection, at least a
//! second later. Edges, owners and failed binds use the same code; they differ only in the
//! definition of idle.

use agent_common::drained::{Edge, Table};
use agent_common::queues::Queues;
use agent_common::share::{self, Tenant};
use agent_common::slot_table::Reclaim;
use hashbrown::{HashMap, HashSet};

use super::owners::Owners;

/// A row that has been idle for so long is taken back, seconds.
pub const IDLE_SECONDS: u64 = 3600;
/// The same when the table is nearly full.
pub const IDLE_SECONDS_UNDER_PRESSURE: u64 = 300;
/// Nearly full: more than three quarters of the slots are taken.
const PRESSURE: u64 = 4;

/// How far a row is on its way back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lifecycle {
    /// When it was last seen in use, or else first seen at all.
    idle_since: Option<u64>,
    forgotten: bool,
}

/// The same for rows of a tenant that has a large part of a nearly full table. What was counted is
/// exported for longer: names outlive the slots by [`super::attributed::ENDED_SECONDS`].
pub const IDLE_SECONDS_OF_GREEDY: u64 = 5;

/// The idle time after which a row is forgotten in a table with `used` of `capacity` slots taken.
pub(crate) fn patience(used: usize, capacity: u64) -> u64 {
    let is_nearly_full = used as u64 > capacity.saturating_mul(PRESSURE - 1) / PRESSURE;
    if is_nearly_full { IDLE_SECONDS_UNDER_PRESSURE } else { IDLE_SECONDS }
}

/// How many slots a table has, and which tenants take them.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    pub(crate) capacity: u64,
    owners: Option<&'a Owners>,
    sockets: Option<&'a [(u32, Queues)]>,
    pressed: Option<&'a HashSet<Tenant>>,
}

impl<'a> Room<'a> {
    /// A table of `capacity` slots.
    pub fn of(capacity: u64) -> Self {
        Self { capacity, owners: None, sockets: None, pressed: None }
    }

    /// Shared by the tenants of these owners.
    #[must_use]
    pub fn shared_by(self, owners: &'a Owners) -> Self {
        Self { owners: Some(owners), ..self }
    }

    /// What the socket iteration found in connections, by slot and sorted; `None` without an iteration.
    #[must_use]
    pub fn met(self, sockets: Option<&'a [(u32, Queues)]>) -> Self {
        Self { sockets, ..self }
    }

    /// Tenants that have filled the table of owners: an owner is needed while an edge is there.
    #[must_use]
    pub fn pressed_by(self, tenants: &'a HashSet<Tenant>) -> Self {
        Self { pressed: Some(tenants), ..self }
    }

    /// Whether a connection of this slot waits for the answer to its SYN, as far as that is known.
    pub(crate) fn is_connecting(&self, slot: u32) -> bool {
        let Some(sockets) = self.sockets else { return false };
        let found = sockets.binary_search_by_key(&slot, |(slot, _)| *slot);
        found.ok().and_then(|at| sockets.get(at)).is_some_and(|(_, met)| met.connecting > 0)
    }

    /// Tenants of which connections wait for the answer to their SYN that have no row of their own;
    /// everybody if that is not known.
    pub fn connecting(&self, edges: &[Edge]) -> HashSet<Tenant> {
        if self.sockets.is_none() {
            return HashSet::from([Tenant::EVERYBODY]);
        }
        let is_waiting = |edge: &&Edge| {
            edge.table == Table::Edges && edge.is_overflow() && self.is_connecting(edge.slot)
        };
        let waiting = edges.iter().filter(is_waiting);
        waiting.map(|edge| edge.others().unwrap_or(Tenant::EVERYBODY)).collect()
    }

    /// How long idle rows stay, if `taken` has the tenant of each slot that is taken. Who does not
    /// know which connections are under way has to wait for the longest pause between two SYNs.
    pub(crate) fn patience(&self, taken: impl ExactSizeIterator<Item = Tenant>) -> Patience {
        match self.sockets {
            Some(_) => {
                let mut patience = Patience::of(self.capacity, taken);
                patience.greedy.extend(self.pressed.into_iter().flatten());
                patience
            }
            None => Patience::usual(self.capacity, taken.len()),
        }
    }

    pub(crate) fn tenant(&self, edge: &Edge) -> Tenant {
        let of_owner =
            || self.owners.map_or(Tenant::OTHERS, |owners| owners.tenant(edge.key.owner));
        edge.others().unwrap_or_else(of_owner)
    }
}

/// The same for each tenant.
pub(crate) struct Patience {
    usual: u64,
    greedy: Vec<Tenant>,
}

impl Patience {
    /// For a table of `capacity` slots; `taken` has the tenant of each that is taken.
    pub(crate) fn of(capacity: u64, taken: impl ExactSizeIterator<Item = Tenant>) -> Self {
        let used = taken.len();
        let mut patience = Self::usual(capacity, used);
        // Not worth counting.
        if !share::is_greedy(capacity, used as u64, u64::MAX) {
            return patience;
        }
        let mut by_tenant: HashMap<Tenant, u64> = HashMap::new();
        for tenant in taken {
            *by_tenant.entry(tenant).or_default() += 1;
        }
        by_tenant.retain(|_, mine| share::is_greedy(capacity, used as u64, *mine));
        patience.greedy = by_tenant.into_keys().collect();
        patience
    }

    /// Tenants that have filled the table.
    pub(crate) fn greedy(self) -> impl Iterator<Item = Tenant> {
        self.greedy.into_iter()
    }

    /// The usual one for these tenants.
    pub(crate) fn but_for(mut self, tenants: &HashSet<Tenant>) -> Self {
        let is_among =
            |tenant: &Tenant| tenants.contains(tenant) || tenants.contains(&Tenant::EVERYBODY);
        self.greedy.retain(|tenant| !is_among(tenant));
        self
    }

    /// The same for all tenants.
    fn usual(capacity: u64, used: usize) -> Self {
        Self { usual: patience(used, capacity), greedy: Vec::new() }
    }

    pub(crate) fn with(&self, tenant: Tenant) -> u64 {
        if self.greedy.contains(&tenant) { IDLE_SECONDS_OF_GREEDY } else { self.usual }
    }
}

impl Lifecycle {
    /// Whether hooks no longer find the row.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.forgotten
    }

    /// Records whether the row of `key` in `slot` is in use or idle at `now` (seconds, any epoch
    /// that only grows); returns the next step when it is due.
    pub(crate) fn observe<K>(
        &mut self,
        now: u64,
        patience: u64,
        in_use: bool,
        slot: u32,
        key: K,
    ) -> Option<Reclaim<K>> {
        if in_use {
            self.idle_since = Some(now);
            return None;
        }
        let since = *self.idle_since.get_or_insert(now);
        if self.forgotten {
            return (since < now).then_some(Reclaim::Free(slot));
        }
        if now.saturating_sub(since) < patience {
            return None;
        }
        self.forgotten = true;
        self.idle_since = Some(now);
        Some(Reclaim::Forget(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATIENCE: u64 = 10;

    #[test]
    fn a_row_is_forgotten_when_it_was_idle_for_long_and_freed_a_second_later() {
        let mut row = Lifecycle::default();
        let mut check = |now, in_use, expected| {
            assert_eq!(row.observe(now, PATIENCE, in_use, 7, "key"), expected, "at {now}");
        };
        check(0, false, None);
        check(9, false, None);
        check(9, true, None);
        check(18, false, None);
        check(19, false, Some(Reclaim::Forget("key")));
        check(19, false, None);
        // A hook had found it just before.
        check(20, true, None);
        check(20, false, None);
        check(21, false, Some(Reclaim::Free(7)));
    }

    #[test]
    fn a_table_that_is_nearly_full_waits_less() {
        assert_eq!(patience(75, 100), IDLE_SECONDS);
        assert_eq!(patience(76, 100), IDLE_SECONDS_UNDER_PRESSURE);
        assert_eq!(patience(0, 0), IDLE_SECONDS);
    }

    #[test]
    fn idle_rows_of_who_fills_a_table_go_first() {
        let tenant = |origin| Tenant { cgroup: 0, origin };
        let of = |greedy: usize| {
            let taken: Vec<_> = (0..greedy).map(|_| tenant(1)).chain([tenant(2); 100]).collect();
            Patience::of(8192, taken.into_iter())
        };
        let full = of(6144);
        assert_eq!(full.with(tenant(1)), IDLE_SECONDS_OF_GREEDY);
        assert_eq!(full.with(tenant(2)), IDLE_SECONDS_UNDER_PRESSURE);
        let empty = of(4000);
        assert_eq!((empty.with(tenant(1)), empty.with(tenant(2))), (IDLE_SECONDS, IDLE_SECONDS));
    }

    /// A table as the kernel has it: hooks find or take rows and count in them.
    #[derive(Default)]
    struct Kernel {
        index: HashMap<u8, u32>,
        rows: HashMap<u32, Row>,
        taken: u32,
        freed: u64,
    }

    #[derive(Clone, Copy)]
    struct Row {
        key: u8,
        count: u64,
    }

    impl Kernel {
        fn find_or_take(&mut self, key: u8) -> u32 {
            *self.index.entry(key).or_insert_with(|| {
                let free = (0..=self.taken).find(|slot| !self.rows.contains_key(slot));
                let slot = free.expect("one more than were taken");
                self.taken = self.taken.max(slot + 1);
                self.rows.insert(slot, Row { key, count: 0 });
                slot
            })
        }
    }

    proptest! {
        /// Whatever hooks do, also between a collection and the steps that follow from it: a row is
        /// freed only after its key was removed, every count was read before its row was freed, and
        /// idle rows are freed eventually.
        #[test]
        fn nothing_is_lost_and_what_is_idle_goes(
            rounds in prop::collection::vec(
                (0u64..8, prop::collection::vec(0u8..4, 0..3), prop::option::of(0u8..4)), 1..60,
            )
        ) {
            let mut kernel = Kernel::default();
            let mut seen: HashMap<u32, (Lifecycle, u64)> = HashMap::new();
            let (mut now, mut counted, mut read) = (0, 0, 0);
            let mut late: Option<u32> = None;
            let quiet = (0..8).map(|_| (PATIENCE, Vec::new(), None));
            for (wait, keys, slow) in rounds.into_iter().chain(quiet) {
                now += wait;
                for key in keys {
                    let slot = kernel.find_or_take(key);
                    kernel.rows.get_mut(&slot).expect("taken").count += 1;
                    counted += 1;
                }
                // A hook that had found its slot before the last steps counts in it now.
                if let Some(slot) = late.take() {
                    let row = kernel.rows.get_mut(&slot);
                    prop_assert!(row.is_some(), "a row that a hook had found was freed at once");
                    row.expect("there").count += 1;
                    counted += 1;
                }
                late = slow.map(|key| kernel.find_or_take(key));
                let mut steps = Vec::new();
                for (slot, row) in &kernel.rows {
                    let (lifecycle, before) = seen.entry(*slot).or_default();
                    let grown = row.count - *before;
                    (*before, read) = (row.count, read + grown);
                    steps.extend(lifecycle.observe(now, PATIENCE, grown > 0, *slot, row.key));
                }
                for step in steps {
                    match step {
                        Reclaim::Forget(key) => {
                            prop_assert!(kernel.index.remove(&key).is_some(), "forgotten twice");
                        }
                        Reclaim::Free(slot) => {
                            let row = kernel.rows.remove(&slot).expect("freed once");
                            prop_assert_ne!(kernel.index.get(&row.key), Some(&slot));
                            seen.remove(&slot);
                            kernel.freed += 1;
                        }
                    }
                }
                prop_assert_eq!(read, counted);
            }
            prop_assert!(kernel.rows.is_empty(), "an idle row stays");
            prop_assert!(kernel.freed > 0 || counted == 0);
        }
    }
}
