//! From a failed bind to a conflict: the namespace is inspected, the kernel's own rules give the
//! holder, and its process is looked up. Both answers arrive in later collections.

use std::sync::Arc;

use agent_common::address::to_ip;
use agent_common::attempt::{
    BOUND_BEFORE, IS_V6, MAY_BIND_PRIVILEGED, REUSE_ADDRESS, REUSE_PORT, STEP_LISTEN, V6_ONLY,
};
use agent_common::bound::BoundRecord;
use agent_common::listener::ListenerRecord;
use agent_common::share::Tenant;
use hashbrown::HashSet;

use super::candidate::Candidate;
use super::known::Known;
use super::{Ports, has_room};
use crate::pipeline::host::{HeldBy, Host};
use linux::current_holders::Bound;
use linux::inspection::Inspection;
use linux::probes::Pending;
use model::claims::Failures;
use model::clash::{self, Conditions, Reason, Verdict, Wanted};
use model::conflicts::Conflict;
use model::port::Protocol;

/// Maximum number of holders that are looked up at a time; others have the name that the kernel
/// half gives.
const MAX_HOLDERS: usize = 256;

/// Failures in one namespace.
pub(super) struct Inspecting {
    pub(super) inspection: Pending<Inspection>,
    pub(super) failures: Vec<Failures>,
    /// Whose they are.
    pub(super) tenant: Tenant,
}

/// A conflict without its holder.
pub(super) struct Unheld {
    conflict: Conflict,
    errno: &'static str,
    candidate: Candidate,
    found: Found,
    /// Whose bind failed.
    tenant: Tenant,
}

/// The process of a holder.
pub(super) enum Found {
    Asked(Pending<HeldBy>),
    Answered(Box<HeldBy>),
}

impl Ports {
    /// Processes that may be in a namespace in which binds failed.
    pub(super) fn processes(&self, netns: u32, failures: &[Failures]) -> Vec<u32> {
        let there = self.bound.iter().filter(|bound| bound.netns == netns).map(|bound| bound.tgid);
        let failed = failures.iter().map(|failure| failure.tgid);
        failed.take(8).chain(there.take(8)).collect()
    }

    /// Continues with failures whose namespace was inspected.
    pub(super) fn take_inspections(&mut self, known: &mut Known<'_>, host: &dyn Host) {
        for Inspecting { inspection, failures, tenant } in std::mem::take(&mut self.inspecting) {
            let seen = match inspection.take() {
                None => {
                    self.inspecting.push(Inspecting { inspection, failures, tenant });
                    continue;
                }
                Some(Ok(seen)) => Some(seen),
                Some(Err(error)) => {
                    let netns = failures.first().map_or(0, |failure| failure.key.netns);
                    tracing::debug!("network namespace {netns} cannot be inspected: {error}");
                    None
                }
            };
            for failure in &failures {
                self.add(failure, seen.as_ref(), known, host);
            }
        }
    }

    /// Completes conflicts whose holder was looked up.
    pub(super) fn take_holders(&mut self, known: &mut Known<'_>) {
        for unheld in std::mem::take(&mut self.unheld) {
            let Unheld { mut conflict, errno, candidate, found, tenant } = unheld;
            let found = match found {
                Found::Answered(found) => *found,
                Found::Asked(pending) => match pending.take() {
                    Some(Ok(found)) => found,
                    // Only the kernel half's record is left.
                    Some(Err(_)) => HeldBy { pid: candidate.tgid, ..HeldBy::default() },
                    None => {
                        let found = Found::Asked(pending);
                        self.unheld.push(Unheld { conflict, errno, candidate, found, tenant });
                        continue;
                    }
                },
            };
            if let Some(holder) = known.holder(&candidate, conflict.netns, &found) {
                conflict.holder = Some(holder);
                self.record(conflict, errno);
            } else {
                let found = Found::Answered(Box::new(found));
                self.unheld.push(Unheld { conflict, errno, candidate, found, tenant });
            }
        }
    }

    pub(super) fn record(&mut self, conflict: Conflict, errno: &'static str) {
        let count = conflict.count;
        let conflict = self.conflicts.add(conflict, errno);
        log(&conflict, count);
    }

    pub(super) fn add(
        &mut self,
        failure: &Failures,
        inspection: Option<&Inspection>,
        known: &mut Known<'_>,
        host: &dyn Host,
    ) {
        let Some(wanted) = wanted(failure) else { return };
        let candidates = self.candidates(&wanted, failure.key.netns, inspection, known.listeners);
        let rules = Conditions {
            unprivileged_from: inspection.map_or(1024, |inspection| inspection.unprivileged_from),
            has_address: inspection.is_none_or(|inspection| inspection.has(wanted.address)),
            // Without it no port counts as one that a client got.
            ephemeral: inspection.map_or((1, 0), |inspection| inspection.ephemeral),
        };
        let decide = |candidates: &[Candidate]| {
            let held: Vec<_> = candidates.iter().map(|candidate| candidate.held).collect();
            clash::decide(&wanted, rules, &held)
        };
        let mut verdict = decide(&candidates);
        let mut holder = verdict.holder.and_then(|index| candidates.get(index));
        let gone;
        if verdict.reason == Reason::Gone {
            // A socket that has just closed.
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
            holder: None,
            next_free: next_free(&wanted, inspection, &self.bound, failure.key.netns),
            unverified_user: known.owners.user(failure.key.owner),
        };
        let Some(candidate) = holder.copied() else { return self.record(conflict, errno) };
        let tenant = known.owners.tenant(failure.key.owner);
        let found = if candidate.is_kernel {
            Found::Answered(Box::default())
        } else if has_room(self.unheld.iter().map(|one| one.tenant), tenant, MAX_HOLDERS) {
            let owner = candidate.owner.and_then(|owner| known.owners.row(owner));
            let bound = Bound::of(candidate.tgid, owner.map(|row| &row.key), candidate.inode);
            Found::Asked(host.holder(bound, conflict.netns))
        } else {
            Found::Answered(Box::new(HeldBy { pid: candidate.tgid, ..HeldBy::default() }))
        };
        self.unheld.push(Unheld { conflict, errno, candidate, found, tenant });
    }

    /// Sockets of the namespace with the requested port.
    fn candidates(
        &self,
        wanted: &Wanted,
        netns: u32,
        inspection: Option<&Inspection>,
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
        for entry in inspection.map_or(&[][..], |inspection| &inspection.sockets) {
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

/// The first free port above the requested one.
fn next_free(
    wanted: &Wanted,
    inspection: Option<&Inspection>,
    bound: &[BoundRecord],
    netns: u32,
) -> Option<u16> {
    if wanted.port == 0 {
        return None;
    }
    let inspection = inspection?;
    let is = |protocol| Protocol::from_number(protocol) == Some(wanted.protocol);
    let listed = inspection.sockets.iter().filter(|entry| is(entry.protocol));
    let kept = bound.iter().filter(|bound| bound.netns == netns && is(bound.protocol));
    let taken: HashSet<u16> =
        listed.map(|entry| entry.local_port).chain(kept.map(|bound| bound.port)).collect();
    let from = wanted.port.max(inspection.unprivileged_from.saturating_sub(1)).checked_add(1)?;
    (from..=u16::MAX).find(|port| !taken.contains(port))
}

fn log(conflict: &Arc<Conflict>, count: u64) {
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
