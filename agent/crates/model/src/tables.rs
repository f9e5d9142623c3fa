//! Rows: turns the kernel's slots into named edges and keeps their totals.
//!
//! A row is one set of names; its total is the sum over what all slots with these names have
//! counted under them, plus what the row keeps of slots that have left it or were given back. A
//! row never goes back while it exists: it is a counter. When a slot is renamed
//! ([`slot`](super::slot) says when), what it has counted
//!
//! * goes with it if the name is a better one and the row ends with it;
//! * else stays where it was told, and only what comes is counted under the new name.
//!
//! Either way nothing is lost or counted twice. Slots that have been still for long are given
//! back in two steps: first new connections no longer find them, and once nothing has moved
//! since, they are cleared and offered again.

use std::sync::Arc;

use agent_common::drained::Edge;
use agent_common::edge::{EdgeCounters, EdgeKey, FIRST_FREE_SLOT, ROLE_LISTENER};
use agent_common::ledger::{CLASSES, CONNECTION, EDGE, REQUEST, RESET};
use agent_common::slot_table::Reclaim;
use agent_common::wire::Wire as _;
use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

use super::per_slot::PerSlot;
use super::service::Service;
use super::slot::{Move, Naming, Slot, Told};
use super::snapshot::{EdgeLabels, EdgeView, Role};

/// A slot that has been still for so long is given back, seconds.
pub const IDLE_SECONDS: u64 = 3600;
/// The same when the table is nearly full.
pub const IDLE_SECONDS_UNDER_PRESSURE: u64 = 300;
/// Nearly full: more than this share of the slots is taken.
const PRESSURE: f64 = 0.75;
/// Rows that keep what slots have left there; beyond it goes to the row `other`.
pub const MAX_KEPT: usize = 1024;

/// All rows.
#[derive(Default)]
pub struct Tables {
    slots: PerSlot<Slot>,
    kept: HashMap<RowName, Kept>,
    /// What slots that were given back had counted, over everything, for the ledger.
    retired_exported: [u64; CLASSES],
}

/// What a row keeps of slots that no longer bear its name.
struct Kept {
    labels: Arc<EdgeLabels>,
    counters: Arc<EdgeCounters>,
    /// Since when nothing has been added and no slot bears the name.
    since: u64,
}

/// What an update yields.
pub struct Updated {
    /// Rows, sorted by their labels.
    pub edges: Vec<EdgeView>,
    /// What to do with slots.
    pub reclaim: Vec<Reclaim<EdgeKey>>,
    /// Facts found in the tables so far, by class of the ledger.
    pub exported: [u64; CLASSES],
}

impl Tables {
    /// Takes in the kernel's edges at `now` (seconds, any epoch). `name` names an edge;
    /// `capacity` is how many slots there are; `is_listening` tells whether a listener's row is
    /// still in use.
    pub fn update<N: Into<Naming>>(
        &mut self,
        now: u64,
        edges: &[Edge],
        capacity: u64,
        mut name: impl FnMut(&Edge) -> N,
        is_listening: impl Fn(&EdgeKey) -> bool,
    ) -> Updated {
        let pressed = edges.len() as f64 > capacity as f64 * PRESSURE;
        let patience = if pressed { IDLE_SECONDS_UNDER_PRESSURE } else { IDLE_SECONDS };
        let mut reclaim = Vec::new();
        let mut moves = Vec::new();
        let mut freed = Vec::new();
        for edge in edges {
            let naming = name(edge).into();
            let known = self.slots.get_mut(edge.slot).filter(|slot| slot.born_us == edge.born_us);
            let slot = if let Some(slot) = known {
                let moved = slot.update(edge, naming, now);
                moves.extend(moved.map(|moved| (edge.slot, moved)));
                slot
            } else {
                self.retired_exported[EDGE] += u64::from(edge.slot >= FIRST_FREE_SLOT);
                self.slots.insert(edge.slot, Slot::new(edge, naming, now))
            };
            let in_use = edge.slot < FIRST_FREE_SLOT
                || edge.counters.active() > 0
                || (edge.key.role == ROLE_LISTENER && is_listening(&edge.key));
            if in_use {
                slot.still_since = now;
            } else if slot.forgotten && slot.still_since < now {
                reclaim.push(Reclaim::Free(edge.slot));
                freed.push(edge);
            } else if !slot.forgotten && now.saturating_sub(slot.still_since) >= patience {
                slot.forgotten = true;
                reclaim.push(Reclaim::Forget(edge.key));
            }
        }
        self.settle(moves, now);
        let rows = self.rows();
        let exported = self.exported(edges);
        for edge in freed {
            self.retire(edge, now);
        }
        Updated { edges: rows, reclaim, exported }
    }

    /// The labels of a slot.
    pub fn labels(&self, slot: u32) -> Option<&EdgeLabels> {
        self.slots.get(slot).map(|slot| slot.labels.as_ref())
    }

