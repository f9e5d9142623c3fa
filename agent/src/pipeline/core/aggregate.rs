//! Aggregate: slots become rows with names and totals, and idle ones go back to the kernel.

use agent_common::address::owner_of;
use agent_common::slot_table::Reclaim;
use hashbrown::HashSet;

use super::{Core, Now};
use crate::pipeline::kernel::Kernel;
use crate::pipeline::labels::{local_name, naming};
use crate::pipeline::ports::Known;
use crate::pipeline::reservations::Seen;
use discovery::Acceptor;
use loader::drain::Drained;
use model::port::{PortView, Protocol};
use model::reclaim::Room;
use model::reservation_status::ReservationStatus;
use model::service::Service;
use model::tables::Updated;
use model::unverified::Proven;

impl<K: Kernel> Core<K> {
    /// What hooks counted is corrected; listeners and connects refused before a SYN become edges like
    /// all others.
    pub(super) fn complete(&mut self, drained: &mut Drained, now_us: u64) {
        let Self { owners, listeners, listener_rows, refused, kernel, host, .. } = self;
        let (stopping, corrections) = (&mut self.stopping, &mut self.corrections);
        stopping.observe(now_us, listeners);
        let stop = stopping.edges(&drained.edges, |owner| owners.netns(owner));
        let open = drained.queues.as_ref().map(|queues| {
            queues.iter().map(|(slot, queues)| (*slot, queues.open)).collect::<Vec<_>>()
        });
        corrections.apply(&mut drained.edges, open.as_deref(), |edge| stop.contains(edge));
        let listening: HashSet<(u32, u16)> =
            listeners.iter().map(|record| (record.owner, record.port)).collect();
        let now = now_us / 1_000_000;
        for step in listener_rows.update(now, drained, &listening, kernel, &**host, owners) {
            reclaimed("listener", kernel.reclaim_listener(&step));
        }
        for step in refused.update(now, drained, kernel, &**host, owners) {
            reclaimed("refused connect", kernel.reclaim_unsent(&step));
        }
        drained.edges.extend(listener_rows.edges().chain(refused.edges()));
    }

    /// Slots become rows with names; idle ones go back to the kernel.
    pub(super) fn update_edges(&mut self, drained: &Drained, now: Now) -> Updated {
        let Now { us: now_us, epoch_seconds } = now;
        let Self { names, owners, tables, kernel, reservations, .. } = self;
        let state = reservations.current();
        let room = Room::of(kernel.edge_capacity()).shared_by(owners);
        let greedy = owners.greedy(kernel.owner_capacity());
        let room = room.met(drained.queues.as_deref()).pressed_by(&greedy);
        let proven = Proven::new(&drained.edges, owners);
        let registry = state.registry.at(epoch_seconds as u64);
        let mut updated = tables.update(now_us / 1_000_000, &drained.edges, room, |edge| {
            naming(names, owners, registry, &proven, edge, now_us)
        });
        for step in updated.deltas.reclaim.drain(..) {
            reclaimed("edge", kernel.reclaim_edge(&step));
        }
        updated
    }

    /// Owners that nothing refers to any more go back to the kernel.
    pub(super) fn update_owners(&mut self, drained: &Drained, now_us: u64) {
        let Self { names, owners, kernel, .. } = self;
        let peers = drained.edges.iter().filter_map(|edge| owner_of(&edge.key.remote));
        let claimants = drained.bind_failures.iter().map(|failure| failure.row.key.owner);
        let holders = drained.bound.iter().flatten().map(|bound| bound.owner);
        let used = drained.edges.iter().map(|edge| edge.key.owner);
        let used = used.chain(peers).chain(claimants).chain(holders).collect();
        let room = Room::of(kernel.edge_capacity()).met(drained.queues.as_deref());
        let (now, capacity) = (now_us / 1_000_000, kernel.owner_capacity());
        for step in owners.update(now, &used, capacity, &room.connecting(&drained.edges)) {
            if let Reclaim::Free(index) = step {
                names.forget_owner(index);
            }
            reclaimed("owner", kernel.reclaim_owner(&step));
        }
    }

    /// Holds reservations against who has the ports.
    pub(super) fn keep(&mut self, drained: &Drained, now_us: u64, now: u64) -> ReservationStatus {
        let Self { names, owners, listeners, reservations, ports, kernel, .. } = self;
        let bound = drained.bound.as_deref().unwrap_or_default();
        reservations.enforce(now, now_us, names, owners, kernel);
        let seen = Seen { now, listeners, bound, refused: &ports.refused, owners };
        reservations.update(&seen, |netns, port, owner| match names.published(netns, port.number) {
            // A process that listens on a published port does so for the container.
            Some(container) if port.protocol == Protocol::Tcp => (container, true),
            _ => match names.acceptor(owner, port.number) {
                Some(Acceptor::Service(service)) if port.protocol == Protocol::Tcp => {
                    (service.clone(), true)
                }
                // Whose it is shows when it accepts.
                Some(Acceptor::Several | Acceptor::Unknown { .. })
                    if port.protocol == Protocol::Tcp =>
                {
                    (Service::other(), false)
                }
                _ => local_name(names, owners, owner, now_us),
            },
        })
    }

    /// Takes in failed binds and who has which port.
    pub(super) fn update_ports(&mut self, drained: &Drained, now: Now) -> Vec<PortView> {
        let Self { kernel, names, owners, listeners, ports, host, .. } = self;
        let capacity = kernel.bind_failure_capacity();
        let (now_us, now_seconds) = (now.us, now.epoch_seconds);
        let mut known = Known { names, owners, listeners, now_us, now_seconds };
        for step in ports.update(drained, capacity, &mut known, &**host) {
            reclaimed("failed bind", kernel.reclaim_bind_failure(&step));
        }
        ports.views(&mut known, &**host)
    }
}

fn reclaimed(what: &str, result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!("an idle {what} keeps its row in the kernel's table: {error}");
    }
}
