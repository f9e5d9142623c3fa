//! Rows: turns the kernel's slots into named edges and keeps their totals.
//!
//! A row is one set of labels; its totals are the sum over all slots with these labels, plus what
//! slots that were given back had counted. Names may arrive late: the whole of a slot then moves
//! to its new row, so nothing is lost or counted twice. A name never gets worse again.
//!
//! Slots that have been still for long are given back in two steps: first new connections no
//! longer find them, and once nothing has moved since, they are cleared and offered again.

use std::sync::Arc;

use agent_common::edge::{EdgeCounters, EdgeKey, FIRST_FREE_SLOT, ROLE_LISTENER};
use agent_common::ledger::{CLASSES, CONNECTION, EDGE, REQUEST, RESET};
use agent_common::wire::Wire as _;
use hashbrown::HashMap;

use super::service::{Service, Source};
use super::snapshot::{EdgeLabels, EdgeView, Role};

/// A slot that has been still for so long is given back, seconds.
pub const IDLE_SECONDS: u64 = 3600;
/// The same when the table is nearly full.
pub const IDLE_SECONDS_UNDER_PRESSURE: u64 = 300;
/// Nearly full: more than this share of the slots is taken.
const PRESSURE: f64 = 0.75;

/// One edge as the kernel has it now.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Its slot; below `FIRST_FREE_SLOT` an overflow row.
    pub slot: u32,
    /// Which edge; all zeros for an overflow row.
    pub key: EdgeKey,
    /// When the slot was taken; tells a slot used again from the one before.
    pub born_us: u64,
    /// Totals since then.
    pub counters: EdgeCounters,
}

/// What the kernel half is asked to do with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let new connections no longer find it.
    Forget(EdgeKey),
    /// Clear it and offer it again.
    Free(u32),
}

/// All rows.
#[derive(Default)]
pub struct Tables {
    slots: HashMap<u32, Slot>,
    /// What slots that were given back had counted, for rows that still live.
    retired: HashMap<Arc<EdgeLabels>, EdgeCounters>,
    /// The same over everything, for the ledger.
    retired_exported: [u64; CLASSES],
}

struct Slot {
    born_us: u64,
    labels: Arc<EdgeLabels>,
    counters: EdgeCounters,
    still_since: u64,
    forgotten: bool,
}

/// What an update yields.
pub struct Updated {
    /// Rows, sorted by their labels.
    pub edges: Vec<EdgeView>,
    /// What to do with slots.
    pub actions: Vec<Action>,
    /// Facts found in the tables so far, by class of the ledger.
    pub exported: [u64; CLASSES],
}

impl Tables {
    /// Takes in the kernel's edges at `now` (seconds, any epoch). `labels` names an edge;
    /// `capacity` is how many slots there are; `is_listening` tells whether a listener's row is
    /// still in use.
    pub fn update(
        &mut self,
        now: u64,
        edges: &[Edge],
        capacity: u64,
        mut labels: impl FnMut(&Edge) -> EdgeLabels,
        is_listening: impl Fn(&EdgeKey) -> bool,
    ) -> Updated {
        let pressed = edges.len() as f64 > capacity as f64 * PRESSURE;
        let patience = if pressed { IDLE_SECONDS_UNDER_PRESSURE } else { IDLE_SECONDS };
        let mut actions = Vec::new();
        for edge in edges {
            let named = labels(edge);
            let slot = match self.slots.entry(edge.slot) {
                hashbrown::hash_map::Entry::Occupied(known)
                    if known.get().born_us == edge.born_us =>
                {
                    let slot = known.into_mut();
                    slot.rename(named);
                    slot
                }
                entry => {
                    self.retired_exported[EDGE] += u64::from(edge.slot >= FIRST_FREE_SLOT);
                    entry.insert(Slot::new(edge, named, now)).into_mut()
                }
            };
            if slot.counters != edge.counters {
                slot.counters = edge.counters;
                slot.still_since = now;
            }
            let in_use = edge.slot < FIRST_FREE_SLOT
                || slot.counters.active() > 0
                || (edge.key.role == ROLE_LISTENER && is_listening(&edge.key));
            if in_use {
                slot.still_since = now;
            } else if slot.forgotten && slot.still_since < now {
                actions.push(Action::Free(edge.slot));
            } else if !slot.forgotten && now.saturating_sub(slot.still_since) >= patience {
                slot.forgotten = true;
                actions.push(Action::Forget(edge.key));
            }
        }
        let rows = self.rows();
        let exported = self.exported();
        for action in &actions {
            if let Action::Free(slot) = action {
                self.retire(*slot);
            }
        }
        Updated { edges: rows, actions, exported }
    }

