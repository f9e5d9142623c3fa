//! What the kernel half counted of connections, with what is found out later: failures while a server
//! stopped go to a result and cause of their own, idle connections that it closed then have no idle
//! time, and ends and starts of connections that no program saw are made up for.
//!
//! Each collection compares the totals of a slot with those before. What was moved or added stays so
//! for the life of the slot, so totals that are shown never go back; only the number of open
//! connections is what the sockets say.

use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::drained::{Edge, Table};
use agent_common::edge::{CONNECT_REFUSED, CONNECT_RESET, CONNECT_STOPPING};
use agent_common::on_demand::OnDemand;
use agent_common::reset::{CAUSES, STOPPING, is_of_connection};

use super::per_slot::{PerSlot, number};

/// So many socket iterations in a row must have met the same connections of an edge at rest, before
/// they are believed instead of the hooks.
const AGREEING: u8 = 3;

/// The corrections of all slots.
#[derive(Default)]
pub struct Corrections {
    slots: PerSlot<Slot>,
    round: u64,
}

struct Slot {
    born_us: u64,
    /// As the kernel half had it at the last collection.
    counted: Arc<EdgeCounters>,
    correction: Option<Box<Correction>>,
    met: Met,
    round: u64,
}

/// How many open connections the last iterations have met, while no start and no end was counted.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Met {
    open: u64,
    times: u8,
}

/// What is different from what the kernel half counted.
#[derive(Default)]
struct Correction {
    /// Failures that were moved, where they had been counted.
    stopping: Failures,
    /// Idle times of connections that the server closed because it stopped, milliseconds: those are no
    /// timeout.
    cut_idle_ms: OnDemand,
    /// Starts and ends of connections that no program saw.
    opened: u64,
    closed: u64,
    corrected: Option<Arc<EdgeCounters>>,
}

/// Failures that a server may leave behind when it stops.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Failures {
    refused: u64,
    reset: u64,
    resets_sent: [u64; CAUSES],
    resets_received: [u64; CAUSES],
    unanswered: u64,
}

// === impl Corrections ===

impl Corrections {
    /// Corrects the edges of a drain. `open` are the connections that the socket iteration met, by
    /// slot and sorted; `None` without an iteration. Failures of edges for which `is_stopping` holds
    /// are those of a server that stops.
    pub fn apply(
        &mut self,
        edges: &mut [Edge],
        open: Option<&[(u32, u64)]>,
        is_stopping: impl Fn(&Edge) -> bool,
    ) {
        self.round += 1;
        let round = self.round;
        for edge in edges.iter_mut().filter(|edge| edge.table == Table::Edges) {
            let at = number(edge.table, edge.slot);
            if self.slots.get(at).is_some_and(|slot| slot.born_us != edge.born_us) {
                self.slots.remove(at);
            }
            let slot = self.slots.get_or_insert_with(at, || Slot::new(edge.born_us));
            slot.round = round;
            let of = |counters: &EdgeCounters| (counters.opened, counters.closed);
            let is_at_rest = of(&slot.counted) == of(&edge.counters);
            if !Arc::ptr_eq(&slot.counted, &edge.counters) {
                if is_stopping(edge) {
                    slot.stops(&edge.counters);
                }
                slot.counted = Arc::clone(&edge.counters);
                if let Some(correction) = &mut slot.correction {
                    correction.corrected = None;
                }
            }
            if let Some(open) = open {
                let met = open.binary_search_by_key(&edge.slot, |(slot, _)| *slot);
                let met = met.ok().and_then(|at| open.get(at)).map_or(0, |(_, open)| *open);
                slot.meets(met, is_at_rest);
            }
            if let Some(correction) = &mut slot.correction {
                edge.counters = correction.of(&slot.counted);
            }
        }
        if self.slots.len() > edges.len() {
            self.slots.retain(|_, slot| slot.round == round);
        }
    }
}

// === impl Slot ===

impl Slot {
    fn new(born_us: u64) -> Self {
        Self { born_us, counted: Arc::default(), correction: None, met: Met::default(), round: 0 }
    }

    /// Moves the failures that `now` has and that were not counted before, and takes away such idle
    /// times.
    fn stops(&mut self, now: &EdgeCounters) {
        let mut cut_idle_ms = now.idle_closed_by_server_ms.clone();
        cut_idle_ms.separate(&self.counted.idle_closed_by_server_ms);
        if cut_idle_ms.count() > 0 {
            self.correction.get_or_insert_default().cut_idle_ms.merge(&cut_idle_ms);
        }
        let grown = Failures::of(now).since(&Failures::of(&self.counted));
        if grown != Failures::default() {
            self.correction.get_or_insert_default().stopping.add(&grown);
        }
    }

