//! The inventory of a source: plain tables that the source builds and the core looks names up in.
//!
//! A source builds a whole new inventory after every change and publishes it in a channel that
//! holds only the newest ([`sources`](super::sources)). So nothing queues up, a missed
//! event does no harm, and the core never waits.

mod starts;

use std::sync::Arc;

use agent_common::address::{self, Address};
use hashbrown::{HashMap, HashSet};

pub use self::starts::Allocated;
use self::starts::{FailedStart, RefusedStart};
use super::cgroup_info::CgroupInfo;
use super::connections::Routes;
use model::port::Port;
use model::service::{Entity, Service};

/// Maximum number of entries of a table; more are counted and left out.
pub const MAX_ENTRIES: usize = 65_536;

/// A container or pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub service: Service,
    /// Its identity, whatever its name is.
    pub entity: Entity,
    /// The name of the pod or container itself; empty if unknown.
    pub instance: Arc<str>,
    /// Those of its labels that rules of the configuration match, or that are exported.
    pub labels: Arc<[(String, String)]>,
}

/// A Kubernetes Service as clients address it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Its name.
    pub service: Service,
    /// The addresses of its endpoints.
    pub backends: Vec<Address>,
}

/// Everything that one source knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    containers: HashMap<Box<str>, Workload>,
    /// What a container is if its cgroup is a pod's.
    in_pods: HashMap<Box<str>, Workload>,
    /// The user whose engine it is of.
    engine_of: Option<u32>,
    pods: HashMap<Box<str>, Workload>,
    /// `None` if two workloads have it.
    addresses: HashMap<Address, Option<Workload>>,
    /// Endpoints of Services, on any host.
    endpoints: HashMap<Address, Workload>,
    frontends: HashMap<(Address, u16), Frontend>,
    /// Addresses and ports of ready endpoints.
    ready: HashSet<(Address, u16)>,
    published: HashMap<u16, Vec<(Address, Workload)>>,
    /// Containers that failed to start, by port.
    failed_starts: HashMap<Port, Vec<FailedStart>>,
    /// Those of them that were never started.
    refused_starts: Vec<RefusedStart>,
    published_in: Option<u32>,
    routes: Option<Arc<Routes>>,
    dropped: u64,
}

impl Inventory {
    /// Only where translated connections went.
    pub fn of_routes(routes: Routes) -> Self {
        Self { dropped: routes.dropped, routes: Some(Arc::new(routes)), ..Self::default() }
    }

    /// A container, by its id of 64 hex digits.
    pub fn add_container(&mut self, id: &str, workload: Workload) {
        self.dropped += put(&mut self.containers, id.into(), workload);
    }

    /// What a container is if its cgroup is a pod's: the author of an image may give it labels
    /// of one.
    pub fn add_in_pod(&mut self, id: &str, workload: Workload) {
        self.dropped += put(&mut self.in_pods, id.into(), workload);
    }

    /// These are containers of an engine that this user runs.
    pub fn set_engine_of(&mut self, uid: u32) {
        self.engine_of = Some(uid);
    }

    /// A pod, by its uid.
    pub fn add_pod(&mut self, uid: &str, workload: Workload) {
        self.dropped += put(&mut self.pods, uid.into(), workload);
    }

    /// An address of a single container or pod. If two have it, it names neither.
    pub fn add_address(&mut self, address: Address, workload: &Workload) {
        if address == address::UNSPECIFIED || address::to_ip(address).is_unspecified() {
            return;
        }
        if let Some(known) = self.addresses.get_mut(&address) {
            if known.as_ref().is_none_or(|known| known.entity.differs(workload.entity)) {
                *known = None;
            }
            return;
        }
        self.dropped += put(&mut self.addresses, address, Some(workload.clone()));
    }

    /// An endpoint of a Service that may be on another host.
    pub fn add_endpoint(&mut self, address: Address, workload: Workload) {
        self.dropped += put(&mut self.endpoints, address, workload);
    }

    /// A port of an endpoint that is ready for connections.
    pub fn add_ready(&mut self, address: Address, port: u16) {
        if self.ready.len() >= MAX_ENTRIES && !self.ready.contains(&(address, port)) {
            self.dropped += 1;
            return;
        }
        self.ready.insert((address, port));
    }

    /// A Service, by an address and port of its own.
    pub fn add_frontend(&mut self, address: Address, port: u16, frontend: Frontend) {
        self.dropped += put(&mut self.frontends, (address, port), frontend);
    }

    /// A port published at an address (or all) of the network namespace of the runtime.
    pub fn add_published(&mut self, address: Address, port: u16, workload: Workload) {
        if self.published.len() >= MAX_ENTRIES && !self.published.contains_key(&port) {
            self.dropped += 1;
            return;
        }
        self.published.entry(port).or_default().push((address, workload));
    }

    /// The network namespace that published ports are in.
    pub fn publishes_in(&mut self, netns: u32) {
        self.published_in = Some(netns);
    }

