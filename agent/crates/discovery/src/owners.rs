//! The names of owners: a cache over the sources, which are asked in order.

use agent_common::owner::{OWNER_OVERFLOW, OwnerRow};
use agent_common::share::Tenant;
use agent_common::wire::Wire as _;
use hashbrown::HashSet;

use super::cgroup::Lookup;
use super::cgroup_info::CgroupInfo;
use super::found::Found;
use super::inventory::Workload;
use super::processes::{self, Process};
use super::scopes::{self, Namespaces, Place, Scope, Updated};
use super::{Names, Owner, process};
use model::service::{Entity, Service, Source};

/// Owners kept at most; the kernel's table is smaller.
pub(super) const MAX_OWNERS: usize = 65_536;
/// How long to wait before the first retry; doubles with each.
const FIRST_RETRY_US: u64 = 500_000;
/// After this many retries an answer is final.
const RETRIES: u32 = 8;
/// The name of owners that no source can name.
const UNKNOWN: &str = "unknown";

/// A name that was found.
pub(super) struct Named {
    born_us: u64,
    netns: u32,
    place: Place,
    pub(super) tenant: Tenant,
    pub(super) service: Service,
    entity: Entity,
    inventory_version: u64,
    stable: bool,
    /// A probe was pending when the name was found; its result replaces the name.
    is_interim: bool,
    /// When to retry, and how many retries there were; `None` once the answer is final.
    pub(super) retry: Option<(u64, u32)>,
}

/// An answer, and whether a better one may follow.
struct Answer {
    service: Service,
    /// Its identity, whatever its name: the container or pod, else the owner itself.
    entity: Entity,
    /// No later lookup will find a better one.
    is_final: bool,
    /// No better one is expected in the next seconds.
    stable: bool,
    /// A probe is pending: a better answer may arrive in the next collection.
    running: bool,
}

// === impl Named ===

impl Named {
    /// Looks the name up again at once.
    pub(super) fn look_again(&mut self) {
        self.retry = Some((0, 0));
    }
}

// === impl Names ===

impl Names {
    /// The service of an owner row. The answer is cached per slot until the row belongs to another
    /// owner (`born_us`). A provisional answer is looked up again when its retry is due or an
    /// inventory has changed.
    pub fn owner(&mut self, slot: u32, row: &OwnerRow, now_us: u64) -> Found {
        if slot == OWNER_OVERFLOW {
            return Found::new(Service::other());
        }
        if row.key.is_others() {
            return self.others(row.tenant, now_us);
        }
        let known = self.owners.get(&slot).filter(|known| known.born_us == row.born_us);
        let mut retries = 0;
        if let Some(Named { service, entity, inventory_version, stable, retry, .. }) = known {
            let news = *inventory_version != self.inventory_version;
            match retry {
                Some((at, before)) if now_us >= *at => retries = before + 1,
                Some((_, before)) if news => retries = *before,
                None if news && service.source <= Source::Container => {}
                _ => {
                    return Found {
                        entity: *entity,
                        stable: *stable,
                        ..Found::new(service.clone())
                    };
                }
            }
        }
        let former = known.filter(|known| !known.is_interim).map(|known| known.service.clone());
        let former_entity = known.map_or(Entity::UNKNOWN, |known| known.entity);
        let place = known.map(|known| &known.place).filter(|place| place.is_known()).cloned();
        let mut place = place.unwrap_or_else(|| self.scopes.place(row.key.netns, row.born_us));
        let Answer { service: found, entity, is_final, stable, running } =
            self.ask(slot, row, None, now_us);
        let former = former.filter(|former| is_at_least_as_good(former, &found));
        let entity = if entity == Entity::UNKNOWN { former_entity } else { entity };
        let service = former.as_ref().unwrap_or(&found).clone();
        let (service, is_scoped) = self.scoped(service, row, &mut place);
        let running = running || !is_scoped;
        let (is_final, stable) = (is_final && is_scoped, stable && is_scoped);
        let is_interim = running && former.is_none();
        if self.owners.len() < MAX_OWNERS || self.owners.contains_key(&slot) {
            // A pending probe is answered or abandoned within seconds.
            let wait = if running { 0 } else { FIRST_RETRY_US << retries.min(RETRIES) };
            let retries = if running { retries.saturating_sub(1) } else { retries };
            if self.scopes.is_past(row.key.netns, &place) {
                self.past.insert(slot);
            } else {
                self.past.remove(&slot);
            }
            let retry = (!is_final && retries < RETRIES).then_some((now_us + wait, retries));
            let named = Named {
                born_us: row.born_us,
                netns: row.key.netns,
                place,
                tenant: row.tenant,
                service: service.clone(),
                entity,
                inventory_version: self.inventory_version,
                stable,
                is_interim,
                retry,
            };
            self.owners.insert(slot, named);
        }
        Found { entity, stable, ..Found::new(service) }
    }

