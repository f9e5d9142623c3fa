//! The rule for renames: what happens to counts when the name under which they were counted
//! changes.
//!
//! Every edge counts under one name at a time, and edges with the same name share a row. When an
//! edge is renamed, the counts so far
//!
//! * stay if an end is now another service, its own or that of another edge that leaves the row at
//!   the same time: they belong to the former service;
//! * stay if other edges have the old name, so that no counter decreases;
//! * stay in the overflow row, which has counts of many edges;
//! * move if the name is only a better one and no other edge has the old one: the row is the same
//!   under a better name.
//!
//! All renames of a collection happen at once, so their order does not matter. Nothing is lost or
//! counted twice. A row outlives its last edge by [`ENDED_SECONDS`], so that what it counted last is
//! read, and goes on if an edge gets its name meanwhile; a row whose last edge went to another
//! service stays for an hour, because its counts are in no other row.

use std::collections::VecDeque;
use std::hash::Hash;

use hashbrown::{HashMap, HashSet};

use super::delta::EdgeId;
use super::hashed::HashedMap;
use super::per_slot::PerSlot;
use super::reclaim::IDLE_SECONDS;

/// So long a row outlives its last edge, seconds. With the time for which the edge was idle
/// ([`super::reclaim`]) that is more than the time between two scrapes.
pub(crate) const ENDED_SECONDS: u64 = 16;
/// So many rows outlive their last edge; beyond that the oldest go into the overflow row at once. In a
/// full table none does.
const MAX_ENDED: usize = 16_384;

/// A name that can stand for those that found no row.
pub(crate) trait Name: Clone + Eq + Hash {
    /// The name of the overflow row for this name.
    fn other(&self) -> Self;
}

/// The value counted under a name.
pub(crate) trait Counts: Default {
    /// The growth of an edge.
    type Growth;
    /// What an edge remembers of its parts in rows that it has left.
    type Left: Default;

    /// Adds the growth of an edge.
    fn grow(&mut self, growth: Self::Growth);

    /// Adds a row whose edges have this name now.
    fn merge(&mut self, other: Self);

    /// Subtracts the part of an edge that leaves the row. `None`: the edge has none, or it is
    /// unknown; then it moves only with the whole row.
    fn split(&mut self, _: &Self::Growth, _: &mut Self::Left, _: Share) -> Option<Self> {
        None
    }
}

/// The part of a row that moves with an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// All that it has counted there.
    Own,
    /// The part that always moves with the edge: open connections.
    Open,
}

/// An edge, its current name, and its growth since the last collection.
#[derive(Clone, Debug)]
pub(crate) struct Counted<K, G> {
    /// Which edge.
    pub edge: EdgeId,
    /// Its name.
    pub name: K,
    /// If the name is new: whether it is another service's, and not only a better name.
    pub is_another: bool,
    /// The growth under this name.
    pub growth: G,
}

/// Rows by name, and which edges feed them.
pub(crate) struct Attributed<K, V: Counts> {
    rows: HashedMap<K, Row<V>>,
    edges: PerSlot<Edge<K, V::Left>>,
    /// Rows whose last edge ended, and when that was, the oldest first. Some have an edge again.
    ended: VecDeque<(u64, K)>,
    capacity: usize,
    max_abandoned: usize,
    folded: u64,
}

#[derive(Default)]
struct Row<V> {
    value: V,
    edges: u32,
    /// Why and since when no edge has had it, seconds.
    alone: Option<Alone>,
}

/// Why a row has no edge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alone {
    /// The last one has another service's name now.
    Abandoned(u64),
    /// The last one ended.
    Ended(u64),
}

struct Edge<K, L> {
    /// Its name.
    wanted: K,
    /// The name under which it counts, if there was no room for its own.
    given: Option<K>,
    left: L,
}

/// Edges that leave a row in one drain.
#[derive(Default)]
struct Leaving {
    /// How many there are.
    edges: u32,
    /// Whether an end of an edge is now another service.
    another: bool,
}

// === impl Attributed ===

