//! Names: which service owns a socket, and which service is at the remote end.
//!
//! [`Names::owner`] ([`owners`]) tries these in order; the first that has a name wins:
//!
//! 1. [`rules`]: the operator's rules;
//! 2. the [`inventory`] of each name source, for the container or pod of the owner's cgroup:
//!    Kubernetes, Docker, Podman, the CRI ([`sources`]);
//! 3. the id of that container ([`cgroup_info`]);
//! 4. the systemd unit of the cgroup;
//! 5. [`process::Processes`]: the program, from its command name and arguments.
//!
//! [`Names::remote`] finds the remote end in tables made from the last collection and in the
//! inventories of the sources ([`remote`]).
//!
//! A name may arrive late. Until then the next source's name is used, and the lookup is repeated
//! later, or at once when an inventory changes. [`Source`] is ordered from the most to the least
//! reliable, so a row can keep the more reliable of two names.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use agent_common::address::{self, Address};
use agent_common::edge::EdgeKey;
use agent_common::listener::ListenerRecord;
use agent_common::owner::OwnerRow;
use agent_common::share::Tenant;
use hashbrown::{HashMap, HashSet};

use agent_common::decode::dns;
use model::port::Port;
use model::service::{Service, Source};
use model::snapshot::SourceView;

mod acceptors;
mod addresses;
pub mod cgroup;
pub mod cgroup_info;
mod command_line;
pub mod connections;
mod container_labels;
pub mod docker_proxy;
mod flags;
mod found;
pub mod inventory;
mod listener;
mod manifest;
mod owners;
pub mod process;
pub mod processes;
mod program_name;
mod project;
pub mod remote;
mod resolved;
pub mod rules;
mod scopes;
mod shell;
pub mod sources;
mod title;
mod translated;

pub use acceptors::Acceptor;
use acceptors::Acceptors;
use cgroup::Cgroups;
use cgroup_info::CgroupInfo;
pub use found::Found;
pub use inventory::Allocated;
use inventory::Inventory;
use linux::addresses::Held;
use linux::executable::Executable;
use linux::probes::Probes;
use owners::Named;
use processes::Processes;
pub use remote::{Arrival, Client};
use rules::Rules;
pub use scopes::Namespaces;
use scopes::{Scope, Scopes};

/// An owner, with the inputs of rules.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The kernel's row.
    pub row: &'a OwnerRow,
    /// Its cgroup, if known.
    pub cgroup_info: Option<&'a CgroupInfo>,
    /// Its executable, if known.
    pub program: Option<&'a Executable>,
    /// The ports it listens on.
    pub ports: &'a [u16],
}

/// Resolves names, and holds the tables that they come from.
pub struct Names {
    rules: Rules,
    /// Whether systemd units are names.
    units: bool,
    cgroups: Cgroups,
    processes: Processes,
    inventories: Vec<Arc<Inventory>>,
    /// Incremented when an inventory changes; an answer records the version that it comes from.
    inventory_version: u64,
    /// Whether a source may still list new containers.
    containers_pending: bool,
    missing: bool,
    owners: HashMap<u32, Named>,
    ports: HashMap<u32, Vec<u16>>,
    scopes: Scopes,
    /// Owners whose network namespace has ended and whose number another one has now.
    past: HashSet<u32>,
    acceptors: Acceptors,
    remotes: remote::Remotes,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(Rules::default(), true, remote::MAX_ADDRESSES, &Probes::inline())
    }
}

impl Names {
    /// With the operator's rules; at most `addresses` peers are named by their address. `probes`
    /// read processes and cgroups.
    pub fn new(rules: Rules, units: bool, addresses: usize, probes: &Probes) -> Self {
        Self::with_cgroups(rules, units, addresses, Cgroups::new(probes.clone()), probes.clone())
    }

    /// As [`Names::new`], with this lookup of cgroups.
    pub fn with_cgroups(
        rules: Rules,
        units: bool,
        addresses: usize,
        cgroups: Cgroups,
        probes: Probes,
    ) -> Self {
        Self {
            remotes: remote::Remotes::new(addresses),
            processes: Processes::new(probes, rules.look_at_programs()),
            rules,
            units,
            cgroups,
            inventories: Vec::new(),
            inventory_version: 0,
            containers_pending: false,
            missing: false,
            owners: HashMap::new(),
            ports: HashMap::new(),
            scopes: Scopes::default(),
            past: HashSet::new(),
            acceptors: Acceptors::default(),
        }
    }

