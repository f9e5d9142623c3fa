//! The inventory of a source: plain tables that the source builds and the core looks names up in.
//!
//! A source builds a whole new inventory after every change and publishes it in a channel that
//! holds only the newest ([`sources`](super::sources)). So nothing queues up, a missed
//! event does no harm, and the core never waits.

use std::net::IpAddr;
use std::sync::Arc;

use agent_common::address::{self, Address};
use hashbrown::{HashMap, HashSet};

use super::cgroup_info::CgroupInfo;
use super::connections::Routes;
use model::port::{Port, Protocol};
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

/// A container that failed to start.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FailedStart {
    /// CLOCK_MONOTONIC microseconds.
    at_us: u64,
    workload: Workload,
}

/// A container that the engine did not start, because it had given a port of it to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// The network namespace that the port is in.
    pub netns: u32,
    /// The port.
    pub port: Port,
    /// The address; unspecified: all.
    pub address: IpAddr,
    /// When, CLOCK_MONOTONIC microseconds.
    pub at_us: u64,
    /// The container that was not started.
    pub claimant: Workload,
    /// The one that has the port.
    pub holder: Workload,
}

/// A port that a container was to publish when it was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RefusedStart {
    port: Port,
    address: IpAddr,
    at_us: u64,
    workload: Workload,
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

    /// An address that a container or pod has for itself. If two have it, it names neither.
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

    /// A port that a container failed to publish at its start; `at_us` is when the engine gave up,
    /// CLOCK_MONOTONIC microseconds.
    pub fn add_failed_start(&mut self, port: Port, at_us: u64, workload: Workload) {
        let start = FailedStart { at_us, workload };
        match self.failed_starts.get_mut(&port) {
            Some(starts) if starts.len() >= MAX_ENTRIES => self.dropped += 1,
            Some(starts) => starts.push(start),
            None => self.dropped += put(&mut self.failed_starts, port, vec![start]),
        }
    }

    /// A port at an address of a container that the engine created and could not start.
    pub fn add_refused_start(
        &mut self,
        port: Port,
        address: IpAddr,
        at_us: u64,
        workload: Workload,
    ) {
        if self.refused_starts.len() < MAX_ENTRIES {
            self.refused_starts.push(RefusedStart { port, address, at_us, workload });
        } else {
            self.dropped += 1;
        }
    }

    /// Containers that were not started, because another container of the engine has a port of them.
    pub fn allocated(&self) -> impl Iterator<Item = Allocated> {
        let published = |start: &RefusedStart| {
            let places = self.published.get(&start.port.number)?;
            let overlap = |at: Address| {
                let (at, wanted) = (address::to_ip(at), start.address);
                at == wanted || at.is_unspecified() || wanted.is_unspecified()
            };
            let other = |workload: &Workload| workload.entity != start.workload.entity;
            let holder = places.iter().find(|(at, workload)| overlap(*at) && other(workload));
            Some(Allocated {
                netns: self.published_in?,
                port: start.port,
                address: start.address,
                at_us: start.at_us,
                claimant: start.workload.clone(),
                holder: holder?.1.clone(),
            })
        };
        // Only published TCP ports are known.
        let of_tcp = |start: &&RefusedStart| start.port.protocol == Protocol::Tcp;
        self.refused_starts.iter().filter(of_tcp).filter_map(published)
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
        // A user names containers of that user only.
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

    /// The workload for which an engine failed to bind a port in a namespace: the first one whose
    /// start failed after the bind did. `at_us` is when the last of `count` binds failed,
    /// CLOCK_MONOTONIC microseconds. Several binds belong to one workload only if no other one has
    /// failed to publish this port lately.
    pub fn failed_start(
        &self,
        netns: u32,
        port: Port,
        at_us: u64,
        count: u64,
    ) -> Option<&Workload> {
        if self.published_in != Some(netns) {
            return None;
        }
        let starts = self.failed_starts.get(&port)?;
        let after = starts.iter().filter(|start| start.at_us >= at_us);
        let found = &after.min_by_key(|start| start.at_us)?.workload;
        let is_only = || starts.iter().all(|start| start.workload.entity == found.entity);
        (count <= 1 || is_only()).then_some(found)
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

    fn workload(name: &str) -> Workload {
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
    fn a_failed_start_is_known_in_the_runtimes_namespace_only() {
        let mut inventory = Inventory::default();
        inventory.publishes_in(7);
        inventory.add_failed_start(Port::tcp(5432), 10, workload("one"));
        assert_eq!(inventory.failed_start(7, Port::tcp(5432), 9, 1), Some(&workload("one")));
        assert_eq!(inventory.failed_start(7, Port::udp(5432), 9, 1), None);
        assert_eq!(inventory.failed_start(8, Port::tcp(5432), 9, 1), None);
        assert_eq!(inventory.published(7, None, 5432), None, "it is not published");
    }

    #[test]
    fn a_failed_bind_belongs_to_the_container_that_failed_next() {
        let mut inventory = Inventory::default();
        inventory.publishes_in(7);
        let port = Port::tcp(5432);
        inventory.add_failed_start(port, 10, workload("one"));
        assert_eq!(inventory.failed_start(7, port, 11, 1), None, "it had failed before");
        assert_eq!(inventory.failed_start(7, port, 9, 2), Some(&workload("one")));
        inventory.add_failed_start(port, 20, workload("two"));
        assert_eq!(inventory.failed_start(7, port, 9, 1), Some(&workload("one")));
        assert_eq!(inventory.failed_start(7, port, 11, 1), Some(&workload("two")));
        assert_eq!(inventory.failed_start(7, port, 11, 2), None, "one may be the other's");
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