    /// The containers and pods of this host.
    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.containers.values().chain(self.in_pods.values()).chain(self.pods.values())
    }

    /// The workload of a cgroup.
    pub fn workload(&self, cgroup_info: &CgroupInfo) -> Option<&Workload> {
        let CgroupInfo { container, pod, rootless, .. } = cgroup_info;
        let in_pod = || pod.as_ref().and(self.in_pods.get(container.as_deref()?));
        let by_container = || self.containers.get(container.as_deref()?);
        let by_pod = || self.pods.get(pod.as_deref()?);
        // The engine of a user names containers of that user only.
        let of_user = || {
            let (uid, id) = rootless.as_ref().filter(|(uid, _)| self.engine_of == Some(*uid))?;
            (*uid != 0).then(|| self.containers.get(id))?
        };
        in_pod().or_else(by_container).or_else(by_pod).or_else(of_user)
    }

    /// The workload that has an address for itself.
    pub fn at(&self, address: Address) -> Option<&Workload> {
        self.addresses.get(&address)?.as_ref()
    }

    /// The endpoint at an address.
    pub fn endpoint(&self, address: Address) -> Option<&Workload> {
        self.endpoints.get(&address)
    }

    /// Addresses and ports of ready endpoints.
    pub fn ready(&self) -> impl Iterator<Item = (Address, u16)> {
        self.ready.iter().copied()
    }

    /// The Service that clients reach at an address and port.
    pub fn frontend(&self, address: Address, port: u16) -> Option<&Frontend> {
        self.frontends.get(&(address, port))
    }

    /// The workload whose port is published in a namespace, at this address or, without one, at any.
    pub fn published(&self, netns: u32, address: Option<Address>, port: u16) -> Option<&Workload> {
        if self.published_in != Some(netns) {
            return None;
        }
        let serves = |at: Address| {
            address.is_none_or(|wanted| {
                let (at, wanted) = (address::to_ip(at), address::to_ip(wanted));
                at == wanted || (at.is_unspecified() && at.is_ipv4() == wanted.is_ipv4())
            })
        };
        self.published.get(&port)?.iter().find(|(at, _)| serves(*at)).map(|(_, workload)| workload)
    }

    /// The network namespace that published ports are in.
    pub fn published_in(&self) -> Option<u32> {
        self.published_in
    }

    /// Where translated connections went, if this is the inventory of connection tracking.
    pub fn routes(&self) -> Option<&Arc<Routes>> {
        self.routes.as_ref()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        let Self {
            containers,
            // Of the same containers.
            in_pods: _,
            pods,
            addresses,
            endpoints,
            frontends,
            ready: _,
            published,
            failed_starts,
            // Of failed starts.
            refused_starts: _,
            published_in: _,
            routes,
            engine_of: _,
            dropped: _,
        } = self;
        containers.len()
            + pods.len()
            + addresses.len()
            + endpoints.len()
            + frontends.len()
            + published.len()
            + failed_starts.values().map(Vec::len).sum::<usize>()
            + routes.as_ref().map_or(0, |routes| routes.routes.len())
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of entries that did not fit.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Inserts into a bounded table; returns how many entries did not fit (0 or 1).
fn put<K: Eq + std::hash::Hash, V>(table: &mut HashMap<K, V>, key: K, value: V) -> u64 {
    if table.len() >= MAX_ENTRIES && !table.contains_key(&key) {
        return 1;
    }
    table.insert(key, value);
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::service::Source;
    use std::net::IpAddr;

    fn ip(text: &str) -> Address {
        address::from_ip(text.parse::<IpAddr>().unwrap())
    }

    pub(super) fn workload(name: &str) -> Workload {
        let service = Service::new(name, Source::Docker);
        Workload {
            service,
            entity: Entity::of(name),
            instance: name.into(),
            labels: Arc::default(),
        }
    }

    #[test]
    fn an_address_that_two_have_names_neither() {
        let mut inventory = Inventory::default();
        for (address, who) in
            [("10.0.0.2", "a"), ("10.0.0.3", "b"), ("10.0.0.2", "a"), ("10.0.0.3", "c")]
        {
            inventory.add_address(ip(address), &workload(who));
        }
        assert_eq!(inventory.at(ip("10.0.0.2")), Some(&workload("a")));
        assert_eq!(inventory.at(ip("10.0.0.3")), None);
    }

    #[test]
    fn a_published_port_is_found_at_its_address_in_its_namespace() {
        let mut inventory = Inventory::default();
        inventory.add_published(ip("0.0.0.0"), 8080, workload("web"));
        inventory.add_published(ip("127.0.0.1"), 5432, workload("db"));
        let check = |netns, address: Option<&str>, port, expected: Option<&str>| {
            let found = inventory.published(netns, address.map(ip), port);
            assert_eq!(found.map(|workload| &*workload.service.name), expected);
        };
        check(7, Some("10.0.0.1"), 8080, None);
        inventory.publishes_in(7);
        let check = |netns, address: Option<&str>, port, expected: Option<&str>| {
            let found = inventory.published(netns, address.map(ip), port);
            assert_eq!(found.map(|workload| &*workload.service.name), expected);
        };
        check(7, Some("10.0.0.1"), 8080, Some("web"));
        check(7, Some("::1"), 8080, None);
        check(7, None, 8080, Some("web"));
        check(7, Some("127.0.0.1"), 5432, Some("db"));
        check(7, Some("10.0.0.1"), 5432, None);
        check(8, Some("10.0.0.1"), 8080, None);
    }

    #[test]
    fn a_table_is_bounded_and_counts_what_it_left_out() {
        let mut inventory = Inventory::default();
        for number in 0..MAX_ENTRIES as u32 + 10 {
            inventory.add_address([0, 0, address::MAPPED, number + 1], &workload("a"));
        }
        assert_eq!((inventory.len(), inventory.dropped()), (MAX_ENTRIES, 10));
    }
}
