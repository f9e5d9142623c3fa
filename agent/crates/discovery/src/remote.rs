//! The remote end of an edge. An address alone says little, so these are tried in order:
//!
//! 1. a rule of the configuration for the address;
//! 2. for a client's edge: who answered its connections, if connection tracking has seen them
//!    translated ([`Translated`]); for a Kubernetes Service else its endpoints;
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
//! Connections of one edge that have led to several services, or nobody knows where, cannot be told
//! apart: then the edge has the name of the Service that was requested, or 6 or 7.
//!
//! Long because the order in which the remote end is named is in one place.

use std::sync::Arc;

use agent_common::address::{self, Address};
use agent_common::decode::dns;
use agent_common::edge::{EdgeKey, ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER};
use agent_common::listener::ListenerRecord;
use hashbrown::HashMap;

use super::addresses::{by_address, is_internal};
use super::found::{Found, agreed, as_client, found_by};
use super::inventory::{Inventory, Workload};
use super::listener::Listener;
use super::resolved::Resolved;
use super::rules::Rules;
use super::translated::{Answer, Translated};
use linux::addresses::Held;
use model::service::{Entity, Service, Source};

mod addresses;
mod clients;

use addresses::Addresses;
pub use addresses::Arrival;
pub use clients::Client;
use clients::{Caller, ClientTable, Known};

/// Entries per table at most.
const MAX_ENTRIES: usize = 65_536;
/// Default limit of peers that are named by their address or by a name from DNS.
pub const MAX_ADDRESSES: usize = 4096;
/// How often a refresh of the sources is requested for a peer without a name.
const MAX_LOOKUPS: u8 = 3;

/// An edge waits for at most so many lists until the addresses of all namespaces are known.
const MAX_LISTS: u64 = 10;

/// An edge: owner row, role, remote address, port.
type Asked = (u32, u8, Address, u16);

/// An edge of which the connections were not listed yet, or were.
struct Waiting {
    /// How many lists had been begun when it was met first.
    met: u64,
    /// A list that was begun later has its connections.
    since: u64,
    /// There was one.
    done: bool,
    /// The last round in which it was there.
    needed: u64,
}

