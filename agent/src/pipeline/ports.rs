//! Ports: turns what the bind hooks counted into conflicts with names, and lists who has what.
//!
//! A conflict is put together here from what every other stage knows: who may be in the way
//! ([`candidate`]), and how parties are called ([`known`]).

mod candidate;
mod known;

use std::sync::Arc;

use agent_common::address::to_ip;
use agent_common::attempt::{
    AttemptKey, BOUND_BEFORE, DENIED, IS_V6, MAY_BIND_PRIVILEGED, REUSE_ADDRESS, REUSE_PORT,
    STEP_LISTEN, V6_ONLY,
};
use agent_common::bound::BoundRecord;
use agent_common::listener::ListenerRecord;
use agent_common::slot_table::Reclaim;
use hashbrown::{HashMap, HashSet};

use self::candidate::Candidate;
pub(super) use self::known::Known;
use super::labels::local_name;
use discovery::Names;
use linux::existing::Survey;
use linux::inspection::{Inspection, inspect};
use loader::drain::Drained;
use model::claims::{Claims, Failures};
use model::clash::{self, Place, Reason, Verdict, Wanted};
use model::conflicts::{Conflict, Conflicts, Party};
use model::ephemeral::{Ephemeral, EphemeralView};
use model::owners::Owners;
use model::port::{PortState, PortView, Protocol};
use model::service::{Service, Source};

/// Namespaces looked at in one drain, at most; what failed in others has no holder.
const MAX_INSPECTIONS: usize = 16;

/// How long a socket that has gone is remembered as a holder, and how many are at most.
const GONE_SECONDS: u64 = 5;
const MAX_GONE: usize = 4096;

/// Failures of container engines that wait for the container's name, at most.
const MAX_WAITING: usize = 256;

/// What is known of ports.
#[derive(Default)]
pub(super) struct Ports {
    claims: Claims,
    /// Failures with their names.
    pub conflicts: Conflicts,
    /// Sockets that have a port, as of this drain.
    bound: Vec<BoundRecord>,
    /// Binds that were refused because the port is reserved, as of this drain.
    pub refused: Vec<Failures>,
    /// Those that had one a moment ago, each with the time it was missed, seconds.
    gone: Vec<(u64, BoundRecord)>,
    /// Failures of container engines of which it is not known yet for whom they were.
    waiting: Vec<Failures>,
    /// The agent's own network namespace.
    own: u32,
    /// Ephemeral ports in use, by network namespace.
    ephemeral: Vec<(u32, Ephemeral)>,
}

impl Ports {
    /// Takes in one drain; returns what to do with rows.
    pub(super) fn update(
        &mut self,
        drained: &Drained,
        capacity: u64,
        known: &mut Known<'_>,
    ) -> Vec<Reclaim<AttemptKey>> {
        let now = known.now_us / 1_000_000;
        self.remember(drained.bound.clone().unwrap_or_default(), now);
        let (failures, reclaim) = self.claims.update(now, &drained.bind_failures, capacity);
        let mut inspected: HashMap<u32, Option<Inspection>> = HashMap::new();
        let is_refusal = |failure: &&Failures| failure.key.options & DENIED != 0;
        self.refused = failures.iter().filter(is_refusal).copied().collect();
        let before = std::mem::take(&mut self.waiting);
        for failure in before.into_iter().chain(failures) {
            if self.waiting.len() < MAX_WAITING && known.may_learn_container(&failure) {
                self.waiting.push(failure);
                continue;
            }
            let netns = failure.key.netns;
            if netns == 0 || Protocol::from_number(failure.key.protocol).is_none() {
                self.conflicts.count_unknown(failure.count);
                continue;
            }
            if !inspected.contains_key(&netns) {
                let seen =
                    if inspected.len() < MAX_INSPECTIONS { self.inspect(&failure) } else { None };
                inspected.insert(netns, seen);
            }
            let place = inspected.get(&netns).and_then(Option::as_ref);
            self.add(&failure, place, known);
        }
        reclaim
    }

    /// Takes in the sockets that have a port now; those that are missing are kept for a while,
    /// because a bind that failed for them is told later.
    fn remember(&mut self, bound: Vec<BoundRecord>, now: u64) {
        let here: HashSet<u64> = bound.iter().map(|bound| bound.cookie).collect();
        let before = std::mem::replace(&mut self.bound, bound);
        self.gone.retain(|(since, _)| now.saturating_sub(*since) <= GONE_SECONDS);
        let missing = before.into_iter().filter(|bound| !here.contains(&bound.cookie));
        let room = MAX_GONE.saturating_sub(self.gone.len());
        self.gone.extend(missing.take(room).map(|bound| (now, bound)));
    }