    /// The iteration met so many open connections; `is_at_rest`: no start or end of a connection was
    /// counted since the last collection, which had read the counters after its own iteration. So if
    /// none was skipped, so many are open.
    fn meets(&mut self, open: u64, is_at_rest: bool) {
        let Met { open: before, times } = &mut self.met;
        if !is_at_rest || *before != open {
            (*before, *times) = (open, 0);
        }
        if !is_at_rest {
            return;
        }
        *times = times.saturating_add(1).min(AGREEING);
        if *times < AGREEING {
            return;
        }
        let EdgeCounters { opened, closed, .. } = *self.counted;
        // More may have ended than was seen to start.
        let needed = open.saturating_add(closed);
        let (opened, closed) = (needed.saturating_sub(opened), opened.saturating_sub(needed));
        let known = self.correction.as_ref().map_or((0, 0), |known| (known.opened, known.closed));
        if known != (opened, closed) {
            let correction = self.correction.get_or_insert_default();
            (correction.opened, correction.closed) = (opened, closed);
            correction.corrected = None;
        }
    }
}

// === impl Correction ===

impl Correction {
    /// Counters with this correction.
    fn of(&mut self, counted: &EdgeCounters) -> Arc<EdgeCounters> {
        let Self { stopping, cut_idle_ms, opened, closed, corrected } = self;
        let make = || {
            let mut counters = counted.clone();
            counters.opened = counters.opened.wrapping_add(*opened);
            counters.closed = counters.closed.wrapping_add(*closed);
            stopping.move_in(&mut counters);
            counters.idle_closed_by_server_ms.separate(cut_idle_ms);
            Arc::new(counters)
        };
        Arc::clone(corrected.get_or_insert_with(make))
    }
}

// === impl Failures ===

impl Failures {
    fn of(counters: &EdgeCounters) -> Self {
        let connects =
            |result: u8| counters.connects.get(usize::from(result)).copied().unwrap_or_default();
        Self {
            refused: connects(CONNECT_REFUSED),
            reset: connects(CONNECT_RESET),
            resets_sent: of_connections(&counters.resets_sent),
            resets_received: of_connections(&counters.resets_received),
            unanswered: counters.unanswered,
        }
    }

    /// What these have, and `before` had not.
    fn since(mut self, before: &Self) -> Self {
        for (now, before) in self.values().into_iter().zip(before.clone().values()) {
            *now = now.saturating_sub(*before);
        }
        self
    }

    fn add(&mut self, other: &Self) {
        for (mine, others) in self.values().into_iter().zip(other.clone().values()) {
            *mine = mine.saturating_add(*others);
        }
    }

    fn values(&mut self) -> Vec<&mut u64> {
        let Self { refused, reset, resets_sent, resets_received, unanswered } = self;
        [refused, reset, unanswered].into_iter().chain(resets_sent).chain(resets_received).collect()
    }

    /// Moves these in totals that have them.
    fn move_in(&self, counters: &mut EdgeCounters) {
        let Self { refused, reset, resets_sent, resets_received, unanswered } = self;
        move_within(
            &mut counters.connects,
            [(CONNECT_REFUSED, *refused), (CONNECT_RESET, *reset)],
            CONNECT_STOPPING,
        );
        for (all, moved) in [
            (&mut counters.resets_sent, resets_sent),
            (&mut counters.resets_received, resets_received),
        ] {
            move_within(all, (0..).zip(*moved), STOPPING);
        }
        counters.unanswered = counters.unanswered.wrapping_sub(*unanswered);
        counters.unanswered_stopping = counters.unanswered_stopping.wrapping_add(*unanswered);
    }
}

/// Resets of connections, by cause.
fn of_connections(resets: &[u64; CAUSES]) -> [u64; CAUSES] {
    let mut of = *resets;
    for (cause, count) in of.iter_mut().enumerate() {
        if !is_of_connection(cause) {
            *count = 0;
        }
    }
    of
}

/// Takes counts from where they are, and adds them to `to`.
fn move_within(counts: &mut [u64], moved: impl IntoIterator<Item = (u8, u64)>, to: u8) {
    for (from, count) in moved {
        if let Some(from) = counts.get_mut(usize::from(from)) {
            *from = from.wrapping_sub(count);
        }
        if let Some(to) = counts.get_mut(usize::from(to)) {
            *to = to.wrapping_add(count);
        }
    }
}

#[cfg(test)]
mod tests;
