//! Counts of the kernel half that do not say all: the kernel itself is asked for the rest, and what
//! it answers is taken in at a later drain.

use std::net::SocketAddr;
use std::sync::Arc;

use agent_common::address::to_ip;
use agent_common::edge::{CONNECT_OTHER, EdgeKey, ROLE_LISTENER, connect_result};
use hashbrown::{HashMap, HashSet};

use super::host::Host;
use agent_common::drained::Edge;
use linux::probes::{Failure, Pending};
use model::listen_drops::{ListenDrops, Reading};
use model::owners::Owners;
use model::unsent::Unsent;

/// Namespaces whose dropped connection requests are asked for at a time.
const MOST_NAMESPACES: usize = 256;

/// What listeners' sockets dropped becomes what they lost of connection requests.
#[derive(Default)]
pub(super) struct Drops {
    drops: ListenDrops,
    asked: HashMap<u32, Asked>,
}

/// A namespace's total, which was asked for.
struct Asked {
    total: Pending<Option<u64>>,
    /// What its listeners had counted by then, by slot: (`born_us`, drops). The total is younger,
    /// so only to this may it be compared.
    counted: HashMap<u32, (u64, u64)>,
}

/// Connects that the kernel refused before a SYN get their results.
#[derive(Default)]
pub(super) struct Refused {
    unsent: Unsent,
    /// Errnos that were asked for, by slot.
    asked: HashMap<u32, (u64, Pending<i32>)>,
}

// === impl Drops ===

impl Drops {
    /// Replaces what listeners' sockets dropped by what they lost of connection requests.
    pub(super) fn reconcile(&mut self, host: &dyn Host, owners: &Owners, edges: &mut [Edge]) {
        let Self { drops, asked } = self;
        let is_listener = |edge: &&mut Edge| edge.key.role == ROLE_LISTENER && edge.born_us != 0;
        // None: not yet.
        let mut answers: HashMap<u32, Option<Reading>> = HashMap::new();
        let mut counted: HashMap<u32, HashMap<u32, (u64, u64)>> = HashMap::new();
        let mut ask = HashMap::new();
        for edge in edges.iter_mut().filter(is_listener) {
            let netns = owners.netns(edge.key.owner);
            let now = edge.counters.listen_drops;
            counted.entry(netns).or_default().insert(edge.slot, (edge.born_us, now));
            let Some(asked) = asked.get(&netns) else { continue };
            let reading = *answers.entry(netns).or_insert_with(|| match asked.total.take() {
                Some(Ok(Some(total))) => Some(Reading::Total(total)),
                Some(Ok(None) | Err(Failure::Failed(_))) => Some(Reading::Never),
                // It is asked again at the next drain.
                Some(Err(Failure::Deadline | Failure::QueueFull)) => Some(Reading::Later),
                None => None,
            });
            if let Some(Reading::Total(_)) = reading {
                let then = asked.counted.get(&edge.slot).filter(|(born, _)| *born == edge.born_us);
                let then = then.map_or(0, |(_, drops)| *drops).min(now);
                if then < now {
                    Arc::make_mut(&mut edge.counters).listen_drops = then;
                    let tgid = owners.row(edge.key.owner).map_or(0, |row| row.tgid);
                    ask.insert(netns, tgid);
                }
            }
        }
        asked.retain(|netns, _| matches!(answers.get(netns), Some(None)));
        drops.settle(
            edges,
            |edge| owners.netns(edge.key.owner),
            |netns, edge| {
                let tgid = || owners.row(edge.key.owner).map_or(0, |row| row.tgid);
                let Some(answer) = answers.get(&netns) else {
                    ask.entry(netns).or_insert_with(tgid);
                    return Reading::Later;
                };
                answer.unwrap_or(Reading::Later)
            },
        );
        for (netns, tgid) in ask {
            if asked.len() < MOST_NAMESPACES {
                let total = host.listen_drops(netns, tgid);
                let counted = counted.remove(&netns).unwrap_or_default();
                asked.insert(netns, Asked { total, counted });
            }
        }
    }
}

// === impl Refused ===

impl Refused {
    /// Adds connects that the kernel refused before a SYN to the results of their edges: why it did
    /// is asked once for each edge with new ones.
    pub(super) fn reconcile(&mut self, host: &dyn Host, owners: &Owners, edges: &mut [Edge]) {
        let Self { unsent, asked } = self;
        unsent.settle(edges, |edge| {
            let EdgeKey { owner, remote, port, .. } = edge.key;
            if asked.get(&edge.slot).is_none_or(|(born, _)| *born != edge.born_us) {
                let process = owners.row(owner).map_or(0, |row| row.tgid);
                let remote = SocketAddr::new(to_ip(remote), port);
                let errno = host.connect_errno(owners.netns(owner), process, remote);
                asked.insert(edge.slot, (edge.born_us, errno));
            }
            let (_, errno) = asked.get(&edge.slot)?;
            let answer = errno.take()?;
            asked.remove(&edge.slot);
            Some(match answer {
                // What spoke against it has gone, as the namespace may have; or nobody can tell.
                Ok(0) | Err(_) => CONNECT_OTHER,
                Ok(errno) => connect_result(errno, true),
            })
        });
        let slots: HashSet<(u32, u64)> =
            edges.iter().map(|edge| (edge.slot, edge.born_us)).collect();
        asked.retain(|slot, (born, _)| slots.contains(&(*slot, *born)));
    }

    /// Attempts that have no result yet.
    pub(super) fn waiting(&self) -> u64 {
        self.unsent.waiting()
    }
}
