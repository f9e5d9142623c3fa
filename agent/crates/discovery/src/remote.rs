//! The remote end of an edge. An address alone says little, so these are tried in order:
//!
//! 1. a rule of the configuration for the address;
//! 2. for a client's edge: the backend that answered its connections, if connection tracking has
//!    seen them translated ([`Translated`]); for a Kubernetes Service else its endpoints;
//! 3. the container that publishes the port; the process that listens there;
//! 4. the container or pod that has the address; for a server's edge 2 and 3 are skipped, and the
//!    client whose connections arrive from there translated comes next, or, for connections from
//!    before the agent, the only service of that namespace that connects there;
//! 5. the Kubernetes Service that has an endpoint there;
//! 6. a network with a name;
//! 7. the name that a program in the owner's namespace resolved to the address by DNS
//!    ([`Resolved`]), or the address itself, both up to a limit; else `internet` or `other`.
//!
//! `127.0.0.1` is a different host in every network namespace. So for 3 and 4 the namespace of the
//! address is found first, as seen from the owner's; see [`Addresses::namespace_of`].
//!
//! Connections of one edge that have led to several services, or to an unknown place, cannot be
//! told apart: then the edge has the name of the Service that was requested, or 6 or 7.

use std::sync::Arc;

use agent_common::address::{self, Address};
use agent_common::decode::dns;
use agent_common::edge::{EdgeKey, ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER};
use agent_common::listener::ListenerRecord;
use agent_common::share::Tenant;
use hashbrown::HashMap;

use super::found::Found;
use super::inventory::Inventory;
use super::listener::Listener;
use super::resolved::Resolved;
use super::rules::Rules;
use super::translated::Translated;
use linux::addresses::Held;
use model::service::Service;

mod addresses;
mod admitted;
mod clients;
mod listed;
mod peer;
mod server;
mod unknown;

use addresses::Addresses;
pub use addresses::Arrival;
use admitted::Admitted;
pub use clients::Client;
use clients::{ClientTable, Known};
use listed::{Asked, Waiting};

/// Entries per table at most.
const MAX_ENTRIES: usize = 65_536;
/// Default limit of peers that are named by their address or by a name from DNS.
pub const MAX_ADDRESSES: usize = 4096;

/// This host's listeners, addresses and clients.
pub(super) struct Remotes {
    listeners: HashMap<(u32, u16), Vec<Listener>>,
    addresses: Addresses,
    clients: ClientTable,
    /// Where translated connections went.
    translated: Translated,
    /// Number of lists of connections begun; `None` if there will be no more.
    lists: Option<u64>,
    /// Edges, and which list has their connections.
    asked: HashMap<Asked, Waiting>,
    awaits_connections: bool,
    /// Names from DNS responses.
    pub(super) resolved: Resolved,
    /// Peers that are named by their address or by DNS.
    admitted: Admitted,
    /// Whose edge is being named.
    tenant: Tenant,
    round: u64,
    /// Peers without a name, and how often a refresh was requested for each.
    lookups: HashMap<(Address, u16), u8>,
    missing: bool,
    unknown_namespaces: bool,
    dropped_listeners: u64,
}

impl Remotes {
    pub(super) fn new(max_addresses: usize) -> Self {
        Self {
            listeners: HashMap::new(),
            addresses: Addresses::default(),
            clients: ClientTable::default(),
            translated: Translated::default(),
            asked: HashMap::new(),
            lists: None,
            awaits_connections: false,
            resolved: Resolved::default(),
            admitted: Admitted::new(max_addresses),
            tenant: Tenant::OTHERS,
            round: 0,
            lookups: HashMap::new(),
            missing: false,
            unknown_namespaces: false,
            dropped_listeners: 0,
        }
    }

    pub(super) fn set_listeners(&mut self, listeners: &[(ListenerRecord, Found)]) {
        let kept = listeners.get(..MAX_ENTRIES).unwrap_or(listeners);
        self.dropped_listeners = (listeners.len() - kept.len()) as u64;
        self.listeners.clear();
        for (record, owner) in kept {
            self.listeners
                .entry((record.netns, record.port))
                .or_default()
                .push(Listener::new(record, owner));
        }
    }