    /// One row per set of names, however they were found; it shows the surest way.
    fn rows(&self) -> Vec<EdgeView> {
        let slots = self.slots.values().map(|slot| (&slot.labels, &slot.counters));
        let mut rows: HashMap<Names<'_>, (Arc<EdgeLabels>, EdgeCounters)> = HashMap::new();
        for (labels, counters) in slots.chain(&self.retired) {
            let (shown, total) = rows
                .entry(names(labels))
                .or_insert_with(|| (labels.clone(), EdgeCounters::zeroed()));
            total.merge(counters);
            if (labels.client.source, labels.server.source)
                < (shown.client.source, shown.server.source)
            {
                *shown = labels.clone();
            }
        }
        let mut views: Vec<_> = rows
            .into_values()
            .filter(|(_, counters)| *counters != EdgeCounters::zeroed())
            .map(|(labels, counters)| EdgeView { labels, counters: Arc::new(counters) })
            .collect();
        views.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        views
    }

    /// The labels of a slot.
    pub fn labels(&self, slot: u32) -> Option<&EdgeLabels> {
        self.slots.get(&slot).map(|slot| slot.labels.as_ref())
    }

    fn exported(&self) -> [u64; CLASSES] {
        let mut exported = self.retired_exported;
        for slot in self.slots.values() {
            add_facts(&mut exported, &slot.counters);
        }
        exported
    }

    /// A slot is given back: its row keeps the totals as long as it has another slot.
    fn retire(&mut self, slot: u32) {
        let Some(slot) = self.slots.remove(&slot) else { return };
        add_facts(&mut self.retired_exported, &slot.counters);
        if self.slots.values().any(|other| other.labels == slot.labels) {
            self.retired.entry(slot.labels).or_default().merge(&slot.counters);
        } else {
            self.retired.remove(&slot.labels);
        }
    }
}

impl Slot {
    fn new(edge: &Edge, labels: EdgeLabels, now: u64) -> Self {
        Self {
            born_us: edge.born_us,
            labels: Arc::new(labels),
            counters: edge.counters,
            still_since: now,
            forgotten: false,
        }
    }

    /// Takes a new name for each end if it is no worse than the one it has.
    fn rename(&mut self, named: EdgeLabels) {
        let better = |old: &Service, new: Service| {
            // That one client alone connects there holds only until another does.
            let guessed = old.source == Source::LocalClient && new.source == Source::Address;
            if guessed || new.source <= old.source { new } else { old.clone() }
        };
        let labels = EdgeLabels {
            client: better(&self.labels.client, named.client),
            server: better(&self.labels.server, named.server),
            ..named
        };
        if *self.labels != labels {
            self.labels = Arc::new(labels);
        }
    }
}

/// What tells one row from another.
type Names<'a> = (&'a str, &'a str, &'a str, &'a str, u16, Role);

fn names(labels: &EdgeLabels) -> Names<'_> {
    let EdgeLabels { client, server, port, role } = labels;
    (&client.name, &client.namespace, &server.name, &server.namespace, *port, *role)
}

