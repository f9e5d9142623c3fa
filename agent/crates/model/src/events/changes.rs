//! Changes: a service started, stopped or came back with another command line, a backend came or
//! went, an edge was seen first or last.
//!
//! What existed before the agent is not a change. A listening socket counts once its name is final, an
//! edge once it has also had a connection. Services are found by their listening sockets, so a program that only connects neither
//! starts nor stops.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use agent_common::address::{self, INTERNET, UNSPECIFIED};
use agent_common::edge::ROLE_CLIENT;
use agent_common::share::Tenant;
use hashbrown::HashMap;

use super::{Kind, What, is_shown};
use crate::delta::{Delta, EdgeId};
use crate::relations::ServiceName;
use crate::service::Service;
use crate::snapshot::{EdgeLabels, Role};

/// Services that ended whose command lines are remembered, at most.
const MOST_ENDED: usize = 4096;
/// Names of listening sockets are looked up again after this time, if no socket comes or goes.
const NAMES_EVERY_US: u64 = 10_000_000;
/// Listening sockets that are followed, at most; the starts of others are not seen.
const MOST_LISTENERS: usize = 16_384;

/// A listening socket.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What tells it apart.
    pub socket: SocketId,
    /// The service that has it.
    pub service: Service,
    /// Whether that name is final.
    pub is_stable: bool,
    /// A hash of the command line of its process; 0 if unknown.
    pub command_line: u64,
    /// Who has it.
    pub tenant: Tenant,
}

/// Cookie, network namespace and port of a socket.
pub type SocketId = (u64, u32, u16);

/// What is there. Tables are bounded by the kernel's table of edges, and by the constants above.
#[derive(Default)]
pub struct Changes {
    /// When the names of listening sockets were taken in last.
    named_us: Option<u64>,
    /// Whether a socket has no final name yet.
    awaits_names: bool,
    has_edges: bool,
    sockets: HashMap<SocketId, Socket>,
    /// Services that ended.
    ended: HashMap<ServiceName, Ended>,
    edges: HashMap<EdgeId, Edge>,
    /// Rows of the same client, server and port.
    pairs: HashMap<Pair, u32>,
    /// Addresses of each server, with the rows that lead there.
    backends: HashMap<(ServiceName, u16), HashMap<SocketAddr, u32>>,
}

struct Socket {
    service: Service,
    command_line: u64,
    tenant: Tenant,
}

/// Command lines of a service that ended.
struct Ended(BTreeSet<u64>);

struct Edge {
    labels: Arc<EdgeLabels>,
    backend: Option<SocketAddr>,
    tenant: Tenant,
}

type Pair = (ServiceName, ServiceName, u16);

/// The listening sockets of one service.
#[derive(Default)]
struct OfService {
    service: Option<Service>,
    tenant: Option<Tenant>,
    /// Command lines of sockets that were there before.
    before: BTreeSet<u64>,
    /// And of those that are new.
    started: BTreeSet<u64>,
    /// Whether a socket from before is still there.
    stays: bool,
}

// === impl Changes ===

impl Changes {
    /// Whether [`of_services`](Self::of_services) may find something at `now_us` with these sockets.
    pub fn needs_names(&self, now_us: u64, sockets: impl Iterator<Item = SocketId>) -> bool {
        let is_due = |at| now_us.saturating_sub(at) >= NAMES_EVERY_US;
        if self.awaits_names || self.named_us.is_none_or(is_due) {
            return true;
        }
        let mut known = 0;
        let is_new = |socket| {
            known += 1;
            !self.sockets.contains_key(&socket)
        };
        sockets.into_iter().any(is_new) || known != self.sockets.len()
    }

