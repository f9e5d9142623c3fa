//! Names: which service owns a socket, and which service is at the other end.
//!
//! [`Names::owner`] asks in this order; the first that knows wins:
//!
//! 1. [`rules`]: what the operator decided;
//! 2. what the slow sources have [`told`] of the container or pod that the owner's cgroup belongs
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
mod command_line;
pub mod docker_proxy;
mod flags;
mod found;
mod listener;
pub mod place;
pub mod process;
pub mod processes;
mod program_name;
pub mod remote;
mod resolved;
pub mod rules;
mod shell;
pub mod sources;
mod title;
pub mod told;

use cgroup::{Cgroups, Whereabouts};
pub use found::Found;
use linux::probes::Probes;
use place::Place;
use processes::{Process, Processes};
pub use remote::Client;
use rules::Rules;
use told::{Bearer, Told};

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
    pub place: Option<&'a Place>,
    /// Its executable, if that is known.
    pub program: Option<&'a str>,
    /// The ports it listens on.
    pub ports: &'a [u16],
}

/// The names of everything, and what they are made from.
pub struct Names {
    rules: Rules,
    /// Whether systemd units are names.
    units: bool,
    cgroups: Cgroups,
    processes: Processes,
    told: Vec<Arc<Told>>,
    /// Counts what has been told, so that an answer knows what it was made from.
    told_version: u64,
    /// Whether some source may yet tell of containers.
    expecting: bool,
    missing: bool,
    owners: HashMap<u32, Named>,
    ports: HashMap<u32, Vec<u16>>,
    remotes: remote::Remotes,
}

struct Named {
    born_us: u64,
    service: Service,
    told_version: u64,
    settled: bool,
    /// When to ask again, and how often that has happened; `None` once the answer is final.
    retry: Option<(u64, u32)>,
}

/// An answer and what may come of it.
struct Answer {
    service: Service,
    /// Asking again may find a better one.
    is_final: bool,
    /// A better one is not to be expected in the next seconds.
    settled: bool,
    /// It is being looked at: there may be a better one at the next drain.
    pending: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(Rules::default(), true, remote::MAX_ADDRESSES, &Probes::inline())
    }
}

impl Names {
    /// With the operator's rules; at most `addresses` ends are called by their address. `probes`
    /// look at processes and cgroups.
    pub fn new(rules: Rules, units: bool, addresses: usize, probes: &Probes) -> Self {
        Self::with_cgroups(rules, units, addresses, Cgroups::new(probes.clone()), probes.clone())
    }

