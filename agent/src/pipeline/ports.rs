//! Ports: turns failed binds into conflicts with names, and lists holders of ports.
//!
//! A conflict ([`conflict`]) is composed from the other stages: possible holders ([`candidate`]),
//! and names of the parties ([`known`]).

mod allocated;
mod candidate;
mod conflict;
mod heirs;
mod known;

use agent_common::attempt::{AttemptKey, DENIED};
use agent_common::bound::BoundRecord;
use agent_common::share::Tenant;
use agent_common::slot_table::Reclaim;
use hashbrown::{HashMap, HashSet};

use self::allocated::Reported;
use self::candidate::Candidate;
use self::conflict::{Inspecting, Unheld};
use self::heirs::Heirs;
pub(super) use self::known::Known;
use super::host::Host;
use super::labels::{namespace_of, user_of_namespace};
use discovery::{Acceptor, Names};
use linux::existing::Survey;
use linux::probes::Pending;
use loader::drain::Drained;
use model::claims::{Claims, Failures};
use model::conflicts::{Conflicts, Party};
use model::ephemeral::{Ephemeral, EphemeralView};
use model::health::AcceptQueue;
use model::owners::Owners;
use model::port::{PortState, PortView, Protocol};

/// Maximum number of namespaces that are inspected at a time; failures in others have only holders
/// that the kernel half knows.
const MAX_INSPECTIONS: usize = 16;

/// How long a closed socket is remembered as a possible holder, and how many.
const GONE_SECONDS: u64 = 5;
const MAX_GONE: usize = 4096;

/// Failures of container engines that wait for the container's name, at most.
const MAX_WAITING: usize = 256;

/// Ports, their holders and failed binds.
#[derive(Default)]
pub(super) struct Ports {
    claims: Claims,
    /// Failures with their names.
    pub conflicts: Conflicts,
    /// Sockets that have a port, as of this drain.
    bound: Vec<BoundRecord>,
    /// Binds that were refused because the port is reserved, as of this drain.
    pub refused: Vec<Failures>,
    /// Recently closed sockets, each with the time it was missed, seconds.
    gone: Vec<(u64, BoundRecord)>,
    /// Failures of container engines whose container is not known yet.
    waiting: Vec<Failures>,
    /// Failures whose namespace is being inspected.
    inspecting: Vec<Inspecting>,
    /// Containers that were not started, as far as they were reported.
    allocated: Reported,
    /// Conflicts whose holder is being looked up.
    unheld: Vec<Unheld>,
    /// Arguments of container engines' proxies, by process and since when it has its port.
    proxies: HashMap<(u32, u64), Proxy>,
    /// Who has sockets that are not with the process that bound them.
    heirs: Heirs,
    /// The agent's own network namespace.
    own: u32,
    /// Ephemeral ports in use, by network namespace.
    ephemeral: Vec<(u32, Ephemeral)>,
}

/// Arguments of a proxy.
enum Proxy {
    Asked(Pending<Vec<u8>>),
    Answered(Vec<u8>),
}

impl Ports {
    /// Takes in the sockets of one collection; returns who accepts at the ports of programs that
    /// open sockets for others, by owner and port.
    pub(super) fn take_sockets(
        &mut self,
        drained: &Drained,
        known: &mut Known<'_>,
        host: &dyn Host,
    ) -> HashMap<(u32, u16), Acceptor> {
        self.remember(drained.bound.clone().unwrap_or_default(), known.now_us / 1_000_000);
        self.heirs.update(&self.bound, &drained.edges, known, host);
        self.heirs.acceptors(&self.bound, known)
    }

    /// Processes one collection, after [`Self::take_sockets`]; returns what to do with rows.
    pub(super) fn update(
        &mut self,
        drained: &Drained,
        capacity: u64,
        known: &mut Known<'_>,
        host: &dyn Host,
    ) -> Vec<Reclaim<AttemptKey>> {
        let now = known.now_us / 1_000_000;
        let (failures, reclaim) = self.claims.update(now, &drained.bind_failures, capacity);
        let mut failed: Vec<(u32, Vec<Failures>)> = Vec::new();
        let is_refusal = |failure: &&Failures| failure.key.options & DENIED != 0;
        self.refused = failures.iter().filter(is_refusal).copied().collect();
        let before = std::mem::take(&mut self.waiting);
        for failure in before.into_iter().chain(failures) {
            // Tried by the agent itself, to find a free port.
            if failure.tgid == std::process::id() {
                continue;
            }
            if self.waiting.len() < MAX_WAITING && known.may_learn_container(&failure) {
                self.waiting.push(failure);
                continue;
            }
            let netns = failure.key.netns;
            if netns == 0 || Protocol::from_number(failure.key.protocol).is_none() {
                self.conflicts.count_unknown(failure.count);
                continue;
            }
            match failed.iter_mut().find(|(other, _)| *other == netns) {
                Some((_, failures)) => failures.push(failure),
                None => failed.push((netns, vec![failure])),
            }
        }
        for (netns, failures) in failed {
            let owner = failures.first().map_or(0, |failure| failure.key.owner);
            let tenant = known.owners.tenant(owner);
            let inspected = self.inspecting.iter().map(|one| one.tenant);
            if has_room(inspected, tenant, MAX_INSPECTIONS) {
                let inspection = host.sockets(netns, self.processes(netns, &failures));
                self.inspecting.push(Inspecting { inspection, failures, tenant });
            } else {
                for failure in &failures {
                    self.add(failure, None, known, host);
                }
            }
        }
        self.take_inspections(known, host);
        self.take_holders(known);
        self.take_allocated(known);
        reclaim
    }

