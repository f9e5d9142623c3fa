//! Who is at the other end of a connection between two hosts.
//!
//! On plain hosts an agent knows its own end by name, and the other one by address: what is
//! `10.0.0.7:80` for the client's host is `nginx` for the server's, and the server's host has a client
//! `10.0.0.5`. The flows of both tell which is which, so the edge has both names, and is there once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api_types::{Flow, Role, Service, Source};

/// A service: its namespace and its name.
pub(super) type Name = (String, String);

/// The ends of an edge as one host has them: client, server, port.
pub(super) type Ends = (Name, Name, u16);

/// What other hosts know about ends that a host has no name for.
#[derive(Debug, Default)]
pub(crate) struct Book {
    servers: BTreeMap<(usize, Ends), Option<Service>>,
    clients: BTreeMap<(usize, Ends), Option<Caller>>,
    /// Services that are the same on all ports and edges of a host, by the name that it has for them.
    named: BTreeMap<(usize, Name), Option<Caller>>,
}

/// A client, as the host knows it that it runs on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Caller {
    /// This service.
    Is(Service),
    /// One of several services at one address: their host has their connections by name.
    IsOneOfSeveral,
}

/// Where a service is, or whom somebody calls, and the hosts that say so.
#[derive(Debug, Default)]
struct Known {
    hosts: BTreeSet<usize>,
    services: BTreeMap<Name, Service>,
}

// === impl Book ===

impl Book {
    /// From the flows of each host.
    pub(crate) fn of(flows: &[(usize, Vec<Flow>)]) -> Self {
        let mut owners: BTreeMap<(IpAddr, u16), Known> = BTreeMap::new();
        let mut callers: BTreeMap<(IpAddr, IpAddr, u16), Known> = BTreeMap::new();
        let all = || flows.iter().flat_map(|(host, seen)| seen.iter().map(move |one| (*host, one)));
        for (host, flow) in all() {
            let Some(server) = flow.server_address.filter(|one| !one.is_loopback()) else {
                continue;
            };
            match (flow.role, flow.client_address) {
                (Role::Server, _) if !is_guess(flow.server_source) => {
                    owners.entry((server, flow.port)).or_default().add(host, server_of(flow));
                }
                (Role::Client, Some(client)) if !is_guess(flow.client_source) => {
                    let place = (client, server, flow.port);
                    callers.entry(place).or_default().add(host, client_of(flow));
                }
                _ => {}
            }
        }
        let mut book = Self::default();
        for (host, flow) in all() {
            let Some(server) = flow.server_address else { continue };
            let (ends, port) = (ends(flow), flow.port);
            if flow.role == Role::Client && is_guess(flow.server_source) {
                let owner = owners.get(&(server, port));
                let owner = owner.and_then(|known| known.elsewhere(host)).and_then(Caller::service);
                let name = ends.1.clone();
                agree(&mut book.named, (host, name), owner.clone().map(Caller::Is));
                agree(&mut book.servers, (host, ends), owner);
            } else if flow.role == Role::Server && is_guess(flow.client_source) {
                let place = flow.client_address.map(|client| (client, server, port));
                let caller = place.and_then(|place| callers.get(&place));
                let caller = caller.and_then(|known| known.elsewhere(host));
                agree(&mut book.named, (host, ends.0.clone()), caller.clone());
                agree(&mut book.clients, (host, ends), caller);
            }
        }
        book
    }

    /// The server of an edge that this host counts on the client's side.
    pub(super) fn server(&self, host: usize, ends: &Ends) -> Option<&Service> {
        self.servers.get(&(host, ends.clone()))?.as_ref()
    }

    /// The client of an edge that this host counts on the server's side.
    pub(super) fn client(&self, host: usize, ends: &Ends) -> Option<&Caller> {
        self.clients.get(&(host, ends.clone()))?.as_ref()
    }

    /// What a service is that this host calls so on all its edges.
    pub(super) fn service(&self, host: usize, name: &Name) -> Option<&Caller> {
        self.named.get(&(host, name.clone()))?.as_ref()
    }
}

/// What several flows say, if they say the same.
fn agree<K: Ord, V: PartialEq>(all: &mut BTreeMap<K, Option<V>>, key: K, said: Option<V>) {
    match all.entry(key) {
        std::collections::btree_map::Entry::Vacant(entry) => {
            entry.insert(said);
        }
        std::collections::btree_map::Entry::Occupied(mut entry) => {
            if *entry.get() != said {
                entry.insert(None);
            }
        }
    }
}

/// Whether a name only says where something is.
fn is_guess(source: Source) -> bool {
    matches!(source, Source::Address | Source::Dns)
}

fn ends(flow: &Flow) -> Ends {
    let client = (flow.client_namespace.clone(), flow.client.clone());
    (client, (flow.server_namespace.clone(), flow.server.clone()), flow.port)
}

fn client_of(flow: &Flow) -> Service {
    Service {
        name: flow.client.clone(),
        namespace: flow.client_namespace.clone(),
        kind: flow.client_kind,
        source: flow.client_source,
    }
}

fn server_of(flow: &Flow) -> Service {
    Service {
        name: flow.server.clone(),
        namespace: flow.server_namespace.clone(),
        kind: flow.server_kind,
        source: flow.server_source,
    }
}

// === impl Caller ===

impl Caller {
    fn service(self) -> Option<Service> {
        match self {
            Self::Is(service) => Some(service),
            Self::IsOneOfSeveral => None,
        }
    }
}

// === impl Known ===

impl Known {
    fn add(&mut self, host: usize, service: Service) {
        self.hosts.insert(host);
        self.services.entry((service.namespace.clone(), service.name.clone())).or_insert(service);
    }

    /// The service, if another host than this one knows it. An address that two hosts have (of
    /// containers, say) says nothing.
    fn elsewhere(&self, host: usize) -> Option<Caller> {
        let mut hosts = self.hosts.iter();
        if hosts.next().is_none_or(|only| *only == host) || hosts.next().is_some() {
            return None;
        }
        let mut services = self.services.values();
        match (services.next(), services.next()) {
            (Some(only), None) => Some(Caller::Is(only.clone())),
            (Some(_), Some(_)) => Some(Caller::IsOneOfSeveral),
            (None, _) => None,
        }
    }
}
