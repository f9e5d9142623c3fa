//! The stage right after the drain: what each edge did since the last one, under its name.
//!
//! Everything behind it takes [`Delta`]s with names and never sees a slot of the kernel's table:
//! that slots are used again, that counters are totals, that names come late and that the two sides
//! of a connection count it twice is decided here. An edge that did nothing and is called as before
//! has no delta and costs no allocation.
//!
//! Counts that the kernel's tables do not hold in full are [completed](super::completed) before.

use std::sync::Arc;

use agent_common::address::{self, Address};
use agent_common::counters::EdgeCounters;
use agent_common::drained::{Edge, Table};
use agent_common::edge::{EdgeKey, ROLE_SERVER};
use agent_common::ledger::{
    CLASSES, CONNECTION, DNS_LOOKUP, EDGE, OPERATION, REQUEST, RESET, RESPONSE,
};
use agent_common::response;
use agent_common::slot_table::Reclaim;

use super::deduplication::Deduplication;
use super::per_slot::{PerSlot, number};
use super::reclaim::Room;
use super::slot::{Naming, News, Slot};
use super::snapshot::EdgeLabels;

/// Tells edges apart. A number is used again only after its edge was reported as closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeId(pub(crate) u32);

/// An edge that is new, has counted something or is called otherwise.
#[derive(Clone, Debug)]
pub struct Delta {
    /// Which edge.
    pub id: EdgeId,
    /// The table of the kernel half that counts it.
    pub table: Table,
    /// Its key in the kernel; of those that found no row of their own only the role.
    pub key: EdgeKey,
    /// The local address of its first connection.
    pub local: Address,
    /// The remote address of its first connection.
    pub remote: Address,
    /// `ROLE_*`: which side counts.
    pub role: u8,
    /// Whether it stands for all edges of its role that found no row of their own.
    pub is_overflow: bool,
    /// When it was met first, CLOCK_MONOTONIC microseconds; 0 if it stands for many.
    pub born_us: u64,
    /// What it is called now; what has grown belongs to this name.
    pub labels: Arc<EdgeLabels>,
    /// Whether it is new.
    pub is_new: bool,
    /// If it is called otherwise than before: how it was, and what that means.
    pub renamed: Option<Renamed>,
    /// What it has counted.
    pub grown: Growth,
    /// Whether its connections are counted by this side, and not by the other one on this host.
    pub counts: bool,
    /// Whether its connections are evaluated by this side. Unknown in the first drain that shows a
    /// connection of it, as the other side's edge may still be missing.
    pub evaluates: Option<bool>,
}

/// An edge is called otherwise.
#[derive(Clone, Debug)]
pub struct Renamed {
    /// Its labels until now.
    pub from: Arc<EdgeLabels>,
    /// Whether another service took the place of an end: what was counted until now is not its own.
    pub is_another: bool,
}

/// Totals of an edge at the last drain and at this one; the same values as long as nothing has
/// grown, and none before anything was counted.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// Before.
    pub before: Option<Arc<EdgeCounters>>,
    /// Now.
    pub now: Option<Arc<EdgeCounters>>,
}

impl Delta {
    /// The owner whose doing it is, as far as one of this host is: the client, else the server.
    pub fn actor(&self) -> u32 {
        let client = address::owner_of(&self.key.remote).filter(|_| self.key.role == ROLE_SERVER);
        client.unwrap_or(self.key.owner)
    }
}

/// What the stage makes of a drain.
#[derive(Debug, Default)]
pub struct Deltas {
    /// Edges that are gone: they come before the others, because their numbers may be used again.
    pub closed: Vec<EdgeId>,
    /// Edges with news.
    pub edges: Vec<Delta>,
    /// What to do with slots of the table of edges.
    pub reclaim: Vec<Reclaim<EdgeKey>>,
    /// Facts found in the kernel's table so far, by class of the ledger, whether they have been
    /// reported under a name yet or not.
    pub exported: [u64; CLASSES],
}

/// What each slot had at the last drain.
#[derive(Default)]
pub struct Stage {
    slots: PerSlot<Slot>,
    deduplication: Deduplication,
    own: Vec<Address>,
    own_changed: bool,
    round: u64,
    exported: [u64; CLASSES],
}

// === impl Stage ===

impl Stage {
    /// Addresses of this host.
    pub fn set_addresses(&mut self, own: impl IntoIterator<Item = Address>) {
        self.own = own.into_iter().collect();
        self.own_changed = true;
    }