    /// The inventories, most reliable first; `expecting` is whether a source may still list new
    /// containers.
    pub fn set_inventories(&mut self, inventories: Vec<Arc<Inventory>>, containers_pending: bool) {
        self.containers_pending = containers_pending;
        // Where connections went says nothing of owners.
        let is_same = |(old, new): (&Arc<Inventory>, &Arc<Inventory>)| {
            Arc::ptr_eq(old, new) || (old.routes().is_some() && new.routes().is_some())
        };
        let same = self.inventories.len() == inventories.len()
            && self.inventories.iter().zip(&inventories).all(is_same);
        self.inventory_version += u64::from(!same);
        self.inventories = inventories;
    }

    /// Whether a name was missed since the last call that a source might have.
    pub fn take_missing(&mut self) -> bool {
        std::mem::take(&mut self.missing) | self.remotes.take_missing()
    }

    /// Number of lists of connections begun; `None` if there will be no more.
    pub fn set_connection_lists(&mut self, begun: Option<u64>) {
        self.remotes.set_connection_lists(begun);
    }

    /// Whether there are edges of which the connections were not listed yet: their names may change.
    pub fn awaits_connections(&self) -> bool {
        self.remotes.awaits_connections()
    }

    /// From now on learns of cgroups when they are made; call [`Self::take_cgroups`] at every
    /// collection.
    pub fn watch_cgroups(&mut self) -> std::io::Result<()> {
        self.cgroups.watch()
    }

    /// Takes in the cgroups that were made since the last call.
    pub fn take_cgroups(&mut self) {
        self.cgroups.take_new();
    }

    /// Which owner listens on which port. An owner whose ports have changed is looked up again.
    pub fn set_ports(&mut self, listeners: &[ListenerRecord]) {
        let mut ports: HashMap<u32, Vec<u16>> = HashMap::new();
        for record in listeners {
            ports.entry(record.owner).or_default().push(record.port);
        }
        for list in ports.values_mut() {
            list.sort_unstable();
            list.dedup();
        }
        if self.rules.look_at_ports() {
            for (owner, named) in &mut self.owners {
                if self.ports.get(owner) != ports.get(owner) {
                    named.look_again();
                }
            }
        }
        self.ports = ports;
    }

    /// The listeners of the last collection, each with the name of its owner.
    pub fn set_listeners(&mut self, listeners: &[(ListenerRecord, Found)]) {
        self.remotes.set_listeners(listeners);
    }

    /// Which address belongs to which network namespace of this host.
    pub fn set_addresses(&mut self, addresses: &[Held]) {
        self.remotes.set_addresses(addresses);
    }

    /// Where connections between services of this host have arrived: from edges of role server. Call
    /// after [`Self::set_addresses`].
    pub fn set_arrivals(&mut self, arrivals: &[Arrival]) {
        self.remotes.set_arrivals(arrivals);
    }

    /// Whether network namespaces may have come and gone since the last [`Names::set_namespaces`].
    pub fn set_doubt(&mut self, in_doubt: bool) {
        self.scopes.set_doubt(in_doubt);
    }

    /// Whether it is not sure in which namespace an owner was met: namespaces should be looked for.
    pub fn is_in_doubt(&self, row: &OwnerRow) -> bool {
        !self.scopes.has_seen(row.key.netns, row.born_us)
    }

    /// Whether the addresses of some namespaces are unknown and may be containers' addresses.
    pub fn set_unknown_namespaces(&mut self, unknown_namespaces: bool) {
        self.remotes.set_unknown_namespaces(unknown_namespaces);
    }

    /// DNS responses to programs of this host since the last call, and the number of unreadable
    /// ones.
    pub fn learn_dns_answers(&mut self, answers: &[dns::Answer], malformed: u64, now_us: u64) {
        self.remotes.learn_dns_answers(answers, malformed, now_us);
    }

    /// The state of the names from DNS.
    pub fn resolved(&self) -> SourceView {
        self.remotes.resolved.view()
    }

    /// Which client connects where, from the edges of role client; `is_complete` if these are all
    /// edges. Call after [`Self::set_addresses`].
    pub fn set_clients(&mut self, clients: &[Client], is_complete: bool) {
        self.remotes.set_clients(clients, is_complete, &self.inventories);
    }

