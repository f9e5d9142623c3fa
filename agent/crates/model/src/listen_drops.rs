//! Connection requests that listeners really dropped.
//!
//! The kernel's drop counter of a listening socket (`sk_drops`) also counts packets that are no
//! lost request: a SYN that came again, the bare ACK of every connection under
//! `TCP_DEFER_ACCEPT`; and it counts an ACK that met a full queue twice. The namespace's counter
//! `ListenDrops` counts exactly the lost requests, but does not say whose. Together they tell:
//! what a namespace counted is shared out among those of its listeners whose own counter moved.
//! With one such listener that is exact; with several their sum is.

use std::sync::Arc;

use agent_common::edge::ROLE_LISTENER;
use hashbrown::HashMap;

use super::delta::DrainedId;
use agent_common::drained::Edge;

/// What can be told of a namespace's `ListenDrops`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// So many since the namespace was made.
    Total(u64),
    /// Ask again later.
    Later,
    /// It cannot be read: the listeners' own counters have to do.
    Never,
}

/// Both kinds of counters, reconciled.
#[derive(Default)]
pub struct ListenDrops {
    /// Of each namespace's total, how much is shared out or from before our time; none where it
    /// cannot be read.
    settled: HashMap<u32, Option<u64>>,
    listeners: HashMap<DrainedId, Listener>,
}

/// What is known of a listener.
#[derive(Clone, Copy, Default)]
struct Listener {
    /// Of its own counter, how much was looked at.
    looked_at: u64,
    /// Its share.
    dropped: u64,
}

impl ListenDrops {
    /// Replaces the listeners' own counts in `edges` by their shares. `netns` tells the namespace
    /// of an edge; `read` reads its total, only called where a listener's counter moved, and once
    /// for a new namespace.
    pub fn settle(
        &mut self,
        edges: &mut [Edge],
        netns: impl Fn(&Edge) -> u32,
        mut read: impl FnMut(u32, &Edge) -> Reading,
    ) {
        let mut by_namespace: HashMap<u32, Vec<&mut Edge>> = HashMap::new();
        let is_listener = |edge: &&mut Edge| edge.key.role == ROLE_LISTENER && edge.born_us != 0;
        for edge in edges.iter_mut().filter(is_listener) {
            by_namespace.entry(netns(edge)).or_default().push(edge);
        }
        self.settled.retain(|inode, _| by_namespace.contains_key(inode));
        let mut known = HashMap::new();
        for (inode, edges) in &mut by_namespace {
            self.settle_namespace(*inode, edges, &mut read, &mut known);
        }
        self.listeners = known;
    }

    fn settle_namespace(
        &mut self,
        inode: u32,
        edges: &mut [&mut Edge],
        read: &mut impl FnMut(u32, &Edge) -> Reading,
        known: &mut HashMap<DrainedId, Listener>,
    ) {
        let Self { settled, listeners } = self;
        let known_before =
            |edge: &Edge| listeners.get(&DrainedId::from(edge)).copied().unwrap_or_default();
        let moved =
            |edge: &Edge| edge.counters.listen_drops.saturating_sub(known_before(edge).looked_at);
        let moves: u64 = edges.iter().map(|edge| moved(edge)).sum();
        let reading = match (edges.first(), settled.get(&inode)) {
            (_, Some(None)) => Reading::Never,
            (Some(edge), known) if moves > 0 || known.is_none() => read(inode, edge),
            _ => Reading::Later,
        };
        let mut left = match reading {
            Reading::Total(total) => {
                // Of a namespace met for the first time only what our listeners saw is ours.
                let known = settled.get(&inode).copied().flatten();
                let before = known.unwrap_or(total.saturating_sub(moves)).min(total);
                settled.insert(inode, Some(before));
                Some(total - before)
            }
            Reading::Later => None,
            Reading::Never => {
                settled.insert(inode, None);
                Some(u64::MAX)
            }
        };
        // Who moved most first: with a queue that overflows, that is the one.
        edges.sort_by_key(|edge| std::cmp::Reverse(moved(edge)));
        for edge in edges {
            let mut listener = known_before(edge);
            if let Some(left) = &mut left {
                let share = moved(edge).min(*left);
                *left -= share;
                listener.looked_at = edge.counters.listen_drops.max(listener.looked_at);
                listener.dropped += share;
                if let Some(Some(settled)) = settled.get_mut(&inode) {
                    *settled += share;
                }
            }
            if edge.counters.listen_drops != listener.dropped {
                Arc::make_mut(&mut edge.counters).listen_drops = listener.dropped;
            }
            known.insert(DrainedId::from(&**edge), listener);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::edge::{EdgeCounters, EdgeKey};
    use agent_common::wire::Wire as _;

    const NETNS: u32 = 1;

    fn shares(drops: &mut ListenDrops, own: &[u64], total: Reading) -> Vec<u64> {
        let edge = |(slot, own): (usize, &u64)| {
            let mut counters = EdgeCounters::zeroed();
            counters.listen_drops = *own;
            let key = EdgeKey { role: ROLE_LISTENER, ..EdgeKey::zeroed() };
            let counters = Arc::new(counters);
            Edge { slot: slot as u32, key, local: [0; 4], remote: [0; 4], born_us: 1, counters }
        };
        let mut edges: Vec<_> = own.iter().enumerate().map(edge).collect();
        drops.settle(&mut edges, |_| NETNS, |_, _| total);
        edges.iter().map(|edge| edge.counters.listen_drops).collect()
    }

    #[test]
    fn packets_that_were_no_lost_request_do_not_count() {
        let mut drops = ListenDrops::default();
        assert_eq!(shares(&mut drops, &[0], Reading::Total(100)), [0]);
        // A thousand bare ACKs of deferred connections.
        assert_eq!(shares(&mut drops, &[1000], Reading::Total(100)), [0]);
        // Three ACKs that met a full queue: two each of the listener's, one of the namespace's.
        assert_eq!(shares(&mut drops, &[1006], Reading::Total(103)), [3]);
        assert_eq!(shares(&mut drops, &[1006], Reading::Later), [3]);
    }

    #[test]
    fn listeners_share_what_their_namespace_lost() {
        let mut drops = ListenDrops::default();
        assert_eq!(shares(&mut drops, &[0, 0], Reading::Total(0)), [0, 0]);
        assert_eq!(shares(&mut drops, &[2, 5], Reading::Total(6)), [1, 5]);
    }

    #[test]
    fn a_total_that_cannot_be_read_yet_is_waited_for() {
        let mut drops = ListenDrops::default();
        assert_eq!(shares(&mut drops, &[0], Reading::Total(0)), [0]);
        assert_eq!(shares(&mut drops, &[4], Reading::Later), [0]);
        assert_eq!(shares(&mut drops, &[4], Reading::Total(4)), [4]);
    }

    #[test]
    fn without_a_total_the_listeners_own_count_has_to_do() {
        let mut drops = ListenDrops::default();
        assert_eq!(shares(&mut drops, &[4], Reading::Never), [4]);
        assert_eq!(shares(&mut drops, &[7], Reading::Never), [7]);
    }

    #[test]
    fn a_drop_that_the_sweep_came_too_early_for_is_shared_out_later() {
        let mut drops = ListenDrops::default();
        assert_eq!(shares(&mut drops, &[0], Reading::Total(0)), [0]);
        // The total was read a moment later and has two more.
        assert_eq!(shares(&mut drops, &[1], Reading::Total(3)), [1]);
        assert_eq!(shares(&mut drops, &[3], Reading::Total(3)), [3]);
    }
}