    /// Takes in all listening sockets at `now_us`; returns what changed.
    pub fn of_services(&mut self, now_us: u64, listeners: &[Listener]) -> Vec<What> {
        let mut services: HashMap<ServiceName, OfService> = HashMap::new();
        let there: HashMap<SocketId, &Listener> =
            listeners.iter().map(|one| (one.socket, one)).collect();
        self.sockets.retain(|at, socket| {
            let now = there.get(at);
            if let Some(listener) = now {
                // The same service with a better name.
                socket.service.clone_from(&listener.service);
            }
            let of = services.entry(ServiceName::from(&socket.service)).or_default();
            of.service.get_or_insert_with(|| socket.service.clone());
            of.tenant.get_or_insert(socket.tenant);
            of.before.insert(socket.command_line);
            of.stays |= now.is_some();
            now.is_some()
        });
        for Listener { socket, service, is_stable, command_line, tenant } in listeners {
            let is_followed = self.sockets.contains_key(socket);
            let is_silent = self.named_us.is_none();
            if is_followed || self.sockets.len() >= MOST_LISTENERS || !(*is_stable || is_silent) {
                continue;
            }
            if !is_silent {
                let of = services.entry(ServiceName::from(service)).or_default();
                of.service.get_or_insert_with(|| service.clone());
                of.tenant.get_or_insert(*tenant);
                of.started.insert(*command_line);
            }
            let (service, command_line, tenant) = (service.clone(), *command_line, *tenant);
            self.sockets.insert(*socket, Socket { service, command_line, tenant });
        }
        self.named_us = Some(now_us);
        self.awaits_names = listeners.iter().any(|listener| !listener.is_stable);
        let services = services.into_iter().filter(|(_, of)| !of.stays);
        let services: Vec<_> = services.collect();
        let mut changes: Vec<_> =
            services.into_iter().filter_map(|(name, of)| self.change(name, of)).collect();
        changes.sort_unstable_by(|a, b| (a.cause, &a.server).cmp(&(b.cause, &b.server)));
        changes
    }

    /// What a change of all of its sockets says of a service.
    fn change(&mut self, name: ServiceName, of: OfService) -> Option<What> {
        let OfService { service, tenant, before, started, stays: _ } = of;
        let service = service?;
        let what = |cause, service, text| What {
            tenant,
            ..What::of_service(Kind::Service, cause, service, text)
        };
        if started.is_empty() {
            if self.ended.len() < MOST_ENDED || self.ended.contains_key(&name) {
                self.ended.insert(name, Ended(before));
            }
            return Some(what("service_stopped", service, "stopped"));
        }
        let was_there = !before.is_empty();
        let before = if was_there {
            Some(before)
        } else {
            self.ended.remove(&name).map(|Ended(before)| before)
        };
        let is_changed = before.is_some_and(|before| differ(&before, &started));
        let (cause, text) = match (was_there, is_changed) {
            (true, true) => ("service_changed", "restarted with another command line"),
            (false, true) => ("service_changed", "started with another command line"),
            (true, false) => ("service_restarted", "restarted"),
            (false, false) => ("service_started", "started"),
        };
        Some(what(cause, service, text))
    }

    /// Takes in edges that are gone and edges with news; returns what changed. `tenant` tells who has
    /// the owner with this number.
    pub fn of_edges(
        &mut self,
        closed: &[EdgeId],
        deltas: &[Delta],
        tenant: impl Fn(u32) -> Tenant,
    ) -> Vec<What> {
        let mut changes = Vec::new();
        for id in closed {
            if let Some(edge) = self.edges.remove(id) {
                self.leave(&edge, Some(&mut changes));
            }
        }
        for delta in deltas.iter().filter(|delta| is_shown(delta)) {
            let is_edge = matches!(delta.labels.role, Role::Client | Role::Server);
            // What has not counted under a name yet has no final one.
            let Some(total) = delta.grown.now.as_ref().filter(|_| is_edge) else { continue };
            if delta.is_overflow || total.opened == 0 {
                continue;
            }
            let known = self.edges.get(&delta.id);
            if known.is_some_and(|edge| Arc::ptr_eq(&edge.labels, &delta.labels)) {
                continue;
            }
            let (labels, tenant) = (Arc::clone(&delta.labels), tenant(delta.actor()));
            let edge = Edge { labels, backend: backend(delta), tenant };
            let is_earlier = !self.has_edges || total.preexisting > 0;
            match self.edges.remove(&delta.id) {
                None => self.enter(&edge, (!is_earlier).then_some(&mut changes)),
                // The same edge with a better name.
                Some(before) if pair(&before.labels) != pair(&edge.labels) => {
                    self.leave(&before, None);
                    self.enter(&edge, None);
                }
                Some(_) => {}
            }
            self.edges.insert(delta.id, edge);
        }
        self.has_edges = true;
        changes
    }

