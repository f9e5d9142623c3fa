//! Edges of which the kernel half counts a part only: the rest is found out later.
//!
//! Listeners count what their sockets dropped, of which only some was a connection request
//! ([`listen_drops`](super::listen_drops)). Connects that were refused before a SYN are counted
//! without a result ([`unsent`](super::unsent)). Both have a table of their own in the kernel half.
//! What a row has counted since the last drain goes to those that find out ([`Grown`]); what they
//! find comes back as a difference, at a later drain, and belongs to the same row. The sums are edges
//! like all others: names, and what becomes of counts under another name, are the
//! [delta stage](super::delta)'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_common::address::{Address, UNSPECIFIED};
use agent_common::counters::{EdgeCounters, widened};
use agent_common::drained::{Edge, Row, Table};
use agent_common::edge::{EdgeKey, ROLE_CLIENT, ROLE_LISTENER};
use agent_common::listener::{ListenerKey, ListenerRow};
use agent_common::slot_table::{Reclaim, SlotRow};
use agent_common::unsent::{UnsentKey, UnsentRow};

use super::reclaim::{Lifecycle, Patience};

/// A row: the same slot used again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    slot: u32,
    born_us: u64,
}

/// A row that does not say all.
pub trait Incomplete: SlotRow<Key: Copy> + PartialEq {
    /// The table that it is in.
    const TABLE_OF_EDGES: Table;

    /// The edge that it counts for; for the overflow row only the role is known.
    fn edge(key: &Self::Key) -> EdgeKey;

    /// Local and remote address.
    fn addresses(key: &Self::Key) -> (Address, Address);

    /// What needs no completion.
    fn counters(&self) -> EdgeCounters;

    /// How much there is to find out about.
    fn incomplete(&self) -> u64;
}

/// A row has more to find out about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grown<K> {
    /// Which row.
    pub id: RowId,
    /// What it belongs to.
    pub key: K,
    /// How much more.
    pub count: u64,
}

/// What a drain has brought.
#[derive(Debug)]
pub struct Taken<K> {
    /// What there is to find out.
    pub grown: Vec<Grown<K>>,
    /// What to do with slots.
    pub reclaim: Vec<Reclaim<K>>,
}

/// Rows of a table, and what was found out about them.
pub struct Completed<R: Incomplete> {
    rows: BTreeMap<RowId, Known<R>>,
    round: u64,
}

struct Known<R> {
    row: R,
    found: EdgeCounters,
    counters: Arc<EdgeCounters>,
    lifecycle: Lifecycle,
    /// The last drain that it was in.
    round: u64,
}

// === impl RowId ===

impl RowId {
    /// A row as it comes from the drain.
    pub fn of<R: SlotRow>(row: &Row<R>) -> Self {
        Self { slot: row.slot, born_us: row.row.born_us() }
    }

    /// Whether it stands for all that found no row of their own.
    pub fn is_overflow(self) -> bool {
        self.born_us == 0
    }
}

// === impl Completed ===

impl<R: Incomplete> Completed<R> {
    /// Takes in the kernel's rows at `now` (seconds, any epoch); `capacity` is how many there are.
    /// `is_needed` says whether one must stay however quiet it is: so must those about which something
    /// is still to be found out.
    pub fn take(
        &mut self,
        now: u64,
        rows: &[Row<R>],
        capacity: u64,
        is_needed: impl Fn(RowId, &R::Key) -> bool,
    ) -> Taken<R::Key> {
        self.round += 1;
        let patience = Patience::of(capacity, rows.iter().map(|row| row.row.tenant()));
        let mut taken = Taken { grown: Vec::new(), reclaim: Vec::new() };
        for row in rows {
            let (id, key, now_has) = (RowId::of(row), row.row.key(), row.row.incomplete());
            let known = self.rows.entry(id).or_default();
            let count = now_has.saturating_sub(known.row.incomplete());
            let is_same = known.row == row.row;
            if !is_same {
                known.row = row.row;
                known.add_up();
            }
            if count > 0 {
                taken.grown.push(Grown { id, key, count });
            }
            known.round = self.round;
            let in_use = !is_same || id.is_overflow() || is_needed(id, &key);
            let patience = patience.with(row.row.tenant());
            taken.reclaim.extend(known.lifecycle.observe(now, patience, in_use, row.slot, key));
        }
        self.rows.retain(|_, known| known.round == self.round);
        taken
    }