    /// The row belongs to another owner from now on.
    pub(super) fn forget_owner(&mut self, owner: u32) {
        self.translated.forget_owner(owner);
        self.asked.retain(|(of, ..), _| *of != owner);
    }

    /// Whether connections to this address and port were translated.
    pub(super) fn is_front(&self, address: Address, port: u16) -> bool {
        self.translated.is_front((address, port))
    }

    pub(super) fn set_addresses(&mut self, addresses: &[Held]) {
        self.addresses = Addresses::new(addresses);
    }

    pub(super) fn learn_dns_answers(
        &mut self,
        answers: &[dns::Answer],
        malformed: u64,
        now_us: u64,
    ) {
        self.resolved.learn(answers, malformed, now_us);
    }

    pub(super) fn set_arrivals(&mut self, arrivals: &[Arrival]) {
        self.addresses.set_arrivals(arrivals);
    }

    /// `is_complete`: there are no clients besides these.
    pub(super) fn set_clients(
        &mut self,
        clients: &[Client],
        is_complete: bool,
        inventories: &[Arc<Inventory>],
    ) {
        self.round += 1;
        self.awaits_connections = false;
        let round = self.round;
        self.admitted.begin(round);
        self.asked.retain(|_, asked| asked.needed + 1 >= round);
        let Self { addresses, translated, .. } = self;
        let clients = ClientTable::new(clients, is_complete, addresses);
        if let Some(routes) = inventories.iter().find_map(|inventory| inventory.routes()) {
            translated.learn(routes, &Known { clients: &clients, addresses });
        }
        self.clients = clients;
    }

    /// Whether a network namespace belongs to a user namespace that any user can make.
    pub(super) fn is_tenants(&self, netns: u32) -> bool {
        self.addresses.is_tenants(netns)
    }

    /// Whether several namespaces of this host have an address, seen from `netns`.
    pub(super) fn is_ambiguous(&self, netns: u32, address: Address) -> bool {
        self.addresses.is_ambiguous(netns, address)
    }

    pub(super) fn set_unknown_namespaces(&mut self, unknown_namespaces: bool) {
        self.unknown_namespaces = unknown_namespaces;
    }

    pub(super) fn take_missing(&mut self) -> bool {
        std::mem::take(&mut self.missing)
    }

    /// Number of lists of connections begun; `None` if there will be no more.
    pub(super) fn set_connection_lists(&mut self, begun: Option<u64>) {
        self.lists = begun;
    }

    /// Whether there are edges of which the connections were not listed yet.
    pub(super) fn awaits_connections(&self) -> bool {
        self.awaits_connections
    }

    /// The next edge is of an owner of this tenant.
    pub(super) fn set_tenant(&mut self, tenant: Tenant) {
        self.tenant = tenant;
    }

    /// The service at the remote end of an edge of an owner in `netns`. `preexisting`: some of its
    /// connections are from before the agent.
    pub(super) fn resolve(
        &mut self,
        netns: u32,
        key: &EdgeKey,
        preexisting: bool,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Found {
        match key.role {
            ROLE_CLIENT => {
                let found = self.server(netns, key, rules, inventories);
                self.once_listed(key, found)
            }
            ROLE_SERVER if key.remote == address::INTERNET => Found::new(Service::internet()),
            ROLE_SERVER if key.remote == address::UNSPECIFIED => Found::new(Service::any()),
            ROLE_SERVER => {
                let found = self.peer(netns, key, preexisting, rules, inventories);
                self.once_listed(key, found)
            }
            // Events of a listener before a connection exists have no client.
            ROLE_LISTENER => Found::new(Service::any()),
            _ => Found::new(Service::other()),
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        let Self { dropped_listeners, addresses, clients, .. } = self;
        dropped_listeners + addresses.dropped() + clients.dropped()
    }

    /// Places that translated connections went to that found no room.
    pub(super) fn dropped_connections(&self) -> u64 {
        self.translated.dropped()
    }
}

#[cfg(test)]
mod tests;
