//! Who has a socket now: mostly the process that bound it. Others have inherited it from a parent
//! that has ended, have been passed it, or had it opened by systemd; some are the kernel's.

use agent_common::bound::BoundRecord;
use hashbrown::HashMap;

use super::known::{self, Known};
use crate::pipeline::host::{HeldBy, Host};
use crate::pipeline::labels::local_name;
use linux::current_holders::Bound;
use linux::probes::Pending;
use model::conflicts::Party;
use model::kernel_sockets;
use model::port::Protocol;

/// How often it is looked who has which socket.
const EVERY_US: u64 = 10_000_000;
/// Sockets that are looked at, at most; those beyond are with the process that bound them.
const MOST: usize = 4096;

/// Sockets that are not with the process that bound them.
#[derive(Default)]
pub(super) struct Heirs {
    /// By inode.
    known: HashMap<u32, Heir>,
    asked: Option<Pending<HashMap<u32, HeldBy>>>,
    asked_us: Option<u64>,
}

/// Who has one.
struct Heir {
    held_by: HeldBy,
    /// Its name, once it is known.
    party: Option<Party>,
}

// === impl Heirs ===

impl Heirs {
    /// Takes in the last answer, and asks again when it is time.
    pub(super) fn update(&mut self, bound: &[BoundRecord], known: &Known<'_>, host: &dyn Host) {
        if let Some(answer) = self.asked.as_ref().and_then(Pending::take) {
            self.asked = None;
            if let Ok(others) = answer {
                self.take(others);
            }
        }
        let is_due = self.asked_us.is_none_or(|at| known.now_us.saturating_sub(at) >= EVERY_US);
        if self.asked.is_some() || !is_due || bound.is_empty() {
            return;
        }
        self.asked_us = Some(known.now_us);
        let of_processes = bound.iter().filter(|bound| bound.is_kernel == 0 && bound.inode != 0);
        let socket = |bound: &BoundRecord| {
            let owner = known.owners.row(bound.owner).map(|row| &row.key);
            (bound.netns, Bound::of(bound.tgid, owner, bound.inode))
        };
        self.asked = Some(host.holders(of_processes.take(MOST).map(socket).collect()));
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
        let service = local_name(known.names, known.owners, bound.owner, known.now_us).0;
        let binder = Party { service, pid: bound.tgid, command };
        let Some(Heir { held_by, party }) = self.known.get_mut(&bound.inode) else { return binder };
        let Some(row) = &held_by.row else { return Party { pid: 0, ..binder } };
        if party.is_none() {
            let name = known.names.owner_without_row(row, &held_by.seen, known.now_us);
            *party = name.map(|service| Party {
                service,
                pid: held_by.pid,
                command: known::command(row),
            });
        }
        party.clone().unwrap_or(Party { pid: held_by.pid, ..binder })
    }

    fn take(&mut self, others: HashMap<u32, HeldBy>) {
        let before = std::mem::take(&mut self.known);
        for (inode, held_by) in others {
            let same = before.get(&inode).filter(|heir| heir.held_by.pid == held_by.pid);
            let party = same.and_then(|heir| heir.party.clone());
            self.known.insert(inode, Heir { held_by, party });
        }
    }
}