    /// Adds what was found out about a row.
    pub fn found(&mut self, id: RowId, add: impl FnOnce(&mut EdgeCounters)) {
        if let Some(known) = self.rows.get_mut(&id) {
            add(&mut known.found);
            known.add_up();
        }
    }

    /// Every row as an edge.
    pub fn edges(&self) -> impl Iterator<Item = Edge> {
        self.rows.iter().map(|(id, known)| {
            let key = known.row.key();
            let (local, remote) = R::addresses(&key);
            Edge {
                table: R::TABLE_OF_EDGES,
                slot: id.slot,
                key: R::edge(&key),
                local,
                remote,
                born_us: id.born_us,
                counters: Arc::clone(&known.counters),
            }
        })
    }
}

impl<R: Incomplete> Default for Completed<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), round: 0 }
    }
}

// === impl Known ===

impl<R: Incomplete> Default for Known<R> {
    fn default() -> Self {
        Self {
            row: R::zeroed(),
            found: EdgeCounters::ZERO,
            counters: Arc::new(EdgeCounters::ZERO),
            lifecycle: Lifecycle::default(),
            round: 0,
        }
    }
}

impl<R: Incomplete> Known<R> {
    fn add_up(&mut self) {
        let mut counters = self.row.counters();
        counters.merge(&self.found);
        self.counters = Arc::new(counters);
    }
}

// === impl ListenerRow ===

impl Incomplete for ListenerRow {
    const TABLE_OF_EDGES: Table = Table::Listeners;

    fn edge(key: &ListenerKey) -> EdgeKey {
        let ListenerKey { owner, port, zero: _, address } = *key;
        EdgeKey { owner, port, role: ROLE_LISTENER, zero: 0, remote: address }
    }

    fn addresses(key: &ListenerKey) -> (Address, Address) {
        (key.address, UNSPECIFIED)
    }

    fn counters(&self) -> EdgeCounters {
        let Self { synack_retransmits, resets_sent, resets_received, .. } = *self;
        let (resets_sent, resets_received) = (widened(&resets_sent), widened(&resets_received));
        EdgeCounters { synack_retransmits, resets_sent, resets_received, ..EdgeCounters::ZERO }
    }

    fn incomplete(&self) -> u64 {
        self.drops
    }
}

// === impl UnsentRow ===

impl Incomplete for UnsentRow {
    const TABLE_OF_EDGES: Table = Table::Unsent;

    fn edge(key: &UnsentKey) -> EdgeKey {
        let UnsentKey { owner, port, local_port: _, remote } = *key;
        EdgeKey { owner, port, role: ROLE_CLIENT, zero: 0, remote }
    }

    /// No local address was chosen, and nothing was sent to the remote one.
    fn addresses(_: &UnsentKey) -> (Address, Address) {
        (UNSPECIFIED, UNSPECIFIED)
    }

    fn counters(&self) -> EdgeCounters {
        EdgeCounters::ZERO
    }