    /// What stands for owners and edges of a tenant that found no row of their own: `other`, in a
    /// namespace that says who the tenant is, as far as root has named it: the user who made the
    /// namespaces, else the unit, slice or container.
    pub fn others(&mut self, tenant: Tenant, now_us: u64) -> Found {
        let other = Service::other();
        if let Some(user) = tenant.user() {
            return Found::new(other.within(&format!("user-{user}")));
        }
        let mut row = OwnerRow::zeroed();
        row.key.cgroup = tenant.cgroup;
        match self.cgroups.lookup(&row, now_us) {
            Lookup::Found(info) => Found::new(other.within(&info.upper)),
            Lookup::NotFound => Found::new(other),
            Lookup::Running | Lookup::Pending => Found { stable: false, ..Found::new(other) },
        }
    }

    /// The service of a process without a row in the kernel's table, and whether a later look at it
    /// finds no better name. `None` while a probe reads its cgroup.
    pub fn owner_without_row(
        &mut self,
        row: &OwnerRow,
        seen: &processes::Seen,
        now_us: u64,
    ) -> Option<(Service, bool)> {
        // The overflow row belongs to no owner: its ports are unknown.
        let process = Some(Process::Seen(seen.clone()));
        let answer = self.ask(OWNER_OVERFLOW, row, process, now_us);
        let Answer { service, is_final, running, .. } = answer;
        (!running).then(|| (self.scoped(service, row, &mut Place::unknown()).0, is_final))
    }

    /// Forgets a slot that was freed.
    pub fn forget_owner(&mut self, slot: u32) {
        self.owners.remove(&slot);
        self.past.remove(&slot);
        self.processes.forget(slot);
        self.acceptors.retain(|(owner, _), _| *owner != slot);
        self.remotes.forget_owner(slot);
    }

    /// Owners that no source could name (yet).
    pub fn unresolved(&self) -> u64 {
        self.owners.values().filter(|named| &*named.service.name == UNKNOWN).count() as u64
    }

    /// A program's name with the namespace that it is unique in, and whether that stays.
    fn scoped(&mut self, service: Service, row: &OwnerRow, place: &mut Place) -> (Service, bool) {
        if !scopes::needs_scope(&service) {
            return (service, true);
        }
        let netns = row.key.netns;
        if self.scopes.is_past(netns, place) {
            return (service.within(&place.scope().label), true);
        }
        let scope = self.scope(netns);
        place.set_scope(&scope);
        (service.within(&scope.label), scope.is_final && self.scopes.has_seen(netns, row.born_us))
    }

    /// The network namespaces of this host. Call after [`Self::set_addresses`].
    pub fn set_namespaces(&mut self, found: Namespaces<'_>) {
        let Updated { is_renamed, others, seen_us } = self.scopes.update(found);
        self.past.clear();
        for (owner, named) in &mut self.owners {
            let Named { born_us, netns, place, service, .. } = named;
            if !place.is_known() {
                place.settle(&self.scopes.place(*netns, *born_us));
            }
            if self.scopes.is_past(*netns, place) {
                self.past.insert(*owner);
            } else if is_renamed && service.source == Source::Process {
                named.look_again();
            }
        }
        self.remotes.resolved.forget(&others, seen_us);
    }

    /// The network namespace of an owner, as far as it could be told from others that had its number
    /// before or have it now.
    pub fn namespace_of(&self, owner: u32) -> Entity {
        self.owners.get(&owner).map_or(Entity::UNKNOWN, |named| named.place.entity())
    }

    /// Owners whose network namespace has ended and whose number another one has now.
    pub fn past(&self) -> &HashSet<u32> {
        &self.past
    }

    /// Whether an owner is one of [`Self::past`].
    pub fn is_past(&self, owner: u32) -> bool {
        self.past.contains(&owner)
    }

    /// The owner acts in the namespace that has the number now.
    pub fn enter(&mut self, owner: u32) {
        self.past.remove(&owner);
        let Some(named) = self.owners.get_mut(&owner) else { return };
        named.place = self.scopes.present(named.netns);
        named.look_again();
    }

    /// What is unique in a network namespace only.
    fn scope(&mut self, netns: u32) -> Scope {
        self.scopes.of(netns, self.remotes.is_tenants(netns))
    }