/// This host's listeners, addresses and clients.
pub(super) struct Remotes {
    listeners: HashMap<(u32, u16), Vec<Listener>>,
    addresses: Addresses,
    clients: ClientTable,
    /// Where translated connections went.
    translated: Translated,
    /// Lists of connections that were begun; none if there will be no more.
    lists: Option<u64>,
    /// Edges, and which list has their connections.
    asked: HashMap<Asked, Waiting>,
    awaits_connections: bool,
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
            admitted: HashMap::new(),
            max_addresses,
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
        let Self { addresses, resolved, .. } = self;
        resolved.learn(answers, malformed, now_us, |netns| addresses.tenant_of(netns));
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
        // Addresses without an edge in the last round make room.
        self.admitted.retain(|_, needed| *needed + 1 >= round);
        self.asked.retain(|_, asked| asked.needed + 1 >= round);
        let Self { addresses, translated, .. } = self;
        let clients = ClientTable::new(clients, is_complete, addresses);
        if let Some(routes) = inventories.iter().find_map(|inventory| inventory.routes()) {
            translated.learn(routes, &Known { clients: &clients, addresses });
        }
        self.clients = clients;
    }

    pub(super) fn set_unknown_namespaces(&mut self, unknown_namespaces: bool) {
        self.unknown_namespaces = unknown_namespaces;
    }

    pub(super) fn take_missing(&mut self) -> bool {
        std::mem::take(&mut self.missing)
    }

    /// How many lists of connections were begun; none if there will be no more.
    pub(super) fn set_connection_lists(&mut self, begun: Option<u64>) {
        self.lists = begun;
    }

    /// Whether there are edges of which the connections were not listed yet.
    pub(super) fn awaits_connections(&self) -> bool {
        self.awaits_connections
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
        let answer = self.translated.answer(netns, key.owner, (remote, port));
        let answered = match &answer {
            Answer::Ways(ways) => self.answered(netns, (remote, port), ways, rules, inventories),
            Answer::Untranslated | Answer::Unknown => None,
        };
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
            let is_known = matches!(answer, Answer::Ways(_));
            let stable = is_known || !self.request_lookup(remote, port);
            let entity = if is_known { Entity::SEVERAL } else { Entity::UNKNOWN };
            return Found { entity, stable, ..Found::new(frontend.service.clone()) };
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
        if answer != Answer::Untranslated {
            let found = self.unknown_peer(Some(netns), remote, port, rules);
            return Found { entity: Entity::SEVERAL, ..found };
        }
        match self.direct(netns, remote, port, rules, inventories) {
            Some(found) => found,
            None => self.unknown_peer(Some(netns), remote, port, rules),
        }
    }

    /// The service that answered at all of these places, if it was one.
    fn answered(
        &mut self,
        netns: u32,
        requested: (Address, u16),
        ways: &[usize],
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Option<Found> {
        let last_list = self.translated.last_list();
        let wanted = |at: &usize| self.translated.ways(netns, requested).get(*at);
        let places: Vec<_> =
            ways.iter().filter_map(wanted).map(|way| (way.netns, way.backend)).collect();
        let found: Vec<_> = places
            .into_iter()
            .map(|(from, (at, port))| self.direct(from, at, port, rules, inventories))
            .collect();
        let all = self.translated.ways_mut(netns, requested);
        for (at, found) in ways.iter().zip(found) {
            if let Some(way) = all.get_mut(*at) {
                way.update(last_list, found);
            }
        }
        agreed(ways.iter().map(|at| all.get(*at)?.one().cloned()))
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
        if let Some(namespace) = self.addresses.namespace_of(netns, remote) {
            let published = inventories
                .iter()
                .find_map(|inventory| inventory.published(namespace, Some(remote), port));
            if let Some(workload) = published {
                return Some(Found::workload(workload, Source::PublishedPort, rules));
            }
            if let Some(listener) = self.listener(namespace, remote, port) {
                return Some(listener.found());
            }
        }
        let at = |inventory: &Arc<Inventory>| {
            Some(Found::workload(
                self.container(netns, remote, inventory)?,
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
        preexisting: bool,
        rules: &Rules,
        inventories: &[Arc<Inventory>],
    ) -> Found {
        let remote = key.remote;
        if let Some(service) = rules.address(remote) {
            return Found::new(service);
        }
        if let Some(workload) =
            inventories.iter().find_map(|inventory| self.container(netns, remote, inventory))
        {
            return Found::workload(workload, Source::ContainerAddress, rules);
        }
        match self.caller(netns, key, preexisting) {
            Caller::One(found) => return found,
            Caller::Several => {
                let found = self.unknown_peer(None, remote, 0, rules);
                return Found { entity: Entity::SEVERAL, ..found };
            }
            Caller::Unknown => {}
        }
        if let Some(workload) = inventories.iter().find_map(|inventory| inventory.endpoint(remote))
        {
            return Found::workload(workload, Source::ServiceAddress, rules);
        }
        // DNS names belong to servers, not to the clients at the same address.
        self.unknown_peer(None, remote, 0, rules)
    }

    /// The client of this host whose connections a server sees under an address. A new connection
    /// whose addresses nobody has changed has its client's owner for a key, so it is not in this
    /// row; what else connects there is no candidate.
    fn caller(&mut self, netns: u32, key: &EdgeKey, preexisting: bool) -> Caller {
        let Self { translated, clients, addresses, .. } = self;
        let direct = match addresses.namespace_of(netns, key.remote).filter(|_| preexisting) {
            Some(client) => clients.direct(client, netns, key),
            None => Caller::Unknown,
        };
        let Some(callers) = translated.callers(netns, key.port, key.remote) else {
            return match direct {
                Caller::One(found) => Caller::One(as_client(&found, Source::LocalClient)),
                direct => direct,
            };
        };
        // One without an edge any more keeps its last name.
        for (owner, last) in &mut callers.known {
            if let Some(now) = clients.found(*owner).filter(|now| **now != *last) {
                last.clone_from(now);
            }
        }
        let mut all: Vec<Found> = callers.known.values().cloned().collect();
        match direct {
            Caller::One(found) => all.push(found),
            Caller::Several => return Caller::Several,
            Caller::Unknown => {}
        }
        all.sort_unstable_by(|one, other| one.service.cmp(&other.service));
        match agreed(all.into_iter().map(Some)).filter(|_| !callers.has_others()) {
            Some(found) => Caller::One(as_client(&found, Source::Conntrack)),
            None => Caller::Several,
        }
    }

    /// A new edge: where its connections went, or came from, is known once they were listed, by a
    /// list that was begun later.
    fn once_listed(&mut self, key: &EdgeKey, found: Found) -> Found {
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

    /// The container that has an address. Two runtimes may use the same networks: then the address
    /// is ambiguous and names nothing.
    fn container<'a>(
        &self,
        netns: u32,
        remote: Address,
        inventory: &'a Inventory,
    ) -> Option<&'a Workload> {
        if self.addresses.is_ambiguous(netns, remote) { None } else { inventory.at(remote) }
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
}

#[cfg(test)]
mod tests;
