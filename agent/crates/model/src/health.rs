//! Services and their health, from their traffic in a window or since the start.
//!
//! The figures of edges are summed up by service ([`traffic`]), and judged ([`verdict`]).

mod traffic;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use self::traffic::Key;
use super::port::Port;
use super::registry::{Endpoint, Registration};
use super::service::Service;
use super::snapshot::{EdgeLabels, ListenerView, Role, Snapshot};

pub use self::traffic::Traffic;
pub use self::verdict::{AcceptQueue, ClientHealth, Health, HealthReason, HealthState};

/// A service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceView {
    /// Its name, and the surest way in which it was found.
    pub service: Service,
    /// Endpoints registered by hand, without those that should have been renewed.
    pub registered: Vec<Endpoint>,
    /// All of the registration, if it has a check or ends.
    pub registration: Option<Registration>,
    /// Ports it listens on here.
    pub listens: BTreeSet<Port>,
    /// Its ports with clients.
    pub serves: BTreeSet<Port>,
    /// Its health.
    pub health: Health,
}

/// Every service of an edge, listener or registration, sorted by namespace and name, without the
/// unknown ones; their health is that of `traffic`, which took this many seconds.
pub fn services(snapshot: &Snapshot, traffic: &Traffic, seconds: f64) -> Vec<ServiceView> {
    let classes = &snapshot.related.directory.classes;
    let is_polled = |name: &str, namespace: &str| classes.is_polled(name, namespace);
    let mut found =
        Found { views: BTreeMap::new(), traffic, is_polled: &is_polled, window_seconds: seconds };
    found.meet_all(snapshot.edges.iter().map(|edge| &*edge.labels), &snapshot.listeners);
    for registration in snapshot.reservations.state.registry.iter() {
        let now = snapshot.taken_seconds as u64;
        let known =
            registration.endpoints.iter().filter(|one| registration.is_remembered(one, now));
        let known: Vec<_> = known.copied().collect();
        if known.is_empty() {
            continue;
        }
        let view = found.meet(&Service::registered(&registration.service));
        let in_force = known.iter().filter(|one| registration.is_in_force(one, now));
        view.registered = in_force.copied().collect();
        if registration.check.is_some() || registration.lease.is_some() {
            view.registration = Some(Registration { endpoints: known, ..registration.clone() });
        }
    }
    found.services()
}

/// The same of edges and listeners that come from elsewhere than from this host; `is_polled` says of
/// a name and namespace what [`Classes::is_polled`](super::directory::Classes::is_polled) does here.
pub fn services_of<'a>(
    edges: impl Iterator<Item = &'a EdgeLabels>,
    listeners: &[ListenerView],
    traffic: &Traffic,
    is_polled: &dyn Fn(&str, &str) -> bool,
    seconds: f64,
) -> Vec<ServiceView> {
    let mut found = Found { views: BTreeMap::new(), traffic, is_polled, window_seconds: seconds };
    found.meet_all(edges, listeners);
    found.services()
}

/// Services met so far.
struct Found<'a> {
    /// By namespace and name.
    views: BTreeMap<Key, ServiceView>,
    traffic: &'a Traffic,
    /// Of a name and namespace.
    is_polled: &'a dyn Fn(&str, &str) -> bool,
    window_seconds: f64,
}

impl Found<'_> {
    fn meet_all<'a>(
        &mut self,
        edges: impl Iterator<Item = &'a EdgeLabels>,
        listeners: &[ListenerView],
    ) {
        for labels in edges {
            self.meet(&labels.client);
            let server = self.meet(&labels.server);
            if labels.port != 0 && labels.role != Role::Listener {
                server.serves.insert(Port::tcp(labels.port));
            }
        }
        for listener in listeners {
            let view = self.meet(&listener.service);
            view.listens.insert(Port::tcp(listener.port));
            if listener.unverified_user.is_none() {
                view.health.add_queue(listener.accept_queue());
            }
        }
    }

    /// What was seen, services only.
    fn services(self) -> Vec<ServiceView> {
        let is_service = |view: &ServiceView| {
            !view.service.is_called_as(&Service::any()) && !view.service.is_loopback()
        };
        self.views.into_values().filter(is_service).collect()
    }

    fn meet(&mut self, service: &Service) -> &mut ServiceView {
        let Self { views, traffic, is_polled, window_seconds } = self;
        let view =
            views.entry((service.namespace.clone(), service.name.clone())).or_insert_with(|| {
                let key = (service.name.clone(), service.namespace.clone());
                let totals = traffic.of_service(&key, is_polled(&key.0, &key.1));
                ServiceView {
                    service: service.clone(),
                    registered: Vec::new(),
                    registration: None,
                    listens: BTreeSet::new(),
                    serves: BTreeSet::new(),
                    health: Health::of(&totals, *window_seconds),
                }
            });
        if service.source < view.service.source {
            view.service = service.clone();
        }
        view
    }
}

#[cfg(test)]
mod tests;