    /// A loopback address that no service listens on is a place of the one that connects to it: in
    /// the host's network namespace of the host, else of this workload, or of the network namespace
    /// of this program.
    pub(super) fn loopback_of(&mut self, netns: u32, owner: u32) -> Scope {
        if self.scopes.is_host(netns) {
            return self.scope(netns);
        }
        match self.owners.get(&owner) {
            Some(Named { service, stable, .. })
                if service.source < Source::Process && service.source != Source::Rule =>
            {
                Scope { label: scopes::of_workload(service), is_final: *stable }
            }
            _ => self.place_of(netns, owner),
        }
    }

    /// The network namespace of an owner, whatever that is.
    pub(super) fn place_of(&mut self, netns: u32, owner: u32) -> Scope {
        match self.owners.get(&owner).filter(|_| self.is_past(owner)) {
            Some(named) => named.place.scope(),
            None => self.scope(netns),
        }
    }

    /// Looks a name up in all sources. `process` is the result of a probe of the process, if there
    /// is one.
    fn ask(
        &mut self,
        slot: u32,
        row: &OwnerRow,
        mut process: Option<Process>,
        now_us: u64,
    ) -> Answer {
        let own = identity(slot, row);
        let certain = |service, entity| Answer {
            service,
            entity,
            is_final: true,
            stable: true,
            running: false,
        };
        if row.key.cgroup == 0 && row.key.comm[0] == 0 {
            // The socket was first seen outside of any process.
            return certain(Service::new("none", Source::Unknown), own);
        }
        let cgroup = self.cgroups.lookup(row, now_us);
        let cgroup_info = match &cgroup {
            Lookup::Found(info) => Some(&**info),
            Lookup::NotFound | Lookup::Running | Lookup::Pending => None,
        };
        let ports = self.ports.get(&slot).map_or(&[][..], Vec::as_slice);
        if self.rules.look_at_programs() && process.is_none() {
            process = Some(self.processes.look(slot, row));
        }
        let program = match &process {
            Some(Process::Seen(seen)) => seen.executable.as_ref(),
            _ => None,
        };
        let owner = Owner { row, cgroup_info, program, ports };
        let workload = cgroup_info.and_then(|cgroup_info| {
            self.inventories.iter().find_map(|inventory| inventory.workload(cgroup_info))
        });
        if let Some(service) = self.rules.owner(&owner, workload) {
            // A rule may name programs of one container differently.
            return certain(service, own);
        }
        // Rules may match the executable.
        let is_running = |process: &Option<Process>| {
            cgroup == Lookup::Running || matches!(process, Some(Process::Pending))
        };
        if let Some(Workload { service, entity, .. }) = workload {
            let running = is_running(&process);
            let (stable, is_final) = (!running, !running);
            return Answer { service: service.clone(), entity: *entity, is_final, stable, running };
        }
        let entity = match &cgroup {
            Lookup::Found(info) => info.entity().unwrap_or(own),
            Lookup::NotFound => own,
            Lookup::Running | Lookup::Pending => Entity::UNKNOWN,
        };
        let container = cgroup_info.and_then(CgroupInfo::container_name);
        let pending = container.is_some() && self.containers_pending;
        self.missing |= pending;
        let cgroup_pending = cgroup == Lookup::Pending;
        let unit = || cgroup_info.filter(|_| self.units)?.unit.clone();
        let machine = cgroup_info.and_then(|cgroup_info| cgroup_info.machine.as_deref());
        let program = || {
            let name = match process.get_or_insert_with(|| self.processes.look(slot, row)) {
                Process::Seen(seen) => seen.name.clone(),
                Process::Pending | Process::Unseen => process::name(row),
            };
            Some(name?.within(machine.unwrap_or_default()))
        };
        let service = container
            .or_else(unit)
            .or_else(program)
            .unwrap_or_else(|| Service::new(UNKNOWN, Source::Unknown));
        let running = is_running(&process);
        Answer {
            service,
            entity,
            is_final: !pending && !cgroup_pending && !running,
            stable: !(pending || cgroup_pending && self.containers_pending || running),
            running,
        }
    }
}

/// The identity of an owner that is in no container. Slots are used again.
pub(super) fn identity(slot: u32, row: &OwnerRow) -> Entity {
    Entity::of(&format!("{slot} {}", row.born_us))
}

/// Whether a former name stays although this one was found: once the process has exited, less is
/// known about it. A runtime's name for its container replaces the former.
fn is_at_least_as_good(former: &Service, found: &Service) -> bool {
    former.source < found.source
        || (former.source == found.source && found.source >= Source::Container)
}
