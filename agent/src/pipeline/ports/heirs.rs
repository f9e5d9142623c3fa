//! Who has a socket now: mostly the process that bound it. Others have inherited it from a parent
//! that has ended, have been passed it, or had it opened by systemd; some are the kernel's.

use agent_common::bound::BoundRecord;
use agent_common::drained::Edge;
use agent_common::edge::ROLE_SERVER;
use hashbrown::{HashMap, HashSet};

use super::known::{self, Known};
use crate::pipeline::host::{HeldBy, Holders, Host, Socket};
use crate::pipeline::labels::local_name;
use discovery::{Acceptor, Names};
use linux::current_holders::{self, Bound};
use linux::probes::Pending;
use model::conflicts::Party;
use model::kernel_sockets;
use model::owners::Owners;
use model::port::Protocol;

/// How often it is looked who has which socket.
const EVERY_US: u64 = 10_000_000;
/// How soon it is looked again for a service that has connections and is not known; doubles each
/// time.
const SOON_US: u64 = 500_000;
/// After so many looks it will not be known soon.
const LOOKS: u32 = 4;
/// Sockets that are looked at, at most; those beyond are with the process that bound them.
const MOST: usize = 4096;
/// TCP_LISTEN (include/net/tcp_states.h).
const LISTEN: u8 = 10;

/// Sockets that are not with the process that bound them.
#[derive(Default)]
pub(super) struct Heirs {
    /// By inode.
    known: HashMap<u32, Heir>,
    /// Who has connections of sockets that listen for others, by inode of those; the last that was
    /// seen.
    acceptors: HashMap<u32, Heir>,
    /// Services that have connections and are not known, by owner and port.
    awaited: HashMap<(u32, u16), Awaited>,
    asked: Option<Pending<Holders>>,
    asked_us: Option<u64>,
}

/// Who has one.
struct Heir {
    held_by: HeldBy,
    /// Its name, once it is known.
    party: Option<Party>,
}

/// A service that is looked for.
#[derive(Clone, Copy, Default)]
struct Awaited {
    looks: u32,
    next_us: u64,
}

// === impl Heirs ===

impl Heirs {
    /// Takes in the last answer, and asks again when it is time.
    pub(super) fn update(
        &mut self,
        bound: &[BoundRecord],
        edges: &[Edge],
        known: &Known<'_>,
        host: &dyn Host,
    ) {
        if let Some(answer) = self.asked.as_ref().and_then(Pending::take) {
            self.asked = None;
            if let Ok(found) = answer {
                self.take(found, bound);
            }
        }
        let now_us = known.now_us;
        let is_awaited = self.awaits(bound, edges, known);
        let is_due = self.asked_us.is_none_or(|at| now_us.saturating_sub(at) >= EVERY_US);
        if self.asked.is_some() || !(is_due || is_awaited) || bound.is_empty() {
            return;
        }
        self.asked_us = Some(now_us);
        for awaited in self.awaited.values_mut().filter(|awaited| awaited.next_us <= now_us) {
            awaited.next_us = now_us + (SOON_US << awaited.looks).min(EVERY_US);
            awaited.looks = (awaited.looks + 1).min(LOOKS);
        }
        let of_processes = bound.iter().filter(|bound| bound.is_kernel == 0 && bound.inode != 0);
        let socket = |bound: &BoundRecord| {
            let is_awaited = self.awaited.contains_key(&(bound.owner, bound.port));
            Socket {
                bound: bound_of(bound, known.owners),
                netns: bound.netns,
                accepts_at: (is_awaited && is_listening(bound)).then_some(bound.port),
            }
        };
        self.asked = Some(host.holders(of_processes.take(MOST).map(socket).collect()));
    }

    /// Which services with connections are not known, and whether it is time to look for one.
    fn awaits(&mut self, bound: &[BoundRecord], edges: &[Edge], known: &Known<'_>) -> bool {
        let for_others = |bound: &&BoundRecord| {
            let command = known.owners.row(bound.owner).map(|row| row.key.comm);
            is_listening(bound) && command.is_some_and(|name| current_holders::is_activator(&name))
        };
        let mut unknown: HashSet<(u32, u16)> =
            bound.iter().filter(for_others).map(|bound| (bound.owner, bound.port)).collect();
        unknown.retain(|(owner, port)| {
            matches!(known.names.acceptor(*owner, *port), None | Some(Acceptor::Unknown { .. }))
        });
        if unknown.is_empty() {
            self.awaited.clear();
            return false;
        }
        let connected: HashSet<(u32, u16)> = edges
            .iter()
            .filter(|edge| edge.key.role == ROLE_SERVER && edge.counters.opened > 0)
            .map(|edge| (edge.key.owner, edge.key.port))
            .collect();
        unknown.retain(|place| connected.contains(place));
        self.awaited.retain(|place, _| unknown.contains(place));
        for place in unknown {
            self.awaited.entry(place).or_default();
        }
        self.awaited.values().any(|awaited| awaited.next_us <= known.now_us)
    }