impl<K: Name, V: Counts> Attributed<K, V> {
    /// An empty table of at most `capacity` rows, at most `max_abandoned` of them without an edge.
    /// Further names are counted under [`Name::other`].
    pub fn new(capacity: usize, max_abandoned: usize) -> Self {
        let (rows, edges) = (HashedMap::default(), PerSlot::default());
        Self { rows, edges, ended: VecDeque::new(), capacity, max_abandoned, folded: 0 }
    }

    /// Applies a collection at `now` (seconds, any epoch that only grows): edges that are gone, and
    /// those that have grown or were renamed. Returns whether rows were added, removed or changed
    /// their edges.
    pub fn update(
        &mut self,
        now: u64,
        closed: &[EdgeId],
        counted: impl IntoIterator<Item = Counted<K, V::Growth>>,
    ) -> bool {
        let rows = self.rows.len();
        self.rows.retain(|row| match row.alone {
            Some(Alone::Abandoned(since)) => now.saturating_sub(since) < IDLE_SECONDS,
            _ => true,
        });
        if self.rows.len() >= self.capacity {
            self.end_before(now);
        }
        let mut changed = self.rows.len() != rows;
        for edge in closed {
            changed |= self.release(now, *edge);
        }
        let mut renamed = Vec::new();
        for counted in counted {
            match self.edges.get(counted.edge.0) {
                Some(edge) if edge.wanted != counted.name => renamed.push(counted),
                Some(_) => self.grow(counted.edge, counted.growth),
                None => {
                    changed = true;
                    self.join(counted.edge, counted.name, 0);
                    self.grow(counted.edge, counted.growth);
                }
            }
        }
        changed |= !renamed.is_empty();
        self.rename(now, renamed);
        // Last: a row whose name was given again goes on.
        let rows = self.rows.len();
        self.end_before((now + 1).saturating_sub(ENDED_SECONDS));
        changed || self.rows.len() != rows
    }

    /// Every row.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter().map(|(name, row)| (name, &row.value))
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many edges, over time, found no row of their own.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    fn grow(&mut self, edge: EdgeId, growth: V::Growth) {
        let Some(edge) = self.edges.get(edge.0) else { return };
        if let Some(row) = self.rows.get_mut(edge.name()) {
            row.value.grow(growth);
        }
    }

    fn rename(&mut self, now: u64, renamed: Vec<Counted<K, V::Growth>>) {
        if renamed.is_empty() {
            return;
        }
        // All edges leave and join their rows before counts move: only then it is known which rows
        // end.
        let mut leaving: HashMap<K, Leaving> = HashMap::new();
        let mut moves = Vec::with_capacity(renamed.len());
        for counted in renamed {
            let Some(edge) = self.edges.remove(counted.edge.0) else { continue };
            // The overflow row has counts of many edges: none of them moves with one edge.
            let is_other = edge.given.is_some();
            let from = edge.given.unwrap_or(edge.wanted);
            if let Some(row) = self.rows.get_mut(&from) {
                row.edges -= 1;
            }
            let leaving = leaving.entry(from.clone()).or_default();
            leaving.edges += 1;
            leaving.another |= counted.is_another || is_other;
            moves.push((counted, from, edge.left));
        }
        // A row that an edge joins in this collection does not end, even if all others leave it.
        let wanted: HashSet<&K> = moves.iter().map(|(counted, ..)| &counted.name).collect();
        let is_ending = |(name, leaving): &(&K, &Leaving)| {
            !leaving.another
                && !wanted.contains(*name)
                && self.rows.get(*name).is_some_and(|row| row.edges == 0)
        };
        let ending = leaving.iter().filter(is_ending).count();
        drop(wanted);
        for (counted, ..) in &moves {
            self.join(counted.edge, counted.name.clone(), ending);
        }
        for (counted, from, mut left) in moves {
            let Some(leaving) = leaving.get_mut(&from) else { continue };
            let along = self.take_along(&counted, &from, &mut left, leaving);
            let Some(edge) = self.edges.get_mut(counted.edge.0) else { continue };
            edge.left = left;
            if let Some(row) = self.rows.get_mut(edge.name()) {
                if let Some(along) = along {
                    row.value.merge(along);
                }
                row.value.grow(counted.growth);
            }
        }
        for name in leaving.keys() {
            self.abandon_if_empty(now, name);
        }
    }