    fn incomplete(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reclaim::IDLE_SECONDS;
    use agent_common::wire::Wire as _;
    use proptest::prelude::*;

    fn listener(slot: u32, born_us: u64, drops: u64, synack_retransmits: u64) -> Row<ListenerRow> {
        let key = ListenerKey { port: 80, owner: slot, ..ListenerKey::zeroed() };
        let row = ListenerRow { key, born_us, drops, synack_retransmits, ..ListenerRow::zeroed() };
        Row { slot, row }
    }

    /// Drops and retransmitted SYN-ACKs of the only row.
    fn totals(listeners: &Completed<ListenerRow>) -> (u64, u64) {
        let edges: Vec<_> = listeners.edges().collect();
        assert_eq!(edges.len(), 1);
        (edges[0].counters.listen_drops, edges[0].counters.synack_retransmits)
    }

    #[test]
    fn what_is_found_out_is_added_to_what_was_counted_and_stays() {
        let mut listeners = Completed::default();
        let first = listener(3, 9, 5, 1);
        let taken = listeners.take(0, &[first], 100, |_, _| true);
        let (id, key) = (RowId::of(&first), first.row.key);
        assert_eq!(taken.grown, [Grown { id, key, count: 5 }]);
        assert_eq!(totals(&listeners), (0, 1));
        listeners.found(id, |counters| counters.listen_drops += 2);
        assert_eq!(totals(&listeners), (2, 1));
        let taken = listeners.take(1, &[listener(3, 9, 5, 4)], 100, |_, _| true);
        assert!(taken.grown.is_empty());
        assert_eq!(totals(&listeners), (2, 4));
        // The slot is another's.
        let again = listener(3, 11, 1, 0);
        assert_eq!(listeners.take(2, &[again], 100, |_, _| true).grown[0].count, 1);
        listeners.found(id, |counters| counters.listen_drops += 7);
        assert_eq!(totals(&listeners), (0, 0));
    }

    #[test]
    fn a_row_is_an_edge_of_its_role() {
        let mut listeners = Completed::default();
        let rows = [listener(0, 0, 1, 0), listener(3, 9, 0, 0)];
        listeners.take(0, &rows, 100, |_, _| true);
        let edges: Vec<_> = listeners.edges().collect();
        assert!(edges.iter().all(|edge| edge.key.role == ROLE_LISTENER));
        assert_eq!(edges.iter().map(Edge::is_overflow).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_row_that_nobody_needs_goes_back_and_one_that_is_needed_stays() {
        let (mut listeners, rows) = (Completed::default(), [listener(3, 9, 5, 1)]);
        let mut steps = |now, is_needed| listeners.take(now, &rows, 100, |_, _| is_needed).reclaim;
        assert!(steps(0, true).is_empty());
        assert!(steps(IDLE_SECONDS, true).is_empty());
        assert_eq!(steps(2 * IDLE_SECONDS, false), [Reclaim::Forget(rows[0].row.key)]);
        assert_eq!(steps(2 * IDLE_SECONDS + 1, false), [Reclaim::Free(3)]);
        // The overflow row never does.
        let overflow = [listener(0, 0, 5, 1)];
        let taken = listeners.take(9 * IDLE_SECONDS, &overflow, 100, |_, _| false);
        assert!(taken.reclaim.is_empty());
    }

    proptest! {
        /// However rows grow, vanish and are taken again: what has grown adds up to what they have
        /// counted, each time.
        #[test]
        fn growth_adds_up_to_what_rows_have_counted(
            drains in prop::collection::vec(prop::collection::vec((1u32..4, 0u64..5, any::<bool>()), 0..4), 1..30)
        ) {
            let mut listeners = Completed::default();
            let mut kernel: BTreeMap<u32, Row<ListenerRow>> = BTreeMap::new();
            let (mut births, mut counted, mut grown) = (0, 0, 0);
            for (now, drain) in drains.into_iter().enumerate() {
                for (slot, more, is_again) in drain {
                    if is_again {
                        kernel.remove(&slot);
                        // Seen by a drain before it is taken again.
                        let rows: Vec<_> = kernel.values().copied().collect();
                        let taken = listeners.take(now as u64, &rows, 100, |_, _| true);
                        grown += taken.grown.iter().map(|grown| grown.count).sum::<u64>();
                    }
                    births += 1;
                    let row = kernel.entry(slot).or_insert_with(|| listener(slot, births, 0, 0));
                    row.row.drops += more;
                    counted += more;
                    let rows: Vec<_> = kernel.values().copied().collect();
                    let taken = listeners.take(now as u64, &rows, 100, |_, _| true);
                    grown += taken.grown.iter().map(|grown| grown.count).sum::<u64>();
                }
                prop_assert_eq!(grown, counted);
                prop_assert_eq!(listeners.edges().count(), kernel.len());
            }
        }
    }
}
