//! Names: which service owns a socket, and which service is at the other end.
//!
//! [`Names::owner`] asks in this order; the first that knows wins:
//!
//! 1. [`rules`]: what the operator decided;
//! 2. what the slow sources have [`inventory`] of the container or pod that the owner's cgroup belongs
//!    to: Kubernetes, Docker, Podman, the CRI ([`sources`]);
//! 3. the id of that container ([`place`]);
//! 4. the systemd unit of the cgroup;
//! 5. [`process::Processes`]: the program, from its command name and arguments.
//!
//! [`Names::remote`] finds the other end in tables made from the last sweep and in what the
//! sources have told ([`remote`]).
//!
//! Names may arrive late: then the next source's name is used meanwhile and the question is asked
//! again later, at once when a source has told something new. [`Source`] is ordered from the
//! surest to the last resort, so whoever keeps a name may keep the surer one.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;

use agent_common::address::{self, Address};
use agent_common::edge::EdgeKey;
use agent_common::listener::ListenerRecord;
use agent_common::owner::{OWNER_OVERFLOW, OwnerRow};
use hashbrown::HashMap;

use agent_common::decode::dns;
use model::port::Port;
use model::service::{Service, Source};
use model::snapshot::SourceView;

mod addresses;
pub mod cgroup;
pub mod cgroup_info;
mod command_line;
pub mod docker_proxy;
mod flags;
mod found;
pub mod inventory;
mod listener;
pub mod process;
mod program_name;
pub mod remote;
mod resolved;
pub mod rules;
mod shell;
pub mod sources;
mod title;

use cgroup::{Cgroups, Lookup};
use cgroup_info::CgroupInfo;
pub use found::Found;
use inventory::{Inventory, Workload};
pub use remote::Client;
use rules::Rules;

/// Owners kept at most; the kernel's table is smaller.
const MAX_OWNERS: usize = 65_536;
/// How long to wait before the first retry; doubles with each.
const FIRST_RETRY_US: u64 = 500_000;
/// After this many retries an answer stays as it is.
const RETRIES: u32 = 8;
/// The name of owners without a name.
const UNKNOWN: &str = "unknown";

/// An owner, as those who name it see it.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The kernel's row.
    pub row: &'a OwnerRow,
    /// Where it lives, if that is known.
    pub cgroup_info: Option<&'a CgroupInfo>,
    /// The ports it listens on.
    pub ports: &'a [u16],
}

/// The names of everything, and what they are made from.
pub struct Names {
    rules: Rules,
    /// Whether systemd units are names.
    units: bool,
    cgroups: Cgroups,
    inventories: Vec<Arc<Inventory>>,
    /// Counts what has been told, so that an answer knows what it was made from.
    inventory_version: u64,
    /// Whether some source may yet tell of containers.
    containers_pending: bool,
    missing: bool,
    owners: HashMap<u32, Named>,
    ports: HashMap<u32, Vec<u16>>,
    remotes: remote::Remotes,
}

struct Named {
    born_us: u64,
    service: Service,
    inventory_version: u64,
    stable: bool,
    /// When to ask again, and how often that has happened; `None` once the answer is final.
    retry: Option<(u64, u32)>,
}

/// An answer and what may come of it.
struct Answer {
    service: Service,
    /// Asking again may find a better one.
    is_final: bool,
    /// A better one is to be expected in the next seconds.
    stable: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(Rules::default(), true, remote::MAX_ADDRESSES)
    }
}

impl Names {
    /// With the operator's rules; at most `addresses` ends are called by their address.
    pub fn new(rules: Rules, units: bool, addresses: usize) -> Self {
        Self::with_cgroups(rules, units, addresses, Cgroups::new())
    }

    /// As [`Names::new`] with places of one's own.
    pub fn with_cgroups(rules: Rules, units: bool, addresses: usize, cgroups: Cgroups) -> Self {
        Self {
            remotes: remote::Remotes::new(addresses),
            rules,
            units,
            cgroups,
            inventories: Vec::new(),
            inventory_version: 0,
            containers_pending: false,
            missing: false,
            owners: HashMap::new(),
            ports: HashMap::new(),
        }
    }