    /// Who accepts at the ports of programs that open sockets for others.
    pub(super) fn acceptors(
        &mut self,
        bound: &[BoundRecord],
        known: &mut Known<'_>,
    ) -> HashMap<(u32, u16), Acceptor> {
        let mut found: HashMap<(u32, u16), Acceptor> = HashMap::new();
        for bound in bound.iter().filter(|bound| is_listening(bound)) {
            let opener = bound_of(bound, known.owners);
            if !opener.is_for_others() {
                continue;
            }
            let place = (bound.owner, bound.port);
            let Self { known: heirs, acceptors, awaited, .. } = self;
            let heir = heirs.get_mut(&bound.inode).filter(|heir| heir.held_by.row.is_some());
            let heir = heir.or_else(|| acceptors.get_mut(&bound.inode));
            let party = heir.and_then(|heir| heir.party(known.names, known.now_us));
            let is_final = awaited.get(&place).is_none_or(|awaited| awaited.looks >= LOOKS);
            let acceptor = match party {
                Some(party) => Acceptor::Service(party.service.clone()),
                // The first process is a server of its own, if it does not activate.
                None if !current_holders::is_activator(&opener.command) => continue,
                None => Acceptor::Unknown { is_final },
            };
            found
                .entry(place)
                .and_modify(|other| match (&*other, &acceptor) {
                    (Acceptor::Service(one), Acceptor::Service(two)) if one.is_called_as(two) => {}
                    (Acceptor::Service(_), Acceptor::Service(_)) => *other = Acceptor::Several,
                    (Acceptor::Unknown { .. }, _) => *other = acceptor.clone(),
                    _ => {}
                })
                .or_insert(acceptor);
        }
        found
    }

    /// Who has a socket.
    pub(super) fn holder(
        &mut self,
        bound: &BoundRecord,
        protocol: Protocol,
        known: &mut Known<'_>,
    ) -> Party {
        if bound.is_kernel != 0 {
            return kernel_sockets::holder(protocol, bound.port);
        }
        let command = known.owners.row(bound.owner).map(known::command).unwrap_or_default();
        let service = match known.names.acceptor(bound.owner, bound.port) {
            Some(Acceptor::Service(service)) if protocol == Protocol::Tcp => service.clone(),
            _ => local_name(known.names, known.owners, bound.owner, known.now_us).0,
        };
        let binder = Party { service, pid: bound.tgid, command };
        let Some(heir) = self.known.get_mut(&bound.inode) else { return binder };
        let pid = heir.held_by.pid;
        if heir.held_by.row.is_none() {
            return Party { pid: 0, ..binder };
        }
        let party = heir.party(known.names, known.now_us).cloned();
        party.unwrap_or(Party { pid, ..binder })
    }

    fn take(&mut self, found: Holders, bound: &[BoundRecord]) {
        let Holders { others, acceptors } = found;
        let before = std::mem::take(&mut self.known);
        for (inode, held_by) in others {
            self.known.insert(inode, Heir::after(before.get(&inode), held_by));
        }
        for (inode, held_by) in acceptors {
            let heir = Heir::after(self.acceptors.get(&inode), held_by);
            self.acceptors.insert(inode, heir);
        }
        let here: HashSet<u32> = bound.iter().map(|bound| bound.inode).collect();
        self.acceptors.retain(|inode, _| here.contains(inode));
    }
}

// === impl Heir ===

impl Heir {
    /// With the name that it had before, if it is the same process.
    fn after(before: Option<&Self>, held_by: HeldBy) -> Self {
        let same = before.filter(|heir| heir.held_by.pid == held_by.pid);
        Self { party: same.and_then(|heir| heir.party.clone()), held_by }
    }

    fn party(&mut self, names: &mut Names, now_us: u64) -> Option<&Party> {
        let Self { held_by: HeldBy { row, seen, pid, .. }, party } = self;
        if party.is_none()
            && let Some(row) = row
        {
            let name = names.owner_without_row(row, seen, now_us);
            *party = name.map(|service| Party { service, pid: *pid, command: known::command(row) });
        }
        party.as_ref()
    }
}

fn is_listening(bound: &BoundRecord) -> bool {
    bound.state == LISTEN && i32::from(bound.protocol) == libc::IPPROTO_TCP
}

fn bound_of(bound: &BoundRecord, owners: &Owners) -> Bound {
    Bound::of(bound.tgid, owners.row(bound.owner).map(|row| &row.key), bound.inode)
}
