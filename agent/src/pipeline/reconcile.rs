//! Counts of the kernel half that do not say all: the kernel itself is asked for the rest, and what
//! it answers is added at a later drain.

use std::net::SocketAddr;

use agent_common::address::to_ip;
use agent_common::drained::{Edge, Row};
use agent_common::edge::{CONNECT_OTHER, CONNECT_PORT_IN_USE};
use agent_common::listener::{ListenerKey, ListenerRow};
use agent_common::slot_table::{Reclaim, SlotRow as _};
use agent_common::unsent::{UnsentKey, UnsentRow};
use hashbrown::{HashMap, HashSet};

use super::host::Host;
use super::kernel::Kernel;
use linux::probes::{Failure, Pending};
use loader::drain::Drained;
use model::completed::{Completed, RowId};
use model::listen_drops::{ListenDrops, Reading, Share};
use model::owners::Owners;
use model::unsent::{Ended, Unsent};

/// Namespaces whose dropped connection requests are asked for at a time.
const MOST_NAMESPACES: usize = 256;

/// Listeners, and what they lost of connection requests.
#[derive(Default)]
pub(super) struct Listeners {
    rows: Completed<ListenerRow>,
    drops: ListenDrops,
    /// Totals of namespaces that were asked for.
    asked: HashMap<u32, Pending<Option<u64>>>,
}

/// Connects that the kernel refused before a SYN, and their results.
#[derive(Default)]
pub(super) struct Refused {
    rows: Completed<UnsentRow>,
    unsent: Unsent,
    /// Results that were asked for.
    asked: HashMap<RowId, Pending<u8>>,
}

// === impl Listeners ===

impl Listeners {
    /// Takes in the rows of a drain at `now` (seconds); returns what to do with slots.
    pub(super) fn update(
        &mut self,
        now: u64,
        drained: &Drained,
        listening: &HashSet<(u32, u16)>,
        kernel: &impl Kernel,
        host: &dyn Host,
        owners: &Owners,
    ) -> Vec<Reclaim<ListenerKey>> {
        let Self { rows, drops, asked } = self;
        let listeners = &drained.listener_rows;
        let waiting = drops.waiting();
        let is_needed = |id, key: &ListenerKey| {
            listening.contains(&(key.owner, key.port)) || waiting.contains(&id)
        };
        let taken = rows.take(now, listeners, kernel.listener_capacity(), is_needed);
        let own = listeners.iter().filter(|row| row.slot >= ListenerRow::RESERVED);
        let owner_of = |row: &Row<ListenerRow>| row.row.key.owner;
        drops.set_namespaces(own.map(|row| (owners.netns(owner_of(row)), owner_of(row))));
        for grown in &taken.grown {
            drops.count(owners.netns(grown.key.owner), grown);
        }
        asked.retain(|netns, total| {
            let Some(answer) = total.take() else { return true };
            let reading = match answer {
                Ok(Some(total)) => Reading::Total(total),
                Ok(None) | Err(Failure::Failed(_)) => Reading::Never,
                Err(Failure::Deadline | Failure::NotBegun | Failure::QueueFull) => Reading::Later,
            };
            drops.answer(*netns, reading);
            false
        });
        for Share { id, drops } in drops.take_shares() {
            rows.found(id, |counters| counters.listen_drops += drops);
        }
        for (netns, owner) in drops.questions(MOST_NAMESPACES.saturating_sub(asked.len())) {
            asked.insert(netns, host.listen_drops(netns, process_of(owners, owner)));
        }
        taken.reclaim
    }

    /// Their edges.
    pub(super) fn edges(&self) -> impl Iterator<Item = Edge> {
        self.rows.edges()
    }
}

// === impl Refused ===

impl Refused {
    /// Takes in the rows of a drain at `now` (seconds), and what became of attempts: why the kernel
    /// refused them is asked once for each row with new ones. Returns what to do with slots.
    pub(super) fn update(
        &mut self,
        now: u64,
        drained: &Drained,
        kernel: &impl Kernel,
        host: &dyn Host,
        owners: &Owners,
    ) -> Vec<Reclaim<UnsentKey>> {
        let Self { rows, unsent, asked } = self;
        let is_needed = |id, _: &UnsentKey| unsent.is_waiting(id);
        let taken = rows.take(now, &drained.unsent, kernel.unsent_capacity(), is_needed);
        for grown in &taken.grown {
            unsent.count(grown);
        }
        let ended = unsent.ended(|id, key| {
            let UnsentKey { owner, port, local_port, remote } = *key;
            let result = asked.entry(id).or_insert_with(|| {
                let remote = SocketAddr::new(to_ip(remote), port);
                host.refusal(owners.netns(owner), process_of(owners, owner), local_port, remote)
            });
            let answer = result.take()?;
            asked.remove(&id);
            // The namespace may have gone, or nobody can tell.
            let unknown = if local_port == 0 { CONNECT_OTHER } else { CONNECT_PORT_IN_USE };
            Some(answer.unwrap_or(unknown))
        });
        for Ended { id, result, count } in ended {
            rows.found(id, |counters| {
                if let Some(connects) = counters.connects.get_mut(usize::from(result)) {
                    *connects += count;
                }
            });
        }
        taken.reclaim
    }

    /// Their edges.
    pub(super) fn edges(&self) -> impl Iterator<Item = Edge> {
        self.rows.edges()
    }

    /// Attempts that have no result yet.
    pub(super) fn waiting(&self) -> u64 {
        self.unsent.waiting()
    }
}

/// A process of an owner, through which its namespace can be found.
fn process_of(owners: &Owners, owner: u32) -> u32 {
    owners.row(owner).map_or(0, |row| row.tgid)
}
