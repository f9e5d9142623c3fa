//! The remote end of an edge. An address alone says little, so these are tried in order:
//!
//! 1. a rule of the configuration for the address;
//! 2. for a client's edge: the backends that actually answered, if the address is a Kubernetes
//!    Service's or was translated (connection tracking), else the Service's endpoints;
//! 3. the container that publishes the port; the process that listens there;
//! 4. the container or pod that has the address; for a server's edge 2 and 3 are skipped, and the
//!    only service of that namespace that connects there comes next;
//! 5. the Kubernetes Service that has an endpoint there;
//! 6. a network with a name;
//! 7. the name that a program in the owner's namespace resolved to the address by DNS
//!    ([`Resolved`]), or the address itself, both up to a limit; else `internet` or `other`.
//!
//! `127.0.0.1` is a different host in every network namespace. So for 3 and 4 the namespace of the
//! address is found first, as seen from the owner's; see [`Remotes::namespace_of`].
//!
//! Long because the order in which the remote end is named is in one place.

use std::sync::Arc;

use agent_common::address::{self, Address};
use agent_common::edge::{EdgeKey, ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER};
use agent_common::listener::ListenerRecord;
use hashbrown::{HashMap, HashSet};

use super::addresses::{by_address, everywhere, is_internal, path};
use super::found::{Found, agreed, found_by};
use super::inventory::{Inventory, Workload};
use super::listener::Listener;
use super::resolved::Resolved;
use super::rules::Rules;
use model::service::{Service, Source};

/// Entries per table at most.
const MAX_ENTRIES: usize = 65_536;
/// Default limit of peers that are named by their address or by a name from DNS.
pub const MAX_ADDRESSES: usize = 4096;
/// How often a refresh of the sources is requested for a peer without a name.
const MAX_LOOKUPS: u8 = 3;

/// A service of this host that connects somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its network namespace.
    pub netns: u32,
    /// The address it connects to.
    pub remote: Address,
    /// The server's port.
    pub port: u16,
    /// Its name.
    pub service: Service,
}

/// This host's listeners, addresses and clients.
pub(super) struct Remotes {
    listeners: HashMap<(u32, u16), Vec<Listener>>,
    /// Address → the namespace that has it; `None` if several do.
    namespaces: HashMap<Address, Option<u32>>,
    own: HashSet<(u32, Address)>,
    /// What the clients of a namespace connect to → the service; `None` if there are several.
    clients: HashMap<Connection, Option<Service>>,
    /// Names from DNS responses.
    pub(super) resolved: Resolved,
    /// Peers that are named by their address or by DNS, each with the round in which it was last
    /// used.
    admitted: HashMap<Address, u64>,
    max_addresses: usize,
    round: u64,
    /// Peers without a name, and how often a refresh was requested for each.
    lookups: HashMap<(Address, u16), u8>,
    missing: bool,
    unknown_namespaces: bool,
    dropped_listeners: u64,
    dropped_addresses: u64,
    dropped_clients: u64,
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

impl Remotes {
    pub(super) fn new(max_addresses: usize) -> Self {
        Self {
            listeners: HashMap::new(),
            namespaces: HashMap::new(),
            own: HashSet::new(),
            clients: HashMap::new(),
            resolved: Resolved::default(),
            admitted: HashMap::new(),
            max_addresses,
            round: 0,
            lookups: HashMap::new(),
            missing: false,
            unknown_namespaces: false,
            dropped_listeners: 0,
            dropped_addresses: 0,
            dropped_clients: 0,
        }
    }

    pub(super) fn set_listeners(&mut self, listeners: &[(ListenerRecord, Service)]) {
        let kept = listeners.get(..MAX_ENTRIES).unwrap_or(listeners);
        self.dropped_listeners = (listeners.len() - kept.len()) as u64;
        self.listeners.clear();
        for (record, service) in kept {
            self.listeners
                .entry((record.netns, record.port))
                .or_default()
                .push(Listener::new(record, service));
        }
    }

    pub(super) fn set_addresses(&mut self, addresses: &[(u32, Address)]) {
        let kept = addresses.get(..MAX_ENTRIES).unwrap_or(addresses);
        self.dropped_addresses = (addresses.len() - kept.len()) as u64;
        self.namespaces.clear();
        self.own.clear();
        for &(netns, address) in kept {
            self.own.insert((netns, address));
            if everywhere(address) {
                continue;
            }
            self.namespaces
                .entry(address)
                .and_modify(|namespace| *namespace = namespace.filter(|one| *one == netns))
                .or_insert(Some(netns));
        }
    }