fn add_facts(exported: &mut [u64; CLASSES], counters: &EdgeCounters) {
    let sum = |values: &[u64]| values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value));
    exported[CONNECTION] += sum(&counters.connects);
    exported[REQUEST] += counters.request.count();
    exported[RESET] += sum(&counters.resets_sent) + sum(&counters.resets_received);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edge(slot: u32, born_us: u64, ok: u64) -> Edge {
        let mut counters = EdgeCounters::zeroed();
        counters.connects[0] = ok;
        Edge { slot, key: EdgeKey { port: slot as u16, ..EdgeKey::zeroed() }, born_us, counters }
    }

    fn labels(client: &str, source: Source) -> EdgeLabels {
        EdgeLabels {
            client: Service::new(client, source),
            server: Service::new("db", Source::Process),
            port: 5432,
            role: Role::Client,
        }
    }

    fn total(updated: &Updated) -> u64 {
        updated.edges.iter().map(|view| view.counters.connects[0]).sum()
    }

    #[test]
    fn a_late_name_moves_the_whole_row_and_a_worse_one_does_not() {
        let mut tables = Tables::default();
        let update = |tables: &mut Tables, client: &'static str, source| {
            tables.update(1, &[edge(4, 1, 7)], 100, |_| labels(client, source), |_| false)
        };
        let first = update(&mut tables, "10.0.0.1", Source::Address);
        assert_eq!(first.edges[0].labels.client.name.as_ref(), "10.0.0.1");
        let second = update(&mut tables, "shop", Source::Process);
        assert_eq!((second.edges.len(), total(&second)), (1, 7));
        assert_eq!(second.edges[0].labels.client.name.as_ref(), "shop");
        let third = update(&mut tables, "10.0.0.1", Source::Address);
        assert_eq!(third.edges[0].labels.client.name.as_ref(), "shop");
    }

    #[test]
    fn slots_of_one_name_are_one_row() {
        let mut tables = Tables::default();
        let updated = tables.update(
            1,
            &[edge(4, 1, 7), edge(5, 1, 8)],
            100,
            |_| labels("a", Source::Process),
            |_| false,
        );
        assert_eq!((updated.edges.len(), total(&updated)), (1, 15));
    }

    #[test]
    fn a_name_found_in_two_ways_is_one_row() {
        let mut tables = Tables::default();
        let edges = [edge(4, 1, 7), edge(5, 1, 8)];
        let named = |edge: &Edge| {
            labels("a", if edge.slot == 4 { Source::LocalClient } else { Source::Process })
        };
        let updated = tables.update(1, &edges, 100, named, |_| false);
        assert_eq!((updated.edges.len(), total(&updated)), (1, 15));
        assert_eq!(updated.edges[0].labels.client.source, Source::Process);
    }

    #[test]
    fn an_idle_slot_is_forgotten_then_freed_and_the_row_keeps_its_total() {
        let mut tables = Tables::default();
        let edges = [edge(4, 1, 7), edge(5, 1, 8)];
        let update = |tables: &mut Tables, now, edges: &[Edge]| {
            // Slot 5 stays in use.
            let mut edges = edges.to_vec();
            for edge in edges.iter_mut().filter(|edge| edge.slot == 5) {
                edge.counters.opened = 1;
            }
            tables.update(now, &edges, 100, |_| labels("a", Source::Process), |_| false)
        };
        assert_eq!(update(&mut tables, 0, &edges).actions, []);
        let forget = update(&mut tables, IDLE_SECONDS, &edges);
        assert_eq!(forget.actions, [Action::Forget(edges[0].key)]);
        let free = update(&mut tables, IDLE_SECONDS + 1, &edges);
        assert_eq!(free.actions, [Action::Free(4)]);
        let after = update(&mut tables, IDLE_SECONDS + 2, &edges[1..]);
        assert_eq!(total(&after), 15);
        assert_eq!(after.exported[CONNECTION], 15);
        // The slot comes back as another edge of the same name.
        let again = update(&mut tables, IDLE_SECONDS + 3, &[edge(4, 9, 2), edges[1].clone()]);
        assert_eq!((total(&again), again.exported[CONNECTION], again.exported[EDGE]), (17, 17, 3));
    }

    #[test]
    fn a_slot_that_moves_after_it_was_forgotten_is_not_freed() {
        let mut tables = Tables::default();
        let update = |tables: &mut Tables, now, ok| {
            tables
                .update(now, &[edge(4, 1, ok)], 100, |_| labels("a", Source::Process), |_| false)
                .actions
        };
        update(&mut tables, 0, 1);
        assert_eq!(update(&mut tables, IDLE_SECONDS, 1).len(), 1);
        assert_eq!(update(&mut tables, IDLE_SECONDS + 5, 2), []);
        assert_eq!(update(&mut tables, IDLE_SECONDS + 6, 2), [Action::Free(4)]);
    }

    proptest! {
        /// However slots come, go and are renamed, no fact is lost or counted twice.
        #[test]
        fn totals_are_conserved(steps in prop::collection::vec((4u32..8, 0u64..100, 0usize..3, any::<bool>()), 1..60)) {
            let mut tables = Tables::default();
            let mut kernel: HashMap<u32, Edge> = HashMap::new();
            let (mut now, mut expected) = (0, 0);
            for (slot, more, name, wait) in steps {
                now += if wait { IDLE_SECONDS } else { 1 };
                let edge = kernel.entry(slot).or_insert_with(|| edge(slot, now + 1, 0));
                edge.counters.connects[0] += more;
                expected += more;
                let edges: Vec<_> = kernel.values().cloned().collect();
                let names = ["a", "b", "c"];
                let updated = tables.update(now, &edges, 100, |_| labels(names[name], Source::Process), |_| false);
                prop_assert_eq!(updated.exported[CONNECTION], expected);
                for action in updated.actions {
                    if let Action::Free(slot) = action {
                        kernel.remove(&slot);
                    }
                }
            }
        }
    }
}
