//! Backends that are known even without traffic, and the names of all backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::relations::{Backend, MAX_BACKENDS, ServiceName};

/// Known backends, with or without traffic, and their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    backends: HashMap<(ServiceName, u16), BTreeSet<SocketAddr>>,
    fronts: HashSet<SocketAddr>,
    pub(super) instances: HashMap<IpAddr, Arc<str>>,
}

impl Known {
    /// A backend of a server.
    pub fn add(&mut self, server: ServiceName, backend: SocketAddr) {
        self.backends.entry((server, backend.port())).or_default().insert(backend);
    }

    /// A virtual address, behind which backends answer.
    pub fn add_front(&mut self, address: SocketAddr) {
        self.fronts.insert(address);
    }

    /// Names the service at an address.
    pub fn call(&mut self, ip: IpAddr, instance: Arc<str>) {
        self.instances.insert(ip, instance);
    }

    /// The known backends of a server besides those in `got`. Behind a virtual address the
    /// answering backend is unknown.
    pub fn there<'a, T>(
        &'a self,
        server: &ServiceName,
        port: u16,
        got: &BTreeMap<Backend, T>,
    ) -> impl Iterator<Item = Backend> + use<'a, T> {
        let is_front = |backend: &Backend| match backend.address() {
            Some(address) => self.fronts.contains(&address),
            None => true,
        };
        let there = self.backends.get(&(server.clone(), port));
        let there = there.filter(|_| !got.keys().any(is_front)).into_iter().flatten();
        let backends = there.map(|address| Backend::Address(*address));
        backends.filter(move |backend| !is_front(backend)).take(MAX_BACKENDS)
    }
}