    pub(super) fn set_clients(&mut self, clients: &[Client], inventories: &[Arc<Inventory>]) {
        self.round += 1;
        let round = self.round;
        // Addresses without an edge in the last round make room.
        self.admitted.retain(|_, needed| *needed + 1 >= round);
        let kept = clients.get(..MAX_ENTRIES).unwrap_or(clients);
        self.dropped_clients = (clients.len() - kept.len()) as u64;
        let mut table: HashMap<Connection, Option<Service>> = HashMap::new();
        for Client { netns, remote, port, service } in kept {
            // The requested address, and the backends that may have answered for it.
            let backends =
                inventories.iter().flat_map(|inventory| inventory.backends(*remote, *port));
            for (remote, port) in backends.copied().chain([(*remote, *port)]) {
                let Some(server) = self.namespace_of(*netns, remote) else { continue };
                let connection = Connection { client: *netns, server, port, path: path(remote) };
                table
                    .entry(connection)
                    .and_modify(|known| {
                        if !known.as_ref().is_some_and(|known| known.is_called_as(service)) {
                            *known = None;
                        }
                    })
                    .or_insert_with(|| Some(service.clone()));
            }
        }
        self.clients = table;
    }

    pub(super) fn set_unknown_namespaces(&mut self, unknown_namespaces: bool) {
        self.unknown_namespaces = unknown_namespaces;
    }

    pub(super) fn take_missing(&mut self) -> bool {
        std::mem::take(&mut self.missing)
    }

