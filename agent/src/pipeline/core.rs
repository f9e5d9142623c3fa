//! The core: one thread that owns the kernel half, names and tables, and is their only writer.
//!
//! It wakes for four reasons: someone wants a snapshot, the kernel half calls, the sweep interval
//! is over, the agent stops. Each time it drains the kernel, names what it found, updates the
//! tables and publishes a snapshot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_common::address::{Address, owner_of};
use agent_common::edge::ROLE_CLIENT;
use agent_common::listener::ListenerRecord;
use agent_common::slot_table::Reclaim;
use hashbrown::HashSet;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::account::{Account, Elsewhere};
use super::calls::Calls;
use super::clock::{epoch_seconds, monotonic_us};
use super::kept::{Kept, Seen};
use super::labels::{local_name, naming};
use super::memory::Keeper;
use super::ports::{Known, Ports};
use super::relate::Relate;
use super::{settle, views};
use discovery::sources::Sources;
use discovery::{Client, Names};
use linux::drops::NamespaceDrops;
use linux::existing::{self, Survey};
use loader::drain::Drained;
use loader::load::Kernel;
use model::health::Epochs;
use model::kept::KeptView;
use model::listen_drops::ListenDrops;
use model::memory::MemoryView;
use model::owners::Owners;
use model::port::{PortView, Protocol};
use model::snapshot::{LedgerView, Snapshot};
use model::tables::{Tables, Updated};
use model::unsent::Unsent;
use telemetry::source::SnapshotRequests;

/// How often the addresses of this host are looked up again.
const ADDRESSES_EVERY: Duration = Duration::from_secs(30);
/// The same when a network namespace turns up that is not known.
const ADDRESSES_SOONEST: Duration = Duration::from_secs(1);
/// A drain may take at most one part in this many of the time.
const DRAIN_SHARE: u32 = 50;

/// All state, owned by one thread.
pub(super) struct Core {
    kernel: Kernel,
    names: Names,
    sources: Sources,
    tables: Tables,
    relate: Relate,
    owners: Owners,
    drops: ListenDrops,
    namespace_drops: NamespaceDrops,
    unsent: Unsent,
    ports: Ports,
    listeners: Vec<ListenerRecord>,
    addresses: Vec<(u32, Address)>,
    addresses_at: Option<Instant>,
    known_namespaces: HashSet<u32>,
    events: u64,
    account: Account,
    drains: u64,
    drain_time: Duration,
    kept: Kept,
    keeper: Keeper,
    memory: MemoryView,
    epochs: Epochs,
}

impl Core {
    /// Takes over the kernel half, and what [`bootstrap`] has found.
    pub(super) fn new(
        kernel: Kernel,
        survey: &Survey,
        names: Names,
        sources: Sources,
        kept: Kept,
        relate: Relate,
        keeper: Keeper,
    ) -> Self {
        let mut core = Self {
            kernel,
            names,
            sources,
            tables: Tables::default(),
            relate,
            owners: Owners::default(),
            drops: ListenDrops::default(),
            namespace_drops: NamespaceDrops::default(),
            unsent: Unsent::default(),
            ports: Ports::default(),
            listeners: Vec::new(),
            addresses: Vec::new(),
            addresses_at: None,
            known_namespaces: HashSet::new(),
            events: 0,
            account: Account::default(),
            drains: 0,
            drain_time: Duration::ZERO,
            kept,
            keeper,
            memory: MemoryView::default(),
            epochs: Epochs::default(),
        };
        core.take_addresses(survey);
        // Before the first drain: a storm may be on.
        core.memory = core.keeper.look(&mut core.kernel.drain, 0);
        core
    }

