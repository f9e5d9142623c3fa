//! Which edges fail because a server stops: those of a listener that has just ended.
//!
//! A failure does not know that its server stops: a process that ends closes its listener and its
//! connections one after the other, and what comes later is refused. So it is decided afterwards, for
//! all that a collection brings: if a listening socket is gone that was there at the collection before,
//! failures on its edges since then, and for some seconds from now on, are those of a server that
//! stops. The kernel half calls for a collection when a listener ends, so the first of them begins
//! shortly before it.
//!
//! Edges are found by what the kernel half knows, not by names: the server's by the listener's owner
//! and port, the client's by the clients of these, and by the addresses that they were reached at.

use agent_common::address::{Address, owner_of, to_ip};
use agent_common::drained::{Edge, Table};
use agent_common::edge::{ROLE_CLIENT, ROLE_SERVER};
use agent_common::listener::ListenerRecord;
use hashbrown::{HashMap, HashSet};

/// Failures count as those of a server that stops for so long after its listener's end, and until the
/// collection after that, microseconds.
pub const STOPPING_US: u64 = 5_000_000;
/// Listeners that are followed at a time after their end; failures of further ones are faults.
const MOST: usize = 4096;

/// Listeners that were there at the last collection, and those that have ended since.
#[derive(Default)]
pub struct Stopping {
    present: HashSet<Socket>,
    /// Until when each counts as stopping.
    ended: HashMap<Socket, u64>,
}

/// A listening socket. Without a cookie it equals any other one of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Socket {
    owner: u32,
    netns: u32,
    port: u16,
    address: Address,
    cookie: u64,
}

/// Edges of servers that stop.
#[derive(Default)]
pub struct Edges {
    /// Owner and port of listeners.
    servers: HashSet<(u32, u16)>,
    /// Owners of their clients, and where these connect to.
    clients: HashSet<(u32, Address, u16)>,
    /// Where they were reached from elsewhere.
    addresses: HashSet<(Address, u16)>,
    /// Network namespaces in which their ports are open on a loopback interface.
    local: HashSet<(u32, u16)>,
}

// === impl Stopping ===

impl Stopping {
    /// Takes in the listeners of a collection at `now_us`.
    pub fn observe(&mut self, now_us: u64, listeners: &[ListenerRecord]) {
        let present: HashSet<Socket> = listeners.iter().map(Socket::of).collect();
        self.ended.retain(|socket, until_us| {
            // An iteration that was interrupted may have missed it.
            *until_us != 0 && !present.contains(socket)
        });
        for until_us in self.ended.values_mut() {
            // What happened until now still counts; from now on nothing does.
            if now_us >= *until_us {
                *until_us = 0;
            }
        }
        for socket in self.present.difference(&present) {
            if self.ended.len() < MOST {
                self.ended.insert(*socket, now_us + STOPPING_US);
            }
        }
        self.present = present;
    }

    /// The edges of `edges` whose failures since the last collection are those of a server that
    /// stops. `netns` says where an owner is.
    pub fn edges(&self, edges: &[Edge], netns: impl Fn(u32) -> u32) -> Edges {
        let mut found = Edges::default();
        for Socket { owner, netns, port, address, cookie: _ } in self.ended.keys() {
            found.servers.insert((*owner, *port));
            if is_everywhere(address) || is_loopback(address) {
                found.local.insert((*netns, *port));
            } else {
                found.addresses.insert((*address, *port));
            }
        }
        if found.servers.is_empty() {
            return found;
        }
        for edge in edges {
            if !found.is_servers(edge) {
                continue;
            }
            if let Some(client) = owner_of(&edge.key.remote) {
                found.clients.insert((client, edge.local, edge.key.port));
            }
            if !is_loopback(&edge.local) && !is_everywhere(&edge.local) {
                found.addresses.insert((edge.local, edge.key.port));
            }
        }
        // Of clients only those that are in the same namespace reach a loopback interface.
        for edge in edges.iter().filter(|edge| is_of(edge, ROLE_CLIENT)) {
            let at = (netns(edge.key.owner), edge.key.port);
            if is_loopback(&edge.key.remote) && found.local.contains(&at) {
                found.clients.insert((edge.key.owner, edge.key.remote, edge.key.port));
            }
        }
        found
    }
}

// === impl Edges ===

impl Edges {
    /// Whether this one is among them.
    pub fn contains(&self, edge: &Edge) -> bool {
        let key = &edge.key;
        self.is_servers(edge)
            || is_of(edge, ROLE_CLIENT)
                && (self.clients.contains(&(key.owner, key.remote, key.port))
                    || self.addresses.contains(&(key.remote, key.port)))
    }

    fn is_servers(&self, edge: &Edge) -> bool {
        is_of(edge, ROLE_SERVER) && self.servers.contains(&(edge.key.owner, edge.key.port))
    }
}

fn is_of(edge: &Edge, role: u8) -> bool {
    edge.table == Table::Edges && edge.key.role == role && !edge.is_overflow()
}

// === impl Socket ===

impl Socket {
    fn of(record: &ListenerRecord) -> Self {
        let ListenerRecord { owner, netns, port, address, cookie, .. } = *record;
        Self { owner, netns, port, address, cookie }
    }
}

/// Whether it stands for every address of a namespace, of either family.
fn is_everywhere(address: &Address) -> bool {
    to_ip(*address).is_unspecified()
}

fn is_loopback(address: &Address) -> bool {
    to_ip(*address).is_loopback()
}

#[cfg(test)]
mod tests;