    /// The service at the remote end of an edge of an owner in `netns`.
    pub(super) fn resolve(
        &mut self,
        netns: u32,
        key: &EdgeKey,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Found {
        match key.role {
            ROLE_CLIENT => self.server(netns, key, rules, inventories),
            ROLE_SERVER if key.remote == address::INTERNET => Found::new(Service::internet()),
            ROLE_SERVER if key.remote == address::UNSPECIFIED => Found::new(Service::any()),
            ROLE_SERVER => self.peer(netns, key, rules, inventories),
            // Events of a listener before a connection exists have no client.
            ROLE_LISTENER => Found::new(Service::any()),
            _ => Found::new(Service::other()),
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        let Self { dropped_listeners, dropped_addresses, dropped_clients, .. } = self;
        dropped_listeners + dropped_addresses + dropped_clients
    }

    /// The server that a client has connected to.
    fn server(
        &mut self,
        netns: u32,
        key: &EdgeKey,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Found {
        let (remote, port) = (key.remote, key.port);
        if let Some(service) = rules.address(remote) {
            return Found::new(service);
        }
        let frontend = inventories.iter().find_map(|inventory| inventory.frontend(remote, port));
        let backends: Vec<_> =
            inventories.iter().flat_map(|inventory| inventory.backends(remote, port)).collect();
        let answered = agreed(
            backends.iter().map(|(at, port)| self.direct(netns, *at, *port, rules, inventories)),
        );
        if let Some(frontend) = frontend {
            let virtual_service = Some(frontend.service.clone());
            if let Some(found) = answered {
                return Found { virtual_service, ..found_by(&found, Source::Conntrack) };
            }
            let endpoints = frontend.backends.iter();
            if let Some(found) =
                agreed(endpoints.map(|at| self.direct(netns, *at, port, rules, inventories)))
            {
                return Found { virtual_service, ..found_by(&found, Source::ServiceAddress) };
            }
            // Several services are behind it; the one that answered may be known later.
            let stable = !backends.is_empty() || !self.request_lookup(remote, port);
            return Found { stable, ..Found::new(frontend.service.clone()) };
        }
        if let Some(found) = answered {
            let virtual_service =
                self.direct(netns, remote, port, rules, inventories).map(|found| found.service);
            let by_name = || self.resolved.name(netns, remote).map(|(service, _)| service);
            let virtual_service =
                virtual_service.or_else(by_name).or_else(|| Some(by_address(remote)));
            let virtual_service = virtual_service
                .filter(|virtual_service| !virtual_service.is_called_as(&found.service));
            return Found { virtual_service, ..found_by(&found, Source::Conntrack) };
        }
        match self.direct(netns, remote, port, rules, inventories) {
            Some(found) => found,
            None => self.unknown_peer(Some(netns), remote, port, rules),
        }
    }

    /// The service at an address and port, from any namespace.
    pub(super) fn at(
        &self,
        remote: Address,
        port: u16,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Option<Service> {
        // No namespace has the number 0.
        let direct = || self.direct(0, remote, port, rules, inventories).map(|found| found.service);
        rules.address(remote).or_else(direct).or_else(|| rules.network(remote))
    }

    /// The service at an address and port, without translation.
    fn direct(
        &self,
        netns: u32,
        remote: Address,
        port: u16,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Option<Found> {
        if let Some(namespace) = self.namespace_of(netns, remote) {
            let published = inventories
                .iter()
                .find_map(|inventory| inventory.published(namespace, Some(remote), port));
            if let Some(workload) = published {
                return Some(Found::workload(workload, Source::PublishedPort, rules));
            }
            if let Some(listener) = self.listener(namespace, remote, port) {
                let service = listener.service.found_by(Source::Listener);
                return Some(Found { entity: listener.entity, ..Found::new(service) });
            }
        }
        let at = |inventory: &Arc<Inventory>| {
            Some(Found::workload(
                self.container(remote, inventory)?,
                Source::ContainerAddress,
                rules,
            ))
        };
        let endpoint = |inventory: &Arc<Inventory>| {
            Some(Found::workload(inventory.endpoint(remote)?, Source::ServiceAddress, rules))
        };
        inventories.iter().find_map(at).or_else(|| inventories.iter().find_map(endpoint))
    }

    /// The client that has connected to a server.
    fn peer(
        &mut self,
        netns: u32,
        key: &EdgeKey,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Found {
        let remote = key.remote;
        if let Some(service) = rules.address(remote) {
            return Found::new(service);
        }
        if let Some(workload) =
            inventories.iter().find_map(|inventory| self.container(remote, inventory))
        {
            return Found::workload(workload, Source::ContainerAddress, rules);
        }
        let guess = self
            .namespace_of(netns, remote)
            .and_then(|namespace| self.client(namespace, netns, key));
        if let Some(service) = guess {
            return Found::new(service.found_by(Source::LocalClient));
        }
        if let Some(workload) = inventories.iter().find_map(|inventory| inventory.endpoint(remote))
        {
            return Found::workload(workload, Source::ServiceAddress, rules);
        }
        // DNS names belong to servers, not to the clients at the same address.
        self.unknown_peer(None, remote, 0, rules)
    }

    /// The container that has an address. Two runtimes may use the same networks: then the address
    /// is ambiguous and names nothing.
    fn container<'a>(&self, remote: Address, inventory: &'a Inventory) -> Option<&'a Workload> {
        let ambiguous = self.namespaces.get(&remote).is_some_and(Option::is_none);
        if ambiguous { None } else { inventory.at(remote) }
    }

    /// The service that listens on a port of a namespace, if it is the only one.
    pub(super) fn listening(&self, netns: u32, port: u16) -> Option<&Service> {
        let (first, others) = self.listeners.get(&(netns, port))?.split_first()?;
        let alone = others.iter().all(|other| other.service.is_called_as(&first.service));
        alone.then_some(&first.service)
    }

    /// A peer that no source knows; by its DNS name if namespace `resolved_in` has resolved one.
    fn unknown_peer(
        &mut self,
        resolved_in: Option<u32>,
        remote: Address,
        port: u16,
        rules: &Rules,
    ) -> Found {
        let stable = !self.request_lookup(remote, port);
        if let Some(service) = rules.network(remote) {
            return Found { stable, ..Found::new(service) };
        }
        if !self.admit(remote) {
            let is_private = is_internal(address::to_ip(remote));
            let rest = if is_private { Service::other() } else { Service::internet() };
            return Found { stable, ..Found::new(rest) };
        }
        match resolved_in.and_then(|netns| self.resolved.name(netns, remote)) {
            Some((service, entity)) => Found { entity, stable, ..Found::new(service) },
            None => Found { stable, ..Found::new(by_address(remote)) },
        }
    }

    /// Requests a refresh of the sources, a few times for each peer; returns whether it may help.
    fn request_lookup(&mut self, remote: Address, port: u16) -> bool {
        if self.lookups.len() >= MAX_ENTRIES {
            self.lookups.clear();
        }
        let lookups = self.lookups.entry((remote, port)).or_default();
        let goes_on = *lookups < MAX_LOOKUPS;
        *lookups += u8::from(goes_on);
        self.missing |= goes_on;
        self.unknown_namespaces
    }

    /// Whether this address is within the limit and may be a name of its own.
    fn admit(&mut self, remote: Address) -> bool {
        let room = self.admitted.len() < self.max_addresses || self.admitted.contains_key(&remote);
        if room {
            self.admitted.insert(remote, self.round);
        }
        room
    }

    /// The namespace of this host that `address` belongs to, seen from `netns`, if there is exactly
    /// one.
    fn namespace_of(&self, netns: u32, address: Address) -> Option<u32> {
        if address::to_ip(address).is_loopback() || self.own.contains(&(netns, address)) {
            return Some(netns);
        }
        if self.dropped_addresses > 0 {
            return None; // Another namespace may have it too.
        }
        self.namespaces.get(&address).copied().flatten()
    }

    /// The listener that a connection to this address and port reaches.
    fn listener(&self, netns: u32, address: Address, port: u16) -> Option<&Listener> {
        let candidates = self.listeners.get(&(netns, port))?;
        candidates
            .iter()
            .filter_map(|listener| Some((listener.score(address)?, listener)))
            // Of several services on one port (SO_REUSEPORT) always the same one.
            .max_by(|(score, listener), (other_score, other)| {
                score.cmp(other_score).then_with(|| other.service.cmp(&listener.service))
            })
            .map(|(_, listener)| listener)
    }

    /// The service in namespace `client` with connections to the port of `server` that match `key`.
    fn client(&self, client: u32, server: u32, key: &EdgeKey) -> Option<&Service> {
        if self.dropped_clients > 0 {
            return None; // The only one in the table may not be the only one.
        }
        let connection = Connection { client, server, port: key.port, path: path(key.remote) };
        self.clients.get(&connection)?.as_ref()
    }
}

#[cfg(test)]
mod tests;