    /// Who has which port: sockets of one service on one place are one row.
    pub(super) fn views(&self, known: &mut Known<'_>) -> Vec<PortView> {
        let mut views: Vec<PortView> = Vec::new();
        let mut places: HashMap<_, usize> = HashMap::new();
        for bound in &self.bound {
            let Some(Candidate { held, .. }) = Candidate::bound(bound) else { continue };
            if !matches!(held.state, PortState::Listening | PortState::Bound) {
                continue;
            }
            let place = (bound.netns, held.protocol, held.port, held.address, bound.owner);
            let since_seconds = (bound.since_us != 0).then(|| known.epoch(bound.since_us));
            if let Some(view) = places.get(&place).and_then(|index| views.get_mut(*index)) {
                view.sockets += 1;
                view.backlog = view.backlog.saturating_add(bound.backlog);
                view.max_backlog = view.max_backlog.saturating_add(bound.max_backlog);
                view.since_seconds = match (view.since_seconds, since_seconds) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    _ => None,
                };
                continue;
            }
            places.insert(place, views.len());
            let service = local_name(known.names, known.owners, bound.owner, known.now_us).0;
            let command = known.owners.row(bound.owner).map(known::command);
            let command = command.unwrap_or_default();
            let behind = known.behind_proxy(bound.tgid, &command, bound.netns, held.port);
            let service = behind.unwrap_or(service);
            views.push(PortView {
                port: held.port,
                protocol: held.protocol,
                address: held.address,
                v6_only: held.v6_only,
                netns: bound.netns,
                state: held.state,
                holder: Party { service, pid: bound.tgid, command },
                uid: bound.uid,
                since_seconds,
                sockets: 1,
                backlog: bound.backlog,
                max_backlog: bound.max_backlog,
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

    /// Ephemeral ports in use, each namespace with a name.
    pub(super) fn ephemeral_views(
        &self,
        names: &mut Names,
        owners: &Owners,
        now_us: u64,
    ) -> Vec<EphemeralView> {
        let mut views = Vec::with_capacity(self.ephemeral.len());
        for (netns, ephemeral) in &self.ephemeral {
            let netns_of = if *netns == self.own {
                Service::new("host", Source::Unknown)
            } else {
                // Whoever was seen there first.
                let first = owners.in_namespace(*netns).min();
                first.map_or_else(Service::other, |row| local_name(names, owners, row, now_us).0)
            };
            views.push(EphemeralView { netns: *netns, netns_of, ephemeral: ephemeral.clone() });
        }
        views
    }

    /// Binds found in the kernel's rows so far, whatever came of them.
    pub(super) fn exported(&self) -> u64 {
        self.claims.exported()
    }

    fn inspect(&self, failure: &Failures) -> Option<Inspection> {
        let netns = failure.key.netns;
        let there = self.bound.iter().filter(|bound| bound.netns == netns).map(|bound| bound.tgid);
        match inspect(netns, std::iter::once(failure.tgid).chain(there.take(8))) {
            Ok(seen) => Some(seen),
            Err(error) => {
                tracing::debug!("network namespace {netns} cannot be looked at: {error}");
                None
            }
        }
    }

    fn add(&mut self, failure: &Failures, place: Option<&Inspection>, known: &mut Known<'_>) {
        let Some(wanted) = wanted(failure) else { return };
        let candidates = self.candidates(&wanted, failure.key.netns, place, known.listeners);
        let rules = Place {
            unprivileged_from: place.map_or(1024, |place| place.unprivileged_from),
            has_address: place.is_none_or(|place| place.has(wanted.address)),
        };
        let decide = |candidates: &[Candidate]| {
            let held: Vec<_> = candidates.iter().map(|candidate| candidate.held).collect();
            clash::decide(&wanted, rules, &held)
        };
        let mut verdict = decide(&candidates);
        let mut holder = verdict.holder.and_then(|index| candidates.get(index));
        let gone;
        if verdict.reason == Reason::Gone {
            // Whoever was there a moment ago.
            let here = self.gone.iter().map(|(_, bound)| bound);
            let here = here.filter(|bound| bound.netns == failure.key.netns);
            gone = here.filter_map(Candidate::bound).collect::<Vec<_>>();
            let before = decide(&gone);
            if before.holder.is_some() {
                verdict = before;
                holder = before.holder.and_then(|index| gone.get(index));
            }
        }
        let Verdict { errno, inferred, reason, .. } = verdict;
        let errno = clash::errno_name(errno);
        let at = known.epoch(failure.last_us);
        let conflict = Conflict {
            first_seconds: at,
            last_seconds: at,
            count: failure.count,
            claimant: known.claimant(failure),
            port: wanted.port,
            protocol: wanted.protocol,
            address: wanted.address,
            netns: failure.key.netns,
            by_listen: wanted.by_listen,
            errno: errno.to_owned(),
            inferred,
            reason,
            holder: holder.map(|holder| known.holder(holder, failure.key.netns)),
            next_free: next_free(&wanted, place, &self.bound, failure.key.netns),
        };
        let conflict = self.conflicts.add(conflict, errno);
        tell(&conflict, failure.count);
    }

    /// Sockets of the namespace with the wanted port, each with what is known of it.
    fn candidates(
        &self,
        wanted: &Wanted,
        netns: u32,
        place: Option<&Inspection>,
        listeners: &[ListenerRecord],
    ) -> Vec<Candidate> {
        let fits = |protocol: Option<Protocol>, port| {
            protocol == Some(wanted.protocol) && port == wanted.port && port != 0
        };
        let bound: Vec<_> = self
            .bound
            .iter()
            .filter(|bound| {
                bound.netns == netns && fits(Protocol::from_number(bound.protocol), bound.port)
            })
            .collect();
        let mut candidates = Vec::new();
        let mut seen = HashSet::new();
        for entry in place.map_or(&[][..], |place| &place.sockets) {
            if !fits(Protocol::from_number(entry.protocol), entry.local_port) {
                continue;
            }
            seen.insert(entry.cookie);
            let mut candidate = Candidate::listed(entry);
            if let Some(bound) = bound.iter().find(|bound| bound.cookie == entry.cookie) {
                candidate.learn(bound);
            } else if let Some(listener) =
                listeners.iter().find(|listener| listener.cookie == entry.cookie)
            {
                candidate.owner = Some(listener.owner);
            }
            candidates.push(candidate);
        }
        let unseen = bound.into_iter().filter(|bound| !seen.contains(&bound.cookie));
        candidates.extend(unseen.filter_map(Candidate::bound));
        candidates
    }
}

fn wanted(failure: &Failures) -> Option<Wanted> {
    let key = &failure.key;
    let has = |option| key.options & option != 0;
    Some(Wanted {
        protocol: Protocol::from_number(key.protocol)?,
        address: to_ip(key.address),
        is_v6: has(IS_V6),
        v6_only: has(V6_ONLY),
        port: key.port,
        device: key.device,
        uid: key.uid,
        reuse_address: has(REUSE_ADDRESS),
        reuse_port: has(REUSE_PORT),
        bound_before: has(BOUND_BEFORE),
        may_bind_privileged: has(MAY_BIND_PRIVILEGED),
        by_listen: key.step == STEP_LISTEN,
        errno: (key.errno != 0).then_some(key.errno),
    })
}

/// The first port above the wanted one that nobody has.
fn next_free(
    wanted: &Wanted,
    place: Option<&Inspection>,
    bound: &[BoundRecord],
    netns: u32,
) -> Option<u16> {
    if wanted.port == 0 {
        return None;
    }
    let place = place?;
    let is = |protocol| Protocol::from_number(protocol) == Some(wanted.protocol);
    let listed = place.sockets.iter().filter(|entry| is(entry.protocol));
    let kept = bound.iter().filter(|bound| bound.netns == netns && is(bound.protocol));
    let taken: HashSet<u16> =
        listed.map(|entry| entry.local_port).chain(kept.map(|bound| bound.port)).collect();
    let from = wanted.port.max(place.unprivileged_from.saturating_sub(1)).checked_add(1)?;
    (from..=u16::MAX).find(|port| !taken.contains(port))
}

fn tell(conflict: &Arc<Conflict>, count: u64) {
    let Conflict { claimant, holder, port, address, errno, reason, .. } = &**conflict;
    let has = holder.as_ref();
    tracing::debug!(
        claimant = &*claimant.service.name,
        pid = claimant.pid,
        protocol = conflict.protocol.as_str(),
        %address,
        port,
        errno = &**errno,
        reason = reason.as_str(),
        holder = has.map(|holder| &*holder.party.service.name),
        holder_pid = has.map(|holder| holder.party.pid),
        count,
        "bind failed"
    );
}