    /// Runs until the other end of `stopping` is gone.
    pub(super) fn run(
        mut self,
        mut requests: SnapshotRequests,
        mut stopping: watch::Receiver<()>,
        every: Duration,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut calls = Calls::new(self.kernel.drain.calls()?)?;
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let was_called = tokio::select! {
                    biased;
                    // An error means that the other end is gone: the agent stops.
                    _ = stopping.changed() => break,
                    () = requests.asked() => false,
                    () = calls.next() => true,
                    _ = ticks.tick() => false,
                };
                let started = Instant::now();
                match self.snapshot() {
                    Ok(snapshot) => requests.publish(&Arc::new(snapshot)),
                    Err(error) => tracing::error!(
                        "the kernel's tables could not be read, metrics stand still: {error:#}"
                    ),
                }
                let took = started.elapsed();
                // A host with very many sockets is swept less often rather than at any price.
                let pause = took * DRAIN_SHARE;
                if pause > every {
                    ticks.reset_after(pause);
                }
                if was_called {
                    calls.answered(pause);
                }
            }
            Ok(())
        })
    }

    /// Drains, names, updates: the whole flow, once.
    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        let started = Instant::now();
        let mut drained = self.kernel.drain.run(monotonic_us() * 1000)?;
        if let Some(log) = &mut self.kernel.log {
            log.flush();
        }
        self.learn(&mut drained);
        let Self { owners, drops, namespace_drops, unsent, .. } = self;
        settle::listen_drops(drops, namespace_drops, owners, &mut drained.edges);
        settle::unsent(unsent, owners, &mut drained.edges);
        let snapshot = self.update(&drained);
        self.drains += 1;
        self.drain_time += started.elapsed();
        Ok(snapshot)
    }

    /// Takes in owners, listeners, addresses and clients: what names are made of.
    fn learn(&mut self, drained: &mut Drained) {
        for (index, row) in drained.owners.drain(..) {
            self.owners.insert(index, row);
        }
        if let Some(listeners) = drained.listeners.take() {
            self.listeners = listeners;
        }
        let (told, expecting) = self.sources.told();
        self.names.set_told(told, expecting);
        let strangers =
            self.owners.namespaces().any(|netns| !self.known_namespaces.contains(&netns));
        let patience = if strangers { ADDRESSES_SOONEST } else { ADDRESSES_EVERY };
        if self.addresses_at.is_none_or(|at| at.elapsed() >= patience) {
            let survey = existing::places(&self.addresses);
            self.take_addresses(&survey);
            self.names.set_strangers(false);
        } else {
            self.names.set_strangers(strangers && expecting);
        }
        self.names.set_ports(&self.listeners);
        let now_us = monotonic_us();
        self.names.set_answers(&drained.answers, drained.malformed_answers, now_us);
        let Self { names, owners, listeners, .. } = self;
        let mut owner = |index: u32| local_name(names, owners, index, now_us).0;
        let listening: Vec<_> =
            listeners.iter().map(|record| (*record, owner(record.owner))).collect();
        let clients: Vec<_> = drained
            .edges
            .iter()
            .filter(|edge| edge.key.role == ROLE_CLIENT && edge.born_us != 0)
            .map(|edge| Client {
                netns: owners.netns(edge.key.owner),
                remote: edge.key.remote,
                port: edge.key.port,
                service: owner(edge.key.owner),
            })
            .collect();
        names.set_listeners(&listening);
        names.set_clients(&clients);
    }

    fn take_addresses(&mut self, survey: &Survey) {
        self.known_namespaces = survey.namespaces.iter().map(|namespace| namespace.inode).collect();
        // A namespace that cannot be found stays a stranger; do not look for it every second.
        self.known_namespaces.extend(self.owners.namespaces());
        self.names.set_addresses(&survey.addresses);
        self.relate.set_addresses(&survey.addresses);
        self.addresses.clone_from(&survey.addresses);
        self.ports.set_ephemeral(survey);
        self.addresses_at = Some(Instant::now());
    }

    /// Updates every table; what there is then, is the snapshot.
    fn update(&mut self, drained: &Drained) -> Snapshot {
        let now_us = monotonic_us();
        let taken_seconds = epoch_seconds();
        let in_use = views::edges_in_use(drained);
        self.memory = self.keeper.look(&mut self.kernel.drain, in_use);
        let updated = self.update_edges(drained, now_us);
        self.update_owners(drained, now_us);
        if self.names.take_missing() {
            self.sources.ask();
        }
        let ports = self.take_binds(drained, now_us, taken_seconds);
        for event in &drained.events {
            views::log(event, &self.tables);
        }
        self.events += drained.events.len() as u64 + drained.malformed_events;
        let elsewhere = Elsewhere {
            owners: self.owners.taken(),
            events: self.events,
            binds: self.ports.exported(),
            dns_answers: self.names.resolved().lookups,
        };
        let Self { account, kernel, .. } = self;
        let exported =
            account.exported(updated.exported, elsewhere, &drained.ledger, kernel.adopted);
        let kept = self.keep(drained, now_us, taken_seconds as u64);
        let book = self.kept.book();
        let names = (&self.names, &book.registry);
        let related =
            self.relate.update(now_us, taken_seconds, &drained.edges, &self.tables, names);
        let hooks = views::hooks(&self.kernel);
        let mut sources = self.sources.views();
        sources.extend(self.kernel.dns.then(|| self.names.resolved()));
        let Self { names, owners, listeners, .. } = self;
        Snapshot {
            taken_seconds,
            ports,
            ephemeral: self.ports.ephemeral_views(names, owners, now_us),
            conflicts: self.ports.conflicts.recent(),
            conflict_totals: self.ports.conflicts.totals(),
            health_since: self.epochs.observe(taken_seconds, &updated.edges),
            kept,
            preexisting_sockets: updated.edges.iter().map(|view| view.counters.preexisting).sum(),
            edges: updated.edges,
            listeners: views::listeners(names, owners, listeners, now_us),
            ledger: LedgerView {
                kernel: drained.ledger,
                exported,
                recursion_misses: hooks.iter().map(|hook| hook.misses).sum(),
            },
            hooks,
            disabled: views::disabled(&self.kernel),
            maps: views::maps(&self.kernel, drained),
            memory: self.memory,
            unresolved_owners: self.names.unresolved(),
            sources,
            related,
            drains: self.drains,
            drain_seconds: self.drain_time.as_secs_f64(),
        }
    }

    /// Slots become rows with names; idle ones go back to the kernel.
    fn update_edges(&mut self, drained: &Drained, now_us: u64) -> Updated {
        let Self { names, owners, listeners, tables, kernel, kept, .. } = self;
        let book = kept.book();
        let live: HashSet<(u32, u16)> =
            listeners.iter().map(|record| (record.owner, record.port)).collect();
        let capacity = kernel.drain.edge_capacity();
        let mut updated = tables.update(
            now_us / 1_000_000,
            &drained.edges,
            capacity,
            |edge| naming(names, owners, &book.registry, edge, now_us),
            |key| live.contains(&(key.owner, key.port)),
        );
        for step in updated.reclaim.drain(..) {
            give_back("edge", kernel.drain.reclaim_edge(&step));
        }
        updated
    }

    /// Owners that nothing refers to any more go back to the kernel.
    fn update_owners(&mut self, drained: &Drained, now_us: u64) {
        let Self { names, owners, kernel, .. } = self;
        let peers = drained.edges.iter().filter_map(|edge| owner_of(&edge.key.remote));
        let claimants = drained.bind_failures.iter().map(|failure| failure.row.key.owner);
        let holders = drained.bound.iter().flatten().map(|bound| bound.owner);
        let used = drained.edges.iter().map(|edge| edge.key.owner);
        let used = used.chain(peers).chain(claimants).chain(holders).collect();
        for step in owners.update(now_us / 1_000_000, &used) {
            if let Reclaim::Free(index) = step {
                names.forget_owner(index);
            }
            give_back("owner", kernel.drain.reclaim_owner(&step));
        }
    }

    /// Holds reservations against who has the ports.
    fn keep(&mut self, drained: &Drained, now_us: u64, now: u64) -> KeptView {
        let Self { names, owners, listeners, kept, ports, kernel, .. } = self;
        let bound = drained.bound.as_deref().unwrap_or_default();
        kept.enforce(now, now_us, names, owners, &mut kernel.enforcement);
        let seen = Seen { now, listeners, bound, refused: &ports.refused };
        kept.update(&seen, |netns, port, owner| match names.published(netns, port.number) {
            // Whoever listens on a published port does so for the container.
            Some(container) if port.protocol == Protocol::Tcp => (container, true),
            _ => local_name(names, owners, owner, now_us),
        })
    }

    /// Takes in failed binds and who has which port.
    fn take_binds(&mut self, drained: &Drained, now_us: u64, now_seconds: f64) -> Vec<PortView> {
        let Self { kernel, names, owners, listeners, ports, .. } = self;
        let capacity = kernel.drain.ports.capacity();
        let mut known = Known { names, owners, listeners, now_us, now_seconds };
        for step in ports.update(drained, capacity, &mut known) {
            give_back("failed bind", kernel.drain.ports.reclaim(&step));
        }
        ports.views(&mut known)
    }
}

fn give_back(what: &str, result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!("an idle {what} keeps its row in the kernel's table: {error}");
    }
}