    /// As [`Names::new`] with places of one's own.
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
            told: Vec::new(),
            told_version: 0,
            expecting: false,
            missing: false,
            owners: HashMap::new(),
            ports: HashMap::new(),
        }
    }

    /// What the slow sources know now, the surest first; `expecting` is whether some of them may
    /// yet tell of containers.
    pub fn set_told(&mut self, told: Vec<Arc<Told>>, expecting: bool) {
        self.expecting = expecting;
        let same = self.told.len() == told.len()
            && self.told.iter().zip(&told).all(|(old, new)| Arc::ptr_eq(old, new));
        if !same {
            self.told_version += 1;
            self.told = told;
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
        if let Some(Named { service, told_version, settled, retry, .. }) = known {
            let news = *told_version != self.told_version;
            match retry {
                Some((at, before)) if now_us >= *at => retries = before + 1,
                Some((_, before)) if news => retries = *before,
                None if news && service.source <= Source::Container => {}
                _ => return (service.clone(), *settled),
            }
        }
        let former = known.map(|known| known.service.clone());
        let Answer { service: found, is_final, settled, pending } =
            self.ask(slot, row, None, now_us);
        let service = former.filter(|former| is_no_worse(former, &found)).unwrap_or(found);
        if self.owners.len() < MAX_OWNERS || self.owners.contains_key(&slot) {
            // What is being looked at has an answer or is given up within seconds.
            let wait = if pending { 0 } else { FIRST_RETRY_US << retries.min(RETRIES) };
            let retries = if pending { retries.saturating_sub(1) } else { retries };
            let retry = (!is_final && retries < RETRIES).then_some((now_us + wait, retries));
            let named = Named {
                born_us: row.born_us,
                service: service.clone(),
                told_version: self.told_version,
                settled,
                retry,
            };
            self.owners.insert(slot, named);
        }
        (service, settled)
    }

    /// The service of an owner that has no row, of which this was seen: a process that was there
    /// before the agent. None while its cgroup is being looked at.
    pub fn stranger(
        &mut self,
        row: &OwnerRow,
        seen: &processes::Seen,
        now_us: u64,
    ) -> Option<Service> {
        // The overflow row's number is nobody's: no ports are known.
        let process = Some(Process::Seen(seen.clone()));
        let Answer { service, pending, .. } = self.ask(OWNER_OVERFLOW, row, process, now_us);
        (!pending).then_some(service)
    }

    /// Forgets a slot that the kernel half gave back.
    pub fn forget_owner(&mut self, slot: u32) {
        self.owners.remove(&slot);
        self.processes.forget(slot);
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
    pub fn set_strangers(&mut self, strangers: bool) {
        self.remotes.set_strangers(strangers);
    }

    /// What DNS servers have told programs of this host since the last time, and how many answers
    /// could not be read.
    pub fn set_answers(&mut self, answers: &[dns::Answer], malformed: u64, now_us: u64) {
        self.remotes.resolved.learn(answers, malformed, now_us);
    }

    /// How the names from DNS are.
    pub fn resolved(&self) -> SourceView {
        self.remotes.resolved.view()
    }

    /// Who connects where, from the edges of role client. Call after [`Self::set_addresses`].
    pub fn set_clients(&mut self, clients: &[Client]) {
        self.remotes.set_clients(clients, &self.told);
    }

    /// The service at the other end of an edge whose owner is in network namespace `netns`.
    ///
    /// Made from what the tables hold now: when a listener has gone, its name has too. Whoever
    /// labels rows that live longer should keep the surest name that a row ever had.
    pub fn remote(&mut self, netns: u32, key: &EdgeKey) -> Found {
        self.remotes.resolve(netns, key, &self.rules, &self.told)
    }

    /// The only service that listens on a port of a namespace: whose connections are there that
    /// nobody is known to have accepted.
    pub fn listening(&self, netns: u32, port: u16) -> Option<Service> {
        self.remotes.listening(netns, port).map(|service| service.found_by(Source::Listener))
    }

    /// The container behind a port that is published in this namespace, as its runtime calls it:
    /// whoever listens there does so for the container.
    pub fn published(&self, netns: u32, port: u16) -> Option<Service> {
        let bearer = self.told.iter().find_map(|told| told.published(netns, None, port))?;
        Some(self.rules.bearer(bearer).unwrap_or_else(|| bearer.service.clone()))
    }

    /// The container that was to publish a port in this namespace and did not start, as its
    /// runtime calls it.
    pub fn refused(&self, netns: u32, port: Port) -> Option<Service> {
        let bearer = self.told.iter().find_map(|told| told.refused(netns, port))?;
        Some(self.rules.bearer(bearer).unwrap_or_else(|| bearer.service.clone()))
    }

    /// Whether a source tells of containers that publish their ports in this namespace.
    pub fn publishes_in(&self, netns: u32) -> bool {
        self.told.iter().any(|told| told.published_in() == Some(netns))
    }

    /// The service at an address and port, if anybody knows.
    pub fn server(&self, address: Address, port: u16) -> Option<Service> {
        self.remotes.at(address, port, &self.rules, &self.told)
    }

    /// Where the endpoints of Kubernetes Services that are ready listen.
    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> {
        let ready = self.told.iter().flat_map(|told| told.ready());
        ready.map(|(address, port)| SocketAddr::new(address::to_ip(address), port))
    }

    /// Whether others answer in the place of this address and port.
    pub fn is_front(&self, address: Address, port: u16) -> bool {
        self.told.iter().any(|told| {
            told.frontend(address, port).is_some() || !told.answers(address, port).is_empty()
        })
    }

    /// The pod or container that has an address, by its own name.
    pub fn instance(&self, address: Address) -> Option<Arc<str>> {
        let bearer = |told: &Arc<Told>| {
            let bearer = told.at(address).or_else(|| told.endpoint(address))?;
            Some(Arc::clone(&bearer.instance))
        };
        self.told.iter().find_map(|told| bearer(told).filter(|name| !name.is_empty()))
    }

    /// Table entries left out because a table was full.
    pub fn dropped(&self) -> u64 {
        self.remotes.dropped()
    }

    /// Asks who knows. `process` is what was seen of the process, if it was looked at already.
    fn ask(
        &mut self,
        slot: u32,
        row: &OwnerRow,
        mut process: Option<Process>,
        now_us: u64,
    ) -> Answer {
        let certain = |service| Answer { service, is_final: true, settled: true, pending: false };
        if row.key.cgroup == 0 && row.key.comm[0] == 0 {
            // No task was involved when the socket was first seen.
            return certain(Service::new("none", Source::Unknown));
        }
        let whereabouts = self.cgroups.place(row, now_us);
        let place = match &whereabouts {
            Whereabouts::At(place) => Some(&**place),
            Whereabouts::Nowhere | Whereabouts::Pending | Whereabouts::NotYet => None,
        };
        let ports = self.ports.get(&slot).map_or(&[][..], Vec::as_slice);
        let by_program = self.rules.look_at_programs();
        if by_program && process.is_none() {
            process = Some(self.processes.look(slot, row));
        }
        let program = match &process {
            Some(Process::Seen(seen)) => seen.executable.as_deref(),
            _ => None,
        };
        let owner = Owner { row, place, program, ports };
        let bearer = place.and_then(|place| self.told.iter().find_map(|told| told.bearer(place)));
        if let Some(service) = self.rules.owner(&owner, bearer) {
            return certain(service);
        }
        let looks_on =
            whereabouts == Whereabouts::Pending || matches!(process, Some(Process::Pending));
        if let Some(Bearer { service, .. }) = bearer.filter(|_| !looks_on) {
            return certain(service.clone());
        }
        let bearer = bearer.map(|bearer| bearer.service.clone());
        let container = place.and_then(Place::container_name);
        let untold = container.is_some() && bearer.is_none() && self.expecting;
        self.missing |= untold;
        let lost = whereabouts == Whereabouts::NotYet;
        let unit = || place.filter(|_| self.units)?.unit.clone();
        let program = || {
            let process = process.get_or_insert_with(|| self.processes.look(slot, row));
            match process {
                Process::Seen(seen) => seen.name.clone(),
                Process::Pending | Process::Unseen => process::name(row),
            }
        };
        let service = bearer
            .or(container)
            .or_else(unit)
            .or_else(program)
            .unwrap_or_else(|| Service::new(UNKNOWN, Source::Unknown));
        let pending =
            whereabouts == Whereabouts::Pending || matches!(process, Some(Process::Pending));
        Answer {
            service,
            is_final: !untold && !lost && !pending,
            settled: !(untold || lost && self.expecting || pending),
            pending,
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
