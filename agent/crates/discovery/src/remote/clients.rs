//! Services of this host as clients: their identity, and where they connect.

use agent_common::address::Address;
use agent_common::edge::EdgeKey;
use hashbrown::HashMap;

use super::MAX_ENTRIES;
use super::addresses::Addresses;
use crate::addresses::path;
use crate::found::{Found, agreed};
use crate::translated::Clients;
use linux::conntrack::End;

/// A service of this host that connects somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its row.
    pub owner: u32,
    /// Its network namespace.
    pub netns: u32,
    /// The address it connects to.
    pub remote: Address,
    /// The server's port.
    pub port: u16,
    /// Its name.
    pub found: Found,
}

/// Clients of one namespace that connect to the same address and are kept apart.
const MAX_ROWS: usize = 8;

/// The clients of the last collection.
#[derive(Default)]
pub(super) struct ClientTable {
    /// By their rows: the namespace and the name.
    rows: HashMap<u32, (u32, Found)>,
    /// What the clients of a namespace connect to → their rows; `None` if there are many.
    rows_to: HashMap<(u32, End), Option<Vec<u32>>>,
    /// The same by the namespace that has the address → the service; `None` if there are several.
    direct: HashMap<Connection, Option<Found>>,
    dropped: u64,
    /// There are clients that are not in the table.
    is_incomplete: bool,
}

/// A client's connections to one port of one namespace. `path` separates connections that cannot be
/// the same: loopback and not, IPv4 and IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Connection {
    client: u32,
    server: u32,
    port: u16,
    path: (bool, bool),
}

/// The client at the other end of a server's edge.
pub(super) enum Caller {
    /// This one.
    One(Found),
    /// There are several, or unknown ones besides.
    Several,
    /// None is known.
    Unknown,
}

/// What the memory of translations has to know.
pub(super) struct Known<'a> {
    /// Clients.
    pub clients: &'a ClientTable,
    /// Namespaces.
    pub addresses: &'a Addresses,
}

// === impl ClientTable ===

impl ClientTable {
    /// From edges of role client; `is_complete` if these are all.
    pub(super) fn new(clients: &[Client], is_complete: bool, addresses: &Addresses) -> Self {
        let kept = clients.get(..MAX_ENTRIES).unwrap_or(clients);
        let dropped = (clients.len() - kept.len()) as u64;
        let is_incomplete = !is_complete || dropped > 0;
        let mut table = Self { dropped, is_incomplete, ..Self::default() };
        for Client { owner, netns, remote, port, found } in kept {
            table.rows.entry(*owner).or_insert_with(|| (*netns, found.clone()));
            let rows = table.rows_to.entry((*netns, (*remote, *port)));
            let rows = rows.or_insert_with(|| Some(Vec::new()));
            match rows {
                Some(known) if known.contains(owner) => {}
                Some(known) if known.len() < MAX_ROWS => known.push(*owner),
                _ => *rows = None,
            }
            let Some(server) = addresses.namespace_of(*netns, *remote) else { continue };
            let connection =
                Connection { client: *netns, server, port: *port, path: path(*remote) };
            table
                .direct
                .entry(connection)
                .and_modify(|known| {
                    *known = agreed([known.take(), Some(found.clone())].into_iter());
                })
                .or_insert_with(|| Some(found.clone()));
        }
        table
    }

    /// The name of an owner that has edges as a client.
    pub(super) fn found(&self, owner: u32) -> Option<&Found> {
        self.rows.get(&owner).map(|(_, found)| found)
    }

    /// The client of a namespace that connects to a server in `netns`, as its edge says.
    pub(super) fn direct(&self, client: u32, netns: u32, key: &EdgeKey) -> Caller {
        if self.is_incomplete {
            return Caller::Several; // The only one in the table may not be the only one.
        }
        let connection =
            Connection { client, server: netns, port: key.port, path: path(key.remote) };
        match self.direct.get(&connection) {
            Some(Some(found)) => Caller::One(found.clone()),
            Some(None) => Caller::Several,
            None => Caller::Unknown,
        }
    }

    /// Clients that did not fit.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl Clients for Known<'_> {
    fn of_row(&self, owner: u32) -> Option<(u32, &Found)> {
        self.clients.rows.get(&owner).map(|(netns, found)| (*netns, found))
    }

    fn all(&self, netns: u32, requested: End) -> Option<&[u32]> {
        let rows = self.clients.rows_to.get(&(netns, requested))?.as_deref();
        rows.filter(|_| !self.clients.is_incomplete)
    }

    fn namespace_of(&self, netns: u32, address: Address) -> Option<u32> {
        self.addresses.namespace_of(netns, address)
    }

    fn is_tenants(&self, netns: u32) -> bool {
        self.addresses.is_tenants(netns)
    }
}