    /// Counts an edge; adds what is new to `changes`.
    fn enter(&mut self, edge: &Edge, changes: Option<&mut Vec<What>>) {
        let labels = &edge.labels;
        let rows = self.pairs.entry(pair(labels)).or_default();
        *rows += 1;
        let is_first = *rows == 1;
        let mut is_new_backend = false;
        if let Some(address) = edge.backend {
            let backends = self.backends.entry(server(labels)).or_default();
            is_new_backend = !backends.is_empty() && !backends.contains_key(&address);
            *backends.entry(address).or_default() += 1;
        }
        let Some(changes) = changes else { return };
        if let (true, Some(address)) = (is_new_backend, edge.backend) {
            changes.push(of_backend(edge, "backend_added", &format!("{address} is new")));
        }
        if is_first {
            changes.push(of_edge(edge, "edge_first_seen", "first seen"));
        }
    }

    fn leave(&mut self, edge: &Edge, changes: Option<&mut Vec<What>>) {
        let labels = &edge.labels;
        let is_last = leave(&mut self.pairs, &pair(labels));
        let mut is_last_of_backend = false;
        if let Some(address) = edge.backend {
            let key = server(labels);
            if let Some(backends) = self.backends.get_mut(&key) {
                is_last_of_backend = leave(backends, &address) && !backends.is_empty();
                if backends.is_empty() {
                    self.backends.remove(&key);
                }
            }
        }
        let Some(changes) = changes else { return };
        if let (true, Some(address)) = (is_last_of_backend, edge.backend) {
            let text = format!("{address} is no longer used");
            changes.push(of_backend(edge, "backend_removed", &text));
        }
        if is_last {
            changes.push(of_edge(edge, "edge_last_seen", "no longer used"));
        }
    }
}

/// Takes one away; returns whether it was the last.
fn leave<K: Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) -> bool {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        Some(_) => counts.remove(key).is_some(),
        None => false,
    }
}

/// Whether no command line is among both, as far as they are known.
fn differ(before: &BTreeSet<u64>, now: &BTreeSet<u64>) -> bool {
    let is_known = |lines: &BTreeSet<u64>| !lines.is_empty() && !lines.contains(&0);
    is_known(before) && is_known(now) && before.is_disjoint(now)
}

fn pair(labels: &EdgeLabels) -> Pair {
    let EdgeLabels { client, server, port, .. } = labels;
    (ServiceName::from(client), ServiceName::from(server), *port)
}

fn server(labels: &EdgeLabels) -> (ServiceName, u16) {
    (ServiceName::from(&labels.server), labels.port)
}

/// The address at which a client reaches the server.
fn backend(delta: &Delta) -> Option<SocketAddr> {
    let address = delta.key.remote;
    let is_known = delta.role == ROLE_CLIENT && address != UNSPECIFIED && address != INTERNET;
    is_known.then(|| SocketAddr::new(address::to_ip(address), delta.labels.port))
}

fn of_backend(edge: &Edge, cause: &'static str, text: &str) -> What {
    let Edge { labels, backend: _, tenant } = edge;
    let (port, tenant) = (Some(labels.port), Some(*tenant));
    let of_service = What::of_service(Kind::Backend, cause, labels.server.clone(), text);
    What { port, tenant, ..of_service }
}

fn of_edge(edge: &Edge, cause: &'static str, text: &str) -> What {
    let Edge { labels, backend: _, tenant } = edge;
    let (client, port) = (Some(labels.client.clone()), Some(labels.port));
    let of_service = What::of_service(Kind::Edge, cause, labels.server.clone(), text);
    What { client, port, tenant: Some(*tenant), ..of_service }
}