    /// What the slow sources know now, the surest first; `expecting` is whether some of them may
    /// yet tell of containers.
    pub fn set_inventories(&mut self, inventories: Vec<Arc<Inventory>>, containers_pending: bool) {
        self.containers_pending = containers_pending;
        let same = self.inventories.len() == inventories.len()
            && self.inventories.iter().zip(&inventories).all(|(old, new)| Arc::ptr_eq(old, new));
        if !same {
            self.inventory_version += 1;
            self.inventories = inventories;
        }
    }

    /// Whether a name was missed since the last call that a source might have.
    pub fn take_missing(&mut self) -> bool {
        std::mem::take(&mut self.missing) | self.remotes.take_missing()
    }

    /// The service of an owner row, and whether a better name is not to be expected in the next
    /// seconds. Remembered per slot until the row belongs to another owner (`born_us`); asks again
    /// if the answer was provisional and its time has come, or something new has been told.
    pub fn owner(&mut self, slot: u32, row: &OwnerRow, now_us: u64) -> (Service, bool) {
        if slot == OWNER_OVERFLOW {
            return (Service::other(), true);
        }
        let known = self.owners.get(&slot).filter(|known| known.born_us == row.born_us);
        let mut retries = 0;
        if let Some(Named { service, inventory_version, stable, retry, .. }) = known {
            let news = *inventory_version != self.inventory_version;
            match retry {
                Some((at, before)) if now_us >= *at => retries = before + 1,
                Some((_, before)) if news => retries = *before,
                None if news && service.source <= Source::Container => {}
                _ => return (service.clone(), *stable),
            }
        }
        let former = known.map(|known| known.service.clone());
        let Answer { service: found, is_final, stable } = self.ask(slot, row, now_us);
        let service = former.filter(|former| is_no_worse(former, &found)).unwrap_or(found);
        if self.owners.len() < MAX_OWNERS || self.owners.contains_key(&slot) {
            let wait = FIRST_RETRY_US << retries.min(RETRIES);
            let retry = (!is_final && retries < RETRIES).then_some((now_us + wait, retries));
            let named = Named {
                born_us: row.born_us,
                service: service.clone(),
                inventory_version: self.inventory_version,
                stable,
                retry,
            };
            self.owners.insert(slot, named);
        }
        (service, stable)
    }

    /// The service of an owner that has no row: a process that was there before the agent.
    pub fn owner_without_row(&mut self, row: &OwnerRow, now_us: u64) -> Service {
        // The overflow row's number is nobody's: no ports are known.
        self.ask(OWNER_OVERFLOW, row, now_us).service
    }

    /// Forgets a slot that the kernel half gave back.
    pub fn forget_owner(&mut self, slot: u32) {
        self.owners.remove(&slot);
    }

    /// Owners that no source could name (yet).
    pub fn unresolved(&self) -> u64 {
        self.owners.values().filter(|named| &*named.service.name == UNKNOWN).count() as u64
    }

