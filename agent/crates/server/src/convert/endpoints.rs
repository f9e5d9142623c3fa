//! Where services can be reached: from traffic, listening sockets and registrations.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use agent_common::edge::CONNECT_OK;
use api_types::{EndpointHealth, Endpoints, FoundBy, ServiceEndpoint, Timestamp, Window};
use model::registry::Endpoint;
use model::relations::ServiceName;
use model::service::{Kind, Service, Source};
use model::snapshot::{Role, Snapshot};

use super::ToApi;

/// Which endpoints.
#[derive(Clone, Debug)]
pub struct EndpointQuery {
    /// Names, or namespace/name; all if empty.
    pub services: Vec<String>,
    /// Only this port.
    pub port: Option<u16>,
    /// Observed endpoints had traffic in this time, seconds.
    pub seconds: u64,
    /// Whether loopback addresses are wanted too.
    pub loopback: bool,
}

/// An endpoint while all of them are collected.
struct Found {
    kind: Kind,
    source: Source,
    by: FoundBy,
}

/// The response.
pub fn endpoints(snapshot: &Snapshot, query: &EndpointQuery) -> Endpoints {
    let mut all: BTreeMap<(ServiceName, SocketAddr), Found> = BTreeMap::new();
    let mut add = |name: ServiceName, at: SocketAddr, found: Found| {
        if query.wants(&name, at) && names_instances(found.kind) {
            // What was seen to work says more than what was written down.
            let known = all.get(&(name.clone(), at)).map(|known| known.by);
            if known.is_none_or(|known| found.by < known) {
                all.insert((name, at), found);
            }
        }
    };
    let since = snapshot.taken_seconds - query.seconds as f64;
    for (flow, seen) in &*snapshot.related.flows.rows {
        // Behind a translation the address is not the service's own.
        let (Some(address), None) = (flow.server_address, &flow.virtual_service) else { continue };
        if seen.connections > 0 && seen.last_seconds as f64 >= since {
            let (kind, source) = seen.server;
            let at = SocketAddr::new(address.to_canonical(), flow.port);
            add(flow.server.clone(), at, Found { kind, source, by: FoundBy::Traffic });
        }
    }
    for listener in snapshot.listeners.iter().filter(|one| one.unverified_user.is_none()) {
        let Service { kind, source, .. } = listener.service;
        let at = SocketAddr::new(listener.address.to_canonical(), listener.port);
        let name = ServiceName::from(&listener.service);
        add(name, at, Found { kind, source, by: FoundBy::Listener });
    }
    for registration in snapshot.reservations.state.registry.iter() {
        let service = Service::registered(&registration.service);
        let in_force =
            |one: &&Endpoint| registration.is_in_force(one, snapshot.taken_seconds as u64);
        let endpoints = registration.endpoints.iter().filter(in_force);
        for at in endpoints.filter_map(Endpoint::socket) {
            let found =
                Found { kind: service.kind, source: service.source, by: FoundBy::Registration };
            add(ServiceName::from(&service), at, found);
        }
    }
    let health = health(snapshot);
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let endpoints =
        all.into_iter().map(|((name, at), Found { kind, source, by })| ServiceEndpoint {
            service: name.name.to_string(),
            service_namespace: name.namespace.to_string(),
            kind: kind.to_api(),
            source: source.to_api(),
            address: at.ip(),
            port: at.port(),
            found_by: by,
            health: health.get(&at).copied().unwrap_or(EndpointHealth::Unknown),
        });
    Endpoints {
        timestamp,
        window: Window::before(timestamp, query.seconds as f64),
        endpoints: endpoints.collect(),
    }
}

/// Whether an address of such a service is one of it: not of a name that leads to others, and not of
/// what has no name.
fn names_instances(kind: Kind) -> bool {
    match kind {
        Kind::KubernetesService
        | Kind::DnsName
        | Kind::Address
        | Kind::Internet
        | Kind::Unknown => false,
        Kind::Deployment
        | Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::ReplicaSet
        | Kind::CronJob
        | Kind::Job
        | Kind::Workload
        | Kind::Pod
        | Kind::ComposeService
        | Kind::Container
        | Kind::Unit
        | Kind::Process
        | Kind::Declared => true,
    }
}

/// How connects of the last minute went, by where they went.
fn health(snapshot: &Snapshot) -> HashMap<SocketAddr, EndpointHealth> {
    const SECONDS: u64 = 60;
    let (rows, _) = snapshot.recent.rows_by_address(SECONDS);
    let mut attempts: HashMap<SocketAddr, (u64, u64)> = HashMap::new();
    for row in rows.iter().filter(|row| row.labels.role == Role::Client) {
        let Some(at) = row.address else { continue };
        let connects = &row.counters.connects;
        let ok = connects.get(usize::from(CONNECT_OK)).copied().unwrap_or_default();
        let all: u64 = connects.iter().sum();
        let (total, good) = attempts.entry(at).or_default();
        *total += all;
        *good += ok;
    }
    let judged = attempts.into_iter().filter(|(_, (all, _))| *all > 0).map(|(at, (_, ok))| {
        (at, if ok > 0 { EndpointHealth::Ok } else { EndpointHealth::Failing })
    });
    judged.collect()
}

// === impl EndpointQuery ===

impl EndpointQuery {
    fn wants(&self, name: &ServiceName, at: SocketAddr) -> bool {
        let Self { services, port, seconds: _, loopback } = self;
        let is_place = |ip: IpAddr| !ip.is_unspecified() && (*loopback || !ip.is_loopback());
        is_place(at.ip())
            && at.port() > 0
            && port.is_none_or(|port| port == at.port())
            && (services.is_empty()
                || services.iter().any(|one| **one == *name.name || *one == name.to_string()))
    }
}
