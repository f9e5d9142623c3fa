//! Publish: the snapshot for all readers.

use super::{Core, Now};
use crate::pipeline::account::Elsewhere;
use crate::pipeline::kernel::Kernel;
use crate::pipeline::labels::{local_name, namespace_of};
use crate::pipeline::views;
use agent_common::drained::Table;
use loader::drain::Drained;
use model::queues;
use model::snapshot::{Disabled, LedgerView, Snapshot};

impl<K: Kernel> Core<K> {
    /// Updates every table and makes the snapshot.
    pub(super) fn publish(&mut self, drained: &Drained, now: Now) -> Snapshot {
        let Now { us: now_us, epoch_seconds: taken_seconds } = now;
        let in_use = drained.edges_in_use();
        self.memory = self.keeper.look(&mut self.kernel, in_use);
        let mut updated = self.update_edges(drained, now);
        if let Some(found) = &drained.queues {
            let labels = |slot| self.tables.labels(Table::Edges, slot);
            let found = found.iter().filter_map(|(slot, found)| Some((labels(*slot)?, found)));
            queues::enter(&mut updated.edges, found);
        }
        self.update_owners(drained, now_us);
        if self.names.take_missing() {
            self.sources.request_refresh();
        }
        if self.names.awaits_connections() {
            self.sources.request_connections();
        }
        let ports = self.update_ports(drained, now);
        for event in &drained.events {
            views::log(event, &self.tables);
        }
        self.events += drained.events.len() as u64 + drained.malformed_events;
        let elsewhere = Elsewhere {
            owners: self.owners.taken(),
            waiting_connects: self.refused.waiting(),
            events: self.events,
            binds: self.ports.exported(),
            dns_answers: self.names.resolved().lookups,
        };
        let Self { account, kernel, .. } = self;
        let exported = account.exported(
            updated.deltas.exported,
            elsewhere,
            &drained.ledger,
            kernel.is_adopted(),
        );
        let reservations = self.keep(drained, now_us, taken_seconds as u64);
        let state = self.reservations.current();
        let names = (&self.names, state.registry.at(taken_seconds as u64));
        let related =
            self.relate.update(now_us, taken_seconds, &updated.deltas, names, &self.owners);
        let verified = updated.deltas.edges.iter();
        let verified = verified.filter(|delta| delta.labels.unverified_user.is_none());
        self.traffic.observe(verified);
        self.recent.update(now_us, &updated.deltas.closed, &updated.deltas.edges);
        self.unverified.add_connects(&updated.deltas.edges);
        let hooks = self.kernel.hooks();
        let mut sources = self.sources.views();
        self.names.add_dropped_connections(&mut sources);
        sources.extend(self.kernel.reads_dns().then(|| self.names.resolved()));
        let maps = self.kernel.maps(drained);
        self.full_tables.observe(&maps, now_us / 1_000_000);
        self.full_tables.observe_shares(&drained.ledger, now_us / 1_000_000);
        let events = self.report(&updated.deltas, &maps, &sources, taken_seconds, now_us);
        let Self { names, owners, host, conditions, .. } = self;
        let own = self.ports.own_namespace();
        let conditions = conditions.update(
            now_us,
            || host.conditions(owners.trusted().collect()),
            |netns| namespace_of(names, owners, netns, own, now_us).name,
        );
        let disabled = self.kernel.disabled().into_iter().chain(self.link_walks(now_us)).collect();
        let Self { names, owners, listeners, .. } = self;
        Snapshot {
            events,
            taken_seconds,
            ports,
            conditions,
            ephemeral: self.ports.ephemeral_views(names, owners, now_us),
            conflicts: self.ports.conflicts.recent(),
            conflict_totals: self.ports.conflicts.totals(),
            traffic: self.traffic.clone(),
            recent: self.recent.view(),
            unverified_conflicts: self.ports.conflicts.unverified.clone(),
            unverified_connects: self.unverified.clone(),
            reservations,
            preexisting_sockets: updated.edges.iter().map(|view| view.counters.preexisting).sum(),
            edges: updated.edges,
            listeners: views::listeners(names, owners, listeners, now_us),
            ledger: LedgerView {
                kernel: drained.ledger,
                exported,
                recursion_misses: hooks.iter().map(|hook| hook.misses).sum(),
            },
            hooks,
            disabled,
            maps,
            memory: self.memory,
            probes: self.host.probes(),
            unresolved_owners: self.names.unresolved(),
            sources,
            related,
            // Those before this one.
            drains: self.drains,
            drain_seconds: self.drain_time.as_secs_f64(),
        }
    }

    /// Has chosen services walked; returns which are not, and why.
    fn link_walks(&mut self, now_us: u64) -> Vec<Disabled> {
        let Self { walks, names, owners, host, kernel, .. } = self;
        if walks.are_none_chosen() {
            return Vec::new();
        }
        let rows: Vec<(u32, u64)> =
            owners.iter().map(|(index, row)| (index, row.key.cgroup)).collect();
        let named = rows.into_iter().filter_map(|(index, cgroup)| {
            let (service, is_stable) = local_name(names, owners, index, now_us);
            is_stable.then_some((cgroup, service))
        });
        walks.update(
            now_us,
            named,
            |cgroup| host.cgroup(cgroup),
            |cgroup| kernel.walk(&cgroup.folder, &cgroup.path),
        )
    }
}