    /// Which owner listens on which port. An owner whose ports are new is named anew.
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
                    named.retry = Some((0, 0));
                }
            }
        }
        self.ports = ports;
    }

    /// What listens where, from the last sweep, each with the name of its owner.
    pub fn set_listeners(&mut self, listeners: &[(ListenerRecord, Service)]) {
        self.remotes.set_listeners(listeners);
    }

    /// Which address belongs to which network namespace of this host (by inode).
    pub fn set_addresses(&mut self, addresses: &[(u32, Address)]) {
        self.remotes.set_addresses(addresses);
    }

    /// Whether there are namespaces of which the addresses are not known yet, and that may be
    /// containers'.
    pub fn set_unknown_namespaces(&mut self, unknown_namespaces: bool) {
        self.remotes.set_unknown_namespaces(unknown_namespaces);
    }

    /// What DNS servers have told programs of this host since the last time, and how many answers
    /// could not be read.
    pub fn learn_dns_answers(&mut self, answers: &[dns::Answer], malformed: u64, now_us: u64) {
        self.remotes.resolved.learn(answers, malformed, now_us);
    }

    /// How the names from DNS are.
    pub fn resolved(&self) -> SourceView {
        self.remotes.resolved.view()
    }

    /// Who connects where, from the edges of role client. Call after [`Self::set_addresses`].
    pub fn set_clients(&mut self, clients: &[Client]) {
        self.remotes.set_clients(clients, &self.inventories);
    }

    /// The service at the other end of an edge whose owner is in network namespace `netns`.
    ///
    /// Made from what the tables hold now: when a listener has gone, its name has too. Whoever
    /// labels rows that live longer should keep the surest name that a row ever had.
    pub fn remote(&mut self, netns: u32, key: &EdgeKey) -> Found {
        self.remotes.resolve(netns, key, &self.rules, &self.inventories)
    }

    /// The only service that listens on a port of a namespace: whose connections are there that
    /// nobody is known to have accepted.
    pub fn listening(&self, netns: u32, port: u16) -> Option<Service> {
        self.remotes.listening(netns, port).map(|service| service.found_by(Source::Listener))
    }

    /// The container behind a port that is published in this namespace, as its runtime calls it:
    /// whoever listens there does so for the container.
    pub fn published(&self, netns: u32, port: u16) -> Option<Service> {
        let workload =
            self.inventories.iter().find_map(|inventory| inventory.published(netns, None, port))?;
        Some(self.rules.workload(workload).unwrap_or_else(|| workload.service.clone()))
    }

    /// The container that was to publish a port in this namespace and did not start, as its
    /// runtime calls it.
    pub fn failed_to_publish(&self, netns: u32, port: Port) -> Option<Service> {
        let workload =
            self.inventories.iter().find_map(|inventory| inventory.refused(netns, port))?;
        Some(self.rules.workload(workload).unwrap_or_else(|| workload.service.clone()))
    }

    /// Whether a source tells of containers that publish their ports in this namespace.
    pub fn publishes_in(&self, netns: u32) -> bool {
        self.inventories.iter().any(|inventory| inventory.published_in() == Some(netns))
    }

    /// The service at an address and port, if anybody knows.
    pub fn server(&self, address: Address, port: u16) -> Option<Service> {
        self.remotes.at(address, port, &self.rules, &self.inventories)
    }

    /// Where the endpoints of Kubernetes Services that are ready listen.
    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        let ready = self.inventories.iter().flat_map(|inventory| inventory.ready());
        ready.map(|(address, port)| SocketAddr::new(address::to_ip(address), port))
    }

    /// Whether others answer in the place of this address and port.
    pub fn is_front(&self, address: Address, port: u16) -> bool {
        self.inventories.iter().any(|inventory| {
            inventory.frontend(address, port).is_some()
                || !inventory.answers(address, port).is_empty()
        })
    }

    /// The pod or container that has an address, by its own name.
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

    /// Asks who knows.
    fn ask(&mut self, slot: u32, row: &OwnerRow, now_us: u64) -> Answer {
        let certain = |service| Answer { service, is_final: true, stable: true };
        if row.key.cgroup == 0 && row.key.comm[0] == 0 {
            // No task was involved when the socket was first seen.
            return certain(Service::new("none", Source::Unknown));
        }
        let cgroup = self.cgroups.lookup(row, now_us);
        let cgroup_info = match &cgroup {
            Lookup::Found(info) => Some(&**info),
            Lookup::NotFound | Lookup::Pending => None,
        };
        let ports = self.ports.get(&slot).map_or(&[][..], Vec::as_slice);
        let owner = Owner { row, cgroup_info, ports };
        let workload = cgroup_info.and_then(|cgroup_info| {
            self.inventories.iter().find_map(|inventory| inventory.workload(cgroup_info))
        });
        if let Some(service) = self.rules.owner(&owner, workload) {
            return certain(service);
        }
        if let Some(Workload { service, .. }) = workload {
            return certain(service.clone());
        }
        let container = cgroup_info.and_then(CgroupInfo::container_name);
        let untold = container.is_some() && self.containers_pending;
        self.missing |= untold;
        let lost = cgroup == Lookup::Pending;
        let unit = || cgroup_info.filter(|_| self.units)?.unit.clone();
        let service = container
            .or_else(unit)
            .or_else(|| process::name(row))
            .unwrap_or_else(|| Service::new(UNKNOWN, Source::Unknown));
        Answer {
            service,
            is_final: !untold && !lost,
            stable: !(untold || lost && self.containers_pending),
        }
    }
}

/// Whether a name that was known is to stay although this one was found. The process may have
/// gone meanwhile, and what is known of it with it. A runtime is right about its containers.
fn is_no_worse(former: &Service, found: &Service) -> bool {
    former.source < found.source
        || (former.source == found.source && found.source >= Source::Container)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod values_tests;
