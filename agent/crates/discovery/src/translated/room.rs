//! What is kept of the connections seen: a share for each namespace, for as long as it is needed.

use hashbrown::HashSet;

use super::{MAX_ENTRIES, MAX_OF_NAMESPACE, Translated};

/// After this many collections without an edge or a connection an entry is forgotten.
const KEPT_ROUNDS: u64 = 2;

impl Translated {
    /// Counts an entry, if there is room.
    pub(super) fn has_room(&mut self, netns: u32) -> bool {
        let of_namespace = self.of_namespace.entry(netns).or_default();
        if *of_namespace >= MAX_OF_NAMESPACE || self.entries >= MAX_ENTRIES {
            self.dropped += 1;
            return false;
        }
        *of_namespace += 1;
        self.entries += 1;
        true
    }

    /// Makes room: drops what no edge and no connection has needed for some time, and places that a
    /// later place of the same name replaces, as when a Service changes its pods.
    pub(super) fn forget(&mut self) {
        let oldest = self.round.saturating_sub(KEPT_ROUNDS);
        self.ways.retain(|_, ways| {
            ways.retain(|way| way.needed >= oldest);
            ways.sort_by_key(|way| std::cmp::Reverse(way.seen));
            let latest = ways.first().map_or(0, |way| way.seen);
            let mut known = HashSet::new();
            ways.retain(|way| {
                let name = way.found.as_ref().filter(|_| !way.several);
                let name = name.map(|found| (way.owner, way.netns, found.service.clone()));
                let is_new = name.is_none_or(|name| known.insert(name));
                is_new || way.seen == latest
            });
            !ways.is_empty()
        });
        self.callers.retain(|_, callers| callers.needed >= oldest);
        self.of_namespace.clear();
        for (edge, ways) in &self.ways {
            *self.of_namespace.entry(edge.netns).or_default() += ways.len();
        }
        for edge in self.callers.keys() {
            *self.of_namespace.entry(edge.netns).or_default() += 1;
        }
        self.entries = self.of_namespace.values().sum();
        // What does not fit into the next list is determined anew.
        self.incomplete.clear();
        self.dropped = 0;
    }
}
