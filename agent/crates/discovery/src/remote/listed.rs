//! Whether the connections of a new edge were listed yet: until then its name may change.

use agent_common::address::Address;
use agent_common::edge::EdgeKey;

use super::{MAX_ENTRIES, Remotes};
use crate::found::Found;

/// Maximum number of lists that an edge waits for until the addresses of all namespaces are known.
const MAX_LISTS: u64 = 10;

/// An edge: owner row, role, remote address, port.
pub(super) type Asked = (u32, u8, Address, u16);

/// An edge of which the connections were not listed yet, or were.
pub(super) struct Waiting {
    /// How many lists had been begun when it was met first.
    met: u64,
    /// A list that was begun later has its connections.
    since: u64,
    /// There was one.
    done: bool,
    /// The last round in which it was there.
    pub(super) needed: u64,
}

// === impl Remotes ===

impl Remotes {
    /// A new edge: where its connections went, or came from, is known once they were listed, by a
    /// list that was begun later.
    pub(super) fn once_listed(&mut self, key: &EdgeKey, found: Found) -> Found {
        let Some(begun) = self.lists else { return found };
        let edge = (key.owner, key.role, key.remote, key.port);
        let is_full = self.asked.len() >= MAX_ENTRIES && !self.asked.contains_key(&edge);
        let is_listed = !is_full && {
            let new = Waiting { met: begun, since: begun, done: false, needed: self.round };
            let asked = self.asked.entry(edge).or_insert(new);
            asked.needed = self.round;
            // In a namespace of which no address is known, a list may not have found the client.
            if self.unknown_namespaces && !asked.done && begun < asked.met + MAX_LISTS {
                asked.since = begun;
            }
            asked.done |= self.translated.last_list() > asked.since;
            asked.done
        };
        self.awaits_connections |= !is_listed;
        Found { stable: found.stable && (is_listed || is_full), ..found }
    }
}