    /// Updates the sockets that hold a port; closed ones are kept for a while, because binds that
    /// failed for them are reported later.
    fn remember(&mut self, bound: Vec<BoundRecord>, now: u64) {
        let here: HashSet<u64> = bound.iter().map(|bound| bound.cookie).collect();
        let before = std::mem::replace(&mut self.bound, bound);
        self.gone.retain(|(since, _)| now.saturating_sub(*since) <= GONE_SECONDS);
        let missing = before.into_iter().filter(|bound| !here.contains(&bound.cookie));
        let room = MAX_GONE.saturating_sub(self.gone.len());
        self.gone.extend(missing.take(room).map(|bound| (now, bound)));
    }

    /// The holders of ports: sockets of one service on one port are one row.
    pub(super) fn views(&mut self, known: &mut Known<'_>, host: &dyn Host) -> Vec<PortView> {
        let Self { bound, proxies, heirs, .. } = self;
        let still: HashSet<_> = bound.iter().map(|bound| (bound.tgid, bound.since_us)).collect();
        proxies.retain(|proxy, _| still.contains(proxy));
        let mut views: Vec<PortView> = Vec::new();
        let mut indexes: HashMap<_, usize> = HashMap::new();
        for bound in &*bound {
            let Some(Candidate { held, .. }) = Candidate::bound(bound) else { continue };
            if !matches!(held.state, PortState::Listening | PortState::Bound) {
                continue;
            }
            let socket = (bound.netns, held.protocol, held.port, held.address, bound.owner);
            let since_seconds = (bound.since_us != 0).then(|| known.epoch(bound.since_us));
            if let Some(view) = indexes.get(&socket).and_then(|index| views.get_mut(*index)) {
                view.add_socket(AcceptQueue { length: bound.backlog, limit: bound.max_backlog });
                view.since_seconds = match (view.since_seconds, since_seconds) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    _ => None,
                };
                continue;
            }
            indexes.insert(socket, views.len());
            let Party { service, pid, command } = heirs.holder(bound, held.protocol, known);
            let behind = known.behind_proxy(&command, bound.netns, held.port, || {
                let proxy = (bound.tgid, bound.since_us);
                let proxy = proxies.entry(proxy);
                proxy.or_insert_with(|| Proxy::Asked(host.proxy_arguments(bound.tgid))).arguments()
            });
            let service = behind.unwrap_or(service);
            views.push(PortView {
                port: held.port,
                protocol: held.protocol,
                address: held.address,
                v6_only: held.v6_only,
                netns: bound.netns,
                state: held.state,
                holder: Party { service, pid, command },
                uid: bound.uid,
                since_seconds,
                sockets: 1,
                backlog: bound.backlog,
                max_backlog: bound.max_backlog,
                unverified_user: known.owners.user(bound.owner),
            });
        }
        views.sort_by(|a, b| {
            (a.port, a.protocol, a.address, a.netns).cmp(&(b.port, b.protocol, b.address, b.netns))
        });
        views
    }

    /// Takes in how many ephemeral ports are in use.
    pub(super) fn set_ephemeral(&mut self, survey: &Survey) {
        // The agent's own namespace comes first.
        self.own = survey.namespaces.first().map_or(0, |namespace| namespace.inode);
        let known = |(netns, used): &(u32, linux::ephemeral::Ephemeral)| {
            let linux::ephemeral::Ephemeral {
                first,
                last,
                used_tcp,
                used_udp,
                most,
                most_to,
                time_wait,
            } = *used;
            (*netns, Ephemeral { first, last, used_tcp, used_udp, most, most_to, time_wait })
        };
        self.ephemeral = survey.ephemeral.iter().map(known).collect();
    }

    /// Inode of the agent's own network namespace.
    pub(super) fn own_namespace(&self) -> u32 {
        self.own
    }

    /// Ephemeral ports in use, each namespace with a name.
    pub(super) fn ephemeral_views(
        &self,
        names: &mut Names,
        owners: &Owners,
        now_us: u64,
    ) -> Vec<EphemeralView> {
        let mut views = Vec::with_capacity(self.ephemeral.len());
        for (netns, ephemeral) in &self.ephemeral {
            let netns_of = namespace_of(names, owners, *netns, self.own, now_us);
            views.push(EphemeralView {
                netns: *netns,
                netns_of,
                unverified_user: user_of_namespace(names, owners, *netns),
                ephemeral: ephemeral.clone(),
            });
        }
        views
    }

    /// Binds in the kernel's rows so far, whatever their result.
    pub(super) fn exported(&self) -> u64 {
        self.claims.exported()
    }
}

/// Whether there is room for one more lookup of a tenant, of `most`: a quarter is its own at most.
fn has_room(asked: impl Iterator<Item = Tenant>, tenant: Tenant, most: usize) -> bool {
    let (mut all, mut own) = (0, 0);
    for one in asked {
        all += 1;
        own += usize::from(one == tenant);
    }
    all < most && own < most / 4
}

// === impl Proxy ===

impl Proxy {
    /// Their known sockets.
    fn arguments(&mut self) -> &[u8] {
        if let Self::Asked(pending) = self
            && let Some(answer) = pending.take()
        {
            *self = Self::Answered(answer.unwrap_or_default());
        }
        match self {
            Self::Answered(arguments) => arguments,
            Self::Asked(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_leaves_others_three_quarters_of_the_lookups() {
        let tenant = |origin| Tenant { cgroup: 0, origin };
        let mut asked = Vec::new();
        for origin in [1; 100].into_iter().chain(2..100) {
            if has_room(asked.iter().copied(), tenant(origin), MAX_INSPECTIONS) {
                asked.push(tenant(origin));
            }
        }
        let first = asked.iter().filter(|one| **one == tenant(1)).count();
        assert_eq!((first, asked.len()), (MAX_INSPECTIONS / 4, MAX_INSPECTIONS));
    }
}