    /// Takes in the kernel's edges at `now` (seconds, any epoch). `name` names an edge;
    /// `room` is that of the table of edges.
    pub fn take<N: Into<Naming>>(
        &mut self,
        now: u64,
        edges: &[Edge],
        room: Room<'_>,
        mut name: impl FnMut(&Edge) -> N,
    ) -> Deltas {
        self.round += 1;
        let in_table = edges.iter().filter(|edge| edge.table == Table::Edges);
        let in_table: Vec<_> = in_table.map(|edge| room.tenant(edge)).collect();
        let patience = room.patience(in_table.into_iter());
        let mut deltas = Deltas::default();
        let mut news = Vec::new();
        let mut is_other_set = std::mem::take(&mut self.own_changed);
        for (at, edge) in edges.iter().enumerate() {
            let naming = name(edge).into();
            let id = EdgeId::of(edge);
            let before = self.slots.get(id.0).map(|slot| slot.born_us);
            if before.is_some_and(|born_us| born_us != edge.born_us) {
                deltas.closed.push(id);
                self.slots.remove(id.0);
            }
            let mut has_grown = true;
            let slot = if let Some(slot) = self.slots.get_mut(id.0) {
                let before = slot.count(edge);
                has_grown = before.is_some();
                if let Some(before) = before {
                    add_facts(&mut self.exported, Some(&before), &edge.counters);
                }
                news.extend(slot.update(naming, now).map(|news| (at, news)));
                slot
            } else {
                is_other_set = true;
                self.exported[EDGE] += u64::from(!edge.is_reserved());
                add_facts(&mut self.exported, None, &edge.counters);
                let slot = Slot::new(edge, naming, now);
                news.push((at, News { is_new: true, ..News::default() }));
                self.slots.insert(id.0, slot)
            };
            slot.round = self.round;
            if edge.table != Table::Edges {
                continue;
            }
            // What still waits for a name is reported before the slot is free.
            let waits = slot.moved && slot.lifecycle.is_forgotten();
            let in_use = has_grown
                || waits
                || edge.is_reserved()
                || edge.counters.active() > 0
                || room.is_connecting(edge.slot);
            let step = slot.lifecycle.observe(
                now,
                patience.with(room.tenant(edge)),
                in_use,
                edge.slot,
                edge.key,
            );
            deltas.reclaim.extend(step);
        }
        if self.slots.len() > edges.len() {
            let round = self.round;
            self.slots.retain(|slot, known| {
                if known.round != round {
                    deltas.closed.push(EdgeId(slot));
                }
                known.round == round
            });
            is_other_set = true;
        }
        if is_other_set {
            let is_users = |edge: &Edge| room.tenant(edge).is_users();
            self.deduplication = Deduplication::new(edges, self.own.iter().copied(), is_users);
        }
        let mut news = news.into_iter().peekable();
        for (at, edge) in edges.iter().enumerate() {
            let news = news.next_if(|(of, _)| *of == at).map(|(_, news)| news);
            let Some(slot) = self.slots.get_mut(EdgeId::of(edge).0) else { continue };
            let other_side = slot.choose_side(edge, &self.deduplication, is_other_set);
            if news.is_some() || other_side {
                deltas.edges.push(slot.delta(edge, news));
            }
        }
        deltas.exported = self.exported;
        deltas
    }

    /// The labels of a slot, for code that has its number from the kernel.
    pub fn labels(&self, table: Table, slot: u32) -> Option<&EdgeLabels> {
        self.slots.get(number(table, slot)).map(|slot| slot.labels.as_ref())
    }
}

// === impl EdgeId ===

impl EdgeId {
    pub(super) fn of(edge: &Edge) -> Self {
        Self(number(edge.table, edge.slot))
    }
}

// === impl Delta ===

impl Delta {
    /// Whether another service took the place of an end.
    pub fn is_another(&self) -> bool {
        self.renamed.as_ref().is_some_and(|renamed| renamed.is_another)
    }

    /// Connections so far, under whichever names.
    pub fn opened(&self) -> u64 {
        self.grown.now.as_ref().map_or(0, |now| now.opened)
    }
}

// === impl Growth ===

impl Growth {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        match (&self.before, &self.now) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (_, now) => now.is_none(),
        }
    }

    /// The difference.
    pub fn difference(&self) -> EdgeCounters {
        let mut difference = self.now.as_deref().cloned().unwrap_or_default();
        if let Some(before) = &self.before {
            difference.separate(before);
        }
        difference
    }
}

/// Adds what `now` has and `before` had not. Totals wrap as the kernel's do.
fn add_facts(exported: &mut [u64; CLASSES], before: Option<&EdgeCounters>, now: &EdgeCounters) {
    let sum = |values: &[u64]| values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value));
    let facts = |counters: &EdgeCounters| {
        [
            (CONNECTION, sum(&counters.connects)),
            (REQUEST, counters.request.count()),
            (RESET, sum(&counters.resets_sent).wrapping_add(sum(&counters.resets_received))),
            (RESPONSE, response::looked_at(&counters.responses)),
            (DNS_LOOKUP, counters.looked_up()),
            (OPERATION, counters.operations.total()),
        ]
    };
    let had = before.map_or_else(|| facts(&EdgeCounters::ZERO), facts);
    for ((class, now), (_, had)) in facts(now).into_iter().zip(had) {
        exported[class] = exported[class].wrapping_add(now.wrapping_sub(had));
    }
}

#[cfg(test)]
mod tests;