    /// What a slot has told.
    pub fn told(&self, slot: u32) -> Option<Told<'_>> {
        self.slots.get(slot).map(Slot::told)
    }

    /// Decides what of renamed slots stays behind, and ends rows that nobody has borne for long.
    fn settle(&mut self, moves: Vec<(u32, Move)>, now: u64) {
        if moves.is_empty() && self.kept.is_empty() {
            return;
        }
        let borne: HashSet<RowName> =
            self.slots.values().map(|slot| RowName::of(&slot.labels)).collect();
        for (slot, Move { from, is_another, told }) in moves {
            let name = RowName::of(&from);
            let Some(slot) = self.slots.get_mut(slot) else { continue };
            if is_another || borne.contains(&name) {
                let stays = slot.leave(&told);
                keep(&mut self.kept, from, &stays, now);
            } else if let Some(kept) = self.kept.remove(&name) {
                // The row has ended; what it kept goes where its last slot went.
                keep(&mut self.kept, slot.labels.clone(), &kept.counters, now);
            }
        }
        self.kept.retain(|name, kept| {
            if borne.contains(name) {
                kept.since = now;
            }
            now.saturating_sub(kept.since) < IDLE_SECONDS
        });
    }

    /// One row per set of names, however they were found; it shows the surest way.
    fn rows(&self) -> Vec<EdgeView> {
        let slots = self.slots.values().map(|slot| (&slot.labels, slot.contribution()));
        let kept = self.kept.values().map(|kept| (&kept.labels, kept.counters.clone()));
        let mut rows: HashMap<Names<'_>, (Arc<EdgeLabels>, Arc<EdgeCounters>)> =
            HashMap::with_capacity(self.slots.len());
        for (labels, counters) in slots.chain(kept) {
            let shown = match rows.entry(names(labels)) {
                // Most rows have one slot, and share its counters.
                Entry::Vacant(row) => &mut row.insert((labels.clone(), counters)).0,
                Entry::Occupied(row) => {
                    let (shown, total) = row.into_mut();
                    Arc::make_mut(total).merge(&counters);
                    shown
                }
            };
            if (labels.client.source, labels.server.source)
                < (shown.client.source, shown.server.source)
            {
                *shown = labels.clone();
            }
        }
        let mut views: Vec<_> = rows
            .into_values()
            .filter(|(_, counters)| **counters != EdgeCounters::zeroed())
            .map(|(labels, counters)| EdgeView { labels, counters })
            .collect();
        views.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        views
    }

    /// What was found in the kernel's tables, whether it has been told under a name yet or not.
    fn exported(&self, edges: &[Edge]) -> [u64; CLASSES] {
        let mut exported = self.retired_exported;
        for edge in edges {
            add_facts(&mut exported, &edge.counters);
        }
        exported
    }

    /// A slot is given back: its row keeps the totals as long as it has another slot.
    fn retire(&mut self, edge: &Edge, now: u64) {
        let Some(slot) = self.slots.remove(edge.slot) else { return };
        add_facts(&mut self.retired_exported, &edge.counters);
        let borne = self.slots.values().any(|other| names(&other.labels) == names(&slot.labels));
        if borne {
            let counters = slot.contribution();
            keep(&mut self.kept, slot.labels, &counters, now);
        } else {
            self.kept.remove(&RowName::of(&slot.labels));
        }
    }
}

/// Adds to what a row keeps; without room for another row, to `other`.
fn keep(
    kept: &mut HashMap<RowName, Kept>,
    labels: Arc<EdgeLabels>,
    counters: &EdgeCounters,
    now: u64,
) {
    if *counters == EdgeCounters::zeroed() {
        return;
    }
    let mut name = RowName::of(&labels);
    let mut labels = labels;
    if kept.len() >= MAX_KEPT && !kept.contains_key(&name) {
        labels = Arc::new(EdgeLabels::other(labels.role));
        name = RowName::of(&labels);
    }
    let row =
        kept.entry(name).or_insert_with(|| Kept { labels, counters: Arc::default(), since: now });
    Arc::make_mut(&mut row.counters).merge(counters);
    row.since = now;
}

/// What tells one row from another.
type Names<'a> = (&'a str, &'a str, &'a str, &'a str, u16, Role);

fn names(labels: &EdgeLabels) -> Names<'_> {
    let EdgeLabels { client, server, port, role, asked: _ } = labels;
    (&client.name, &client.namespace, &server.name, &server.namespace, *port, *role)
}

/// As [`Names`], to be kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RowName {
    client: (Arc<str>, Arc<str>),
    server: (Arc<str>, Arc<str>),
    port: u16,
    role: Role,
}

impl RowName {
    fn of(labels: &EdgeLabels) -> Self {
        let EdgeLabels { client, server, port, role, asked: _ } = labels;
        let name = |service: &Service| (service.name.clone(), service.namespace.clone());
        Self { client: name(client), server: name(server), port: *port, role: *role }
    }
}

fn add_facts(exported: &mut [u64; CLASSES], counters: &EdgeCounters) {
    let sum = |values: &[u64]| values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value));
    exported[CONNECTION] += sum(&counters.connects);
    exported[REQUEST] += counters.request.count();
    exported[RESET] += sum(&counters.resets_sent) + sum(&counters.resets_received);
}

#[cfg(test)]
mod tests;
