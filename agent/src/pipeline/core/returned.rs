//! Programs of a network namespace that has ended which act in the next one with its number.
//!
//! The kernel half has one row for a program in both: the number is in its key. What was counted is of
//! the former namespace. The program is in the next one as soon as it makes or accepts a connection,
//! or has a socket there: no socket outlives its namespace.

use agent_common::drained::Edge;
use agent_common::listener::ListenerRecord;
use hashbrown::{HashMap, HashSet};

use loader::drain::Drained;

/// What owners of namespaces that have ended had done when that was noticed.
#[derive(Debug, Default)]
pub(super) struct Returned {
    done: HashMap<u32, u64>,
}

// === impl Returned ===

impl Returned {
    /// Those of the owners in `past` that have acted since it was noticed that their namespace has
    /// ended.
    pub(super) fn find(
        &mut self,
        drained: &Drained,
        listeners: &[ListenerRecord],
        past: &HashSet<u32>,
    ) -> Vec<u32> {
        self.done.retain(|owner, _| past.contains(owner));
        if past.is_empty() {
            return Vec::new();
        }
        let mut done: HashMap<u32, u64> = past.iter().map(|owner| (*owner, 0)).collect();
        let mut add = |owner: u32, count: u64| {
            if let Some(sum) = done.get_mut(&owner) {
                *sum = sum.saturating_add(count);
            }
        };
        for edge in &drained.edges {
            add(edge.key.owner, attempts(edge));
        }
        for row in &drained.unsent {
            add(row.row.key.owner, row.row.count);
        }
        for failure in &drained.bind_failures {
            add(failure.row.key.owner, failure.row.count);
        }
        let open: HashSet<u32> = drained
            .queues
            .iter()
            .flatten()
            .filter(|(_, queues)| queues.open > 0)
            .map(|(slot, _)| *slot)
            .collect();
        let of_open = drained
            .edges
            .iter()
            .filter(|edge| open.contains(&edge.slot))
            .map(|edge| edge.key.owner);
        let of_bound = drained.bound.iter().flatten().map(|bound| bound.owner);
        let of_listening = listeners.iter().map(|listener| listener.owner);
        let there: HashSet<u32> = of_open.chain(of_bound).chain(of_listening).collect();
        let mut found = Vec::new();
        for (owner, done) in done {
            // Tables may be older than what showed that the namespace has ended.
            let Some(before) = self.done.insert(owner, done) else { continue };
            if done > before || there.contains(&owner) {
                found.push(owner);
            }
        }
        found
    }
}

/// Connections that the near end of an edge has made, tried to make, or accepted, and its lookups.
fn attempts(edge: &Edge) -> u64 {
    let counters = &edge.counters;
    counters.connects.iter().sum::<u64>() + counters.opened + counters.lookup.count()
}
