//! Backends that are there although nobody may have connected to them, and what they are called:
//! those that weights declare, and the endpoints of Kubernetes Services.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use agent_common::address::from_ip;

use discovery::Names;
use model::balance::{Known, Weights};
use model::registry::At;
use model::relations::{RelationsView, ServiceName};

/// They are looked up again after so many seconds.
const EVERY_SECONDS: u64 = 5;

/// Keeps them.
#[derive(Default)]
pub(super) struct Backends {
    known: Arc<Known>,
    looked_at: Option<u64>,
}

// === impl Backends ===

impl Backends {
    /// What is known for the relations of `view`, some seconds old at most.
    pub(super) fn known(
        &mut self,
        view: &RelationsView,
        weights: &Weights,
        names: &Names,
        registry: At<'_>,
    ) -> Arc<Known> {
        if self.looked_at.is_none_or(|at| view.now >= at + EVERY_SECONDS) {
            self.looked_at = Some(view.now);
            self.known = Arc::new(look(view, weights, names, registry));
        }
        Arc::clone(&self.known)
    }
}

fn look(view: &RelationsView, weights: &Weights, names: &Names, registry: At<'_>) -> Known {
    let mut known = Known::default();
    let mut connected = BTreeSet::new();
    for (relation, _) in view.rows.iter().filter(|(relation, _)| relation.named) {
        connected.extend(relation.backend.address());
    }
    let ports: BTreeSet<u16> = connected.iter().map(SocketAddr::port).collect();
    let declared = weights.addresses().flat_map(|(ip, port)| {
        let ports = port.map_or_else(|| ports.iter().copied().collect(), |port| vec![port]);
        ports.into_iter().map(move |port| SocketAddr::new(ip, port))
    });
    let there: BTreeSet<SocketAddr> = declared.chain(names.endpoints()).collect();
    for address in &there {
        let (ip, port) = (address.ip(), address.port());
        let service = names.server(from_ip(ip), port);
        if let Some(service) = service.as_ref().or_else(|| registry.name(ip, port)) {
            known.add(ServiceName::from(service), *address);
        }
    }
    for address in connected.iter().chain(&there) {
        if names.is_front(from_ip(address.ip()), address.port()) {
            known.add_front(*address);
        }
    }
    let ips: BTreeSet<IpAddr> = connected.iter().chain(&there).map(SocketAddr::ip).collect();
    for ip in ips {
        if let Some(instance) = names.instance(from_ip(ip)) {
            known.call(ip, instance);
        }
    }
    known
}