    /// The service at the remote end of an edge whose owner is in network namespace `netns`.
    ///
    /// Looked up in the current tables: when a listener is gone, its name is gone too. Long-lived
    /// rows should keep the most reliable name that they ever had. `preexisting`: some of its
    /// connections are from before the agent, so no client has left a note for them.
    pub fn remote(&mut self, netns: u32, key: &EdgeKey, preexisting: bool) -> Found {
        let Self { owners, remotes, rules, inventories, .. } = self;
        remotes.set_tenant(owners.get(&key.owner).map_or(Tenant::OTHERS, |named| named.tenant));
        let found = remotes.resolve(netns, key, preexisting, rules, inventories);
        // An address that several namespaces have is another place for those that reach another one.
        let is_several = remotes.is_ambiguous(netns, key.remote);
        let is_local =
            |one: &Service| one.is_loopback() || is_several && one.source == Source::Address;
        if !is_local(&found.service) && !found.virtual_service.as_ref().is_some_and(is_local) {
            return found;
        }
        let Scope { label, is_final } = if is_several {
            self.place_of(netns, key.owner)
        } else {
            self.loopback_of(netns, key.owner)
        };
        let within = |one: Service| if is_local(&one) { one.within(&label) } else { one };
        Found {
            service: within(found.service),
            virtual_service: found.virtual_service.map(within),
            stable: found.stable && is_final,
            ..found
        }
    }

    /// The only service that listens on a port of a namespace: connections without a known owner
    /// are attributed to it.
    pub fn listening(&self, netns: u32, port: u16) -> Option<Service> {
        self.remotes.listening(netns, port).map(|service| service.found_by(Source::Listener))
    }

    /// The container whose port is published in this namespace. The process that listens there is
    /// a proxy of the runtime.
    pub fn published(&self, netns: u32, port: u16) -> Option<Service> {
        let workload =
            self.inventories.iter().find_map(|inventory| inventory.published(netns, None, port))?;
        Some(self.rules.workload(workload).unwrap_or_else(|| workload.service.clone()))
    }

    /// The container for which an engine failed to bind this port; `at_us` is when the last of
    /// `count` binds failed, CLOCK_MONOTONIC microseconds. Known once the engine reports it.
    pub fn failed_to_publish(
        &self,
        netns: u32,
        port: Port,
        at_us: u64,
        count: u64,
    ) -> Option<Service> {
        let mut inventories = self.inventories.iter();
        let workload =
            inventories.find_map(|inventory| inventory.failed_start(netns, port, at_us, count))?;
        Some(self.rules.workload(workload).unwrap_or_else(|| workload.service.clone()))
    }

    /// Containers that their engine did not start, because another container has a port of them.
    pub fn allocated(&self) -> impl Iterator<Item = Allocated> {
        self.inventories.iter().flat_map(|inventory| inventory.allocated())
    }

    /// Whether containers of some source publish their ports in this namespace, as far as is known
    /// yet.
    pub fn publishes_in(&self, netns: u32) -> bool {
        let mut known = self.inventories.iter().filter_map(|inventory| inventory.published_in());
        match known.next() {
            Some(first) => first == netns || known.any(|other| other == netns),
            None => self.containers_pending,
        }
    }

    /// The service at an address and port, if known.
    pub fn server(&self, address: Address, port: u16) -> Option<Service> {
        self.remotes.at(address, port, &self.rules, &self.inventories)
    }

    /// The ready endpoints of Kubernetes Services.
    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        let ready = self.inventories.iter().flat_map(|inventory| inventory.ready());
        ready.map(|(address, port)| SocketAddr::new(address::to_ip(address), port))
    }

    /// Whether this address and port is virtual: connections to it are answered by backends.
    pub fn is_front(&self, address: Address, port: u16) -> bool {
        self.inventories.iter().any(|inventory| inventory.frontend(address, port).is_some())
            || self.remotes.is_front(address, port)
    }

    /// The name of the pod or container that has an address.
    pub fn instance(&self, address: Address) -> Option<Arc<str>> {
        let workload = |inventory: &Arc<Inventory>| {
            let workload = inventory.at(address).or_else(|| inventory.endpoint(address))?;
            Some(Arc::clone(&workload.instance))
        };
        self.inventories
            .iter()
            .find_map(|inventory| workload(inventory).filter(|name| !name.is_empty()))
    }

    /// Table entries left out because a table was full.
    pub fn dropped(&self) -> u64 {
        self.remotes.dropped()
    }

    /// Adds what was known from connection tracking and found no room to the state of that source.
    pub fn add_dropped_connections(&self, sources: &mut [SourceView]) {
        for source in sources.iter_mut().filter(|source| source.name == sources::CONNTRACK) {
            source.dropped += self.remotes.dropped_connections();
        }
    }
}

/// A path as the kernel half records it.
#[cfg(test)]
fn test_path(path: &str) -> [u8; agent_common::owner::PATH_BYTES] {
    linux::procfs::last_names(path.as_bytes())
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod values_tests;