    /// The part that moves with an edge from the row `from`, after all edges that leave it in this
    /// collection have left.
    fn take_along(
        &mut self,
        counted: &Counted<K, V::Growth>,
        from: &K,
        left: &mut V::Left,
        leaving: &mut Leaving,
    ) -> Option<V> {
        leaving.edges -= 1;
        let row = self.rows.get_mut(from)?;
        if leaving.another || row.edges > 0 {
            return row.value.split(&counted.growth, left, Share::Open);
        }
        if leaving.edges > 0 {
            return row.value.split(&counted.growth, left, Share::Own);
        }
        // The last edge also takes the parts that others have left there.
        self.rows.remove(from).map(|row| row.value)
    }

    /// An edge counts under this name from now on. `ending`: rows that free a place in this
    /// collection.
    fn join(&mut self, edge: EdgeId, wanted: K, ending: usize) {
        let has_row = self.rows.contains_key(&wanted);
        let is_full = !has_row && self.rows.len() >= self.capacity.saturating_add(ending);
        self.folded += u64::from(is_full);
        let given = is_full.then(|| wanted.other());
        let edge = self.edges.insert(edge.0, Edge { wanted, given, left: V::Left::default() });
        let row = self.rows.or_default(edge.name().clone());
        row.edges += 1;
        row.alone = None;
    }

    /// A row without an edge stays for a while; if there are too many, in the overflow row.
    fn abandon_if_empty(&mut self, now: u64, name: &K) {
        match self.rows.get_mut(name) {
            Some(row) if row.edges == 0 => row.alone = Some(Alone::Abandoned(now)),
            _ => return,
        }
        let is_abandoned = |row: &&Row<V>| matches!(row.alone, Some(Alone::Abandoned(_)));
        let abandoned = self.rows.values().filter(is_abandoned).count();
        if abandoned > self.max_abandoned {
            self.fold(now, name);
        }
    }

    /// A row's counts go into the overflow row.
    fn fold(&mut self, now: u64, name: &K) {
        let other = name.other();
        if *name == other {
            return;
        }
        if let Some(row) = self.rows.remove(name) {
            let other = self.rows.or_default(other);
            if other.edges == 0 {
                other.alone = Some(Alone::Abandoned(now));
            }
            other.value.merge(row.value);
        }
    }

    /// Removes rows whose last edge ended before this time.
    fn end_before(&mut self, before: u64) {
        while let Some((since, name)) = self.ended.pop_front_if(|(since, _)| *since < before) {
            if self.has_ended(&name, since) {
                self.rows.remove(&name);
            }
        }
    }

    fn has_ended(&self, name: &K, since: u64) -> bool {
        self.rows.get(name).is_some_and(|row| row.alone == Some(Alone::Ended(since)))
    }

    /// The edge is gone; its row keeps its counts while another edge has the name, and for a while.
    fn release(&mut self, now: u64, edge: EdgeId) -> bool {
        let Some(edge) = self.edges.remove(edge.0) else { return false };
        let name = edge.given.unwrap_or(edge.wanted);
        if let Some(row) = self.rows.get_mut(&name) {
            row.edges -= 1;
            if row.edges > 0 {
                return true;
            }
            row.alone = Some(Alone::Ended(now));
            if self.rows.len() >= self.capacity {
                self.rows.remove(&name);
                return true;
            }
            self.ended.push_back((now, name));
            if self.ended.len() > MAX_ENDED
                && let Some((since, name)) = self.ended.pop_front()
                && self.has_ended(&name, since)
            {
                self.fold(now, &name);
            }
        }
        true
    }
}

// === impl Edge ===

impl<K, L> Edge<K, L> {
    fn name(&self) -> &K {
        self.given.as_ref().unwrap_or(&self.wanted)
    }
}

#[cfg(test)]
mod tests;
