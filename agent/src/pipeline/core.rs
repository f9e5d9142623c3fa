//! The core: one thread that owns the kernel half, names and tables, and is their only writer.
//!
//! It wakes for three reasons: someone wants a snapshot, the sweep interval is over, the agent
//! stops. Each time it drains the kernel, names what it found, updates the tables and publishes
//! a snapshot.
//!
//! Long because it is the one place where every stage's data meets.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agent_common::address::{UNSPECIFIED, owner_of, to_ip};
use agent_common::claim::FIRST_FREE_CLAIM;
use agent_common::edge::{FIRST_FREE_SLOT, ROLE_CLIENT};
use agent_common::ledger::{BIND, CLASSES, EVENT, Ledger, OWNER, SOCKET};
use agent_common::listener::ListenerRecord;
use hashbrown::HashSet;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::kept::{Kept, Seen};
use super::labels::{local_name, naming};
use super::ports::{Known, Ports};
use super::relate::Relate;
use crate::api::SnapshotRequests;
use crate::decode::Event;
use crate::identity::sources::Sources;
use crate::identity::{Client, Names};
use crate::kernel::bpf;
use crate::kernel::drain::Drained;
use crate::kernel::load::Kernel;
use crate::model::claims::ClaimAction;
use crate::model::health::Epochs;
use crate::model::listen_drops::ListenDrops;
use crate::model::owners::{OwnerAction, Owners};
use crate::model::port::{PortView, Protocol};
use crate::model::snapshot::{HookView, LedgerView, ListenerView, MapView, Snapshot};
use crate::model::tables::{Action, Tables};
use crate::sockets::drops::NamespaceDrops;
use crate::sockets::existing::{self, Survey};

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
    ports: Ports,
    listeners: Vec<ListenerRecord>,
    addresses_at: Option<Instant>,
    known_namespaces: HashSet<u32>,
    preexisting: u64,
    events: u64,
    exported_before: Option<[u64; CLASSES]>,
    drains: u64,
    drain_time: Duration,
    kept: Kept,
    epochs: Epochs,
}

impl Core {
    pub(super) fn new(
        kernel: Kernel,
        names: Names,
        sources: Sources,
        kept: Kept,
        relate: Relate,
    ) -> Self {
        Self {
            kernel,
            names,
            sources,
            tables: Tables::default(),
            relate,
            owners: Owners::default(),
            drops: ListenDrops::default(),
            namespace_drops: NamespaceDrops::default(),
            ports: Ports::default(),
            listeners: Vec::new(),
            addresses_at: None,
            known_namespaces: HashSet::new(),
            preexisting: 0,
            events: 0,
            exported_before: None,
            drains: 0,
            drain_time: Duration::ZERO,
            kept,
            epochs: Epochs::default(),
        }
    }

    /// Runs until the other end of `stopping` is gone.
    pub(super) fn run(
        mut self,
        mut requests: SnapshotRequests,
        mut stopping: watch::Receiver<()>,
        every: Duration,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        if !self.kernel.adopted {
            self.seed();
        }
        runtime.block_on(async {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    // An error means that the other end is gone: the agent stops.
                    _ = stopping.changed() => break,
                    () = requests.asked() => {}
                    _ = ticks.tick() => {}
                }
                let started = Instant::now();
                match self.snapshot() {
                    Ok(snapshot) => requests.publish(&Arc::new(snapshot)),
                    Err(error) => tracing::error!(
                        "the kernel's tables could not be read, metrics stand still: {error:#}"
                    ),
                }
                let took = started.elapsed();
                // A host with very many sockets is swept less often rather than at any price.
                if took * DRAIN_SHARE > every {
                    ticks.reset_after(took * DRAIN_SHARE);
                }
            }
        });
        Ok(())
    }

    fn seed(&mut self) {
        let survey = existing::survey();
        for problem in &survey.problems {
            tracing::warn!("{problem}");
        }
        self.take_addresses(&survey);
        match self.kernel.seed(&survey) {
            Ok(sockets) => tracing::info!(
                "{sockets} sockets were there before in {} network namespaces",
                survey.namespaces.len()
            ),
            Err(error) => tracing::warn!(
                "connections and listeners from before the start are missing: {error:#}"
            ),
        }
    }

    /// Drains, names, updates: the whole flow, once.
    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        let started = Instant::now();
        let mut drained = self.kernel.drain.run()?;
        if let Some(log) = &mut self.kernel.log {
            log.flush();
        }
        self.learn(&mut drained);
        self.settle_drops(&mut drained);
        let snapshot = self.update(&drained);
        self.drains += 1;
        self.drain_time += started.elapsed();
        Ok(snapshot)
    }

    /// Replaces what listeners' sockets dropped by what they lost of connection requests.
    fn settle_drops(&mut self, drained: &mut Drained) {
        let Self { owners, drops, namespace_drops, .. } = self;
        drops.settle(
            &mut drained.edges,
            |edge| owners.netns(edge.key.owner),
            |netns, edge| {
                let tgid = owners.row(edge.key.owner).map_or(0, |row| row.tgid);
                namespace_drops.read(netns, tgid)
            },
        );
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
            let survey = existing::places();
            self.take_addresses(&survey);
            self.names.set_strangers(false);
        } else {
            self.names.set_strangers(strangers && expecting);
        }
        self.names.set_ports(&self.listeners);
        let now_us = monotonic_us();
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
        self.ports.set_ephemeral(survey);
        self.addresses_at = Some(Instant::now());
    }

    fn update(&mut self, drained: &Drained) -> Snapshot {
        let now_us = monotonic_us();
        let taken = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Self { names, sources, owners, listeners, tables, kernel, kept, .. } = self;
        let book = kept.book();
        let live: HashSet<(u32, u16)> =
            listeners.iter().map(|record| (record.owner, record.port)).collect();
        let capacity = kernel.drain.edge_capacity();
        let updated = tables.update(
            now_us / 1_000_000,
            &drained.edges,
            capacity,
            |edge| naming(names, owners, &book.registry, edge, now_us),
            |key| live.contains(&(key.owner, key.port)),
        );
        for action in updated.actions {
            give_back(
                "edge",
                match action {
                    Action::Forget(key) => kernel.drain.forget_edge(&key).map(drop),
                    Action::Free(slot) => kernel.drain.free_edge(slot),
                },
            );
        }
        let peers = drained.edges.iter().filter_map(|edge| owner_of(&edge.key.remote));
        let claimants = drained.claims.iter().map(|claim| claim.row.key.owner);
        let holders = drained.bound.iter().flatten().map(|bound| bound.owner);
        let used = drained.edges.iter().map(|edge| edge.key.owner);
        let used = used.chain(peers).chain(claimants).chain(holders).collect();
        for action in owners.update(now_us / 1_000_000, &used) {
            give_back(
                "owner",
                match action {
                    OwnerAction::Forget(key) => kernel.drain.forget_owner(&key).map(drop),
                    OwnerAction::Free(index) => {
                        names.forget_owner(index);
                        kernel.drain.free_owner(index)
                    }
                },
            );
        }
        if names.take_missing() {
            sources.ask();
        }
        let port_views = self.take_binds(drained, now_us);
        let Self { tables, .. } = self;
        for event in &drained.events {
            tell(event, tables);
        }
        self.events += drained.events.len() as u64 + drained.malformed_events;
        let ledger = drained.ledger;
        let exported = self.exported(updated.exported, &ledger);
        self.preexisting = updated.edges.iter().map(|view| view.counters.preexisting).sum();
        let edges_in_use = drained.edges.iter().filter(|edge| edge.slot >= FIRST_FREE_SLOT).count();
        let claims_in_use = drained.claims.len().saturating_sub(FIRST_FREE_CLAIM as usize);
        let hooks = self.hooks();
        let Self { names, owners, listeners, kept, ports, kernel, .. } = self;
        let bound = drained.bound.as_deref().unwrap_or_default();
        let refused = &ports.refused;
        let seen = Seen { now: taken.as_secs(), listeners, bound, refused };
        kept.enforce(taken.as_secs(), now_us, names, owners, &mut kernel.enforcement);
        let kept =
            kept.update(&seen, |netns, port, owner| match names.published(netns, port.number) {
                // Whoever listens on a published port does so for the container.
                Some(container) if port.protocol == Protocol::Tcp => (container, true),
                _ => local_name(names, owners, owner, now_us),
            });
        let related = self.relate.update(now_us, taken.as_secs_f64(), &drained.edges, &self.tables);
        Snapshot {
            taken_seconds: taken.as_secs_f64(),
            ports: port_views,
            ephemeral: self.ports.ephemeral_views(&mut self.names, &self.owners, now_us),
            conflicts: self.ports.conflicts.recent(),
            conflict_totals: self.ports.conflicts.totals(),
            health_since: self.epochs.observe(taken.as_secs_f64(), &updated.edges),
            kept,
            edges: updated.edges,
            listeners: self.listener_views(now_us),
            ledger: LedgerView {
                kernel: ledger,
                exported,
                recursion_misses: hooks.iter().map(|hook| hook.misses).sum(),
            },
            hooks,
            disabled: self.kernel.disabled.clone(),
            maps: self
                .kernel
                .drain
                .fill(edges_in_use, claims_in_use)
                .map(|(name, entries, capacity)| MapView {
                    name: name.to_owned(),
                    entries,
                    capacity,
                })
                .to_vec(),
            unresolved_owners: self.names.unresolved(),
            sources: self.sources.views(),
            preexisting_sockets: self.preexisting,
            related,
            drains: self.drains,
            drain_seconds: self.drain_time.as_secs_f64(),
        }
    }

    /// Takes in failed binds and who has which port.
    fn take_binds(&mut self, drained: &Drained, now_us: u64) -> Vec<PortView> {
        let Self { kernel, names, owners, listeners, ports, .. } = self;
        let capacity = kernel.drain.ports.capacity();
        let mut known = Known { names, owners, listeners, now_us, now_seconds: epoch_seconds() };
        for action in ports.update(drained, capacity, &mut known) {
            give_back(
                "failed bind",
                match action {
                    ClaimAction::Forget(key) => kernel.drain.ports.forget(&key).map(drop),
                    ClaimAction::Free(slot) => kernel.drain.ports.free(slot),
                },
            );
        }
        ports.views(&mut known)
    }

    /// Completes what the tables export with what leaves by other ways. After a take-over of
    /// pinned maps the ledger goes back further than this process: what was exported before is
    /// what was seen and not lost by then.
    fn exported(&mut self, tables: [u64; CLASSES], ledger: &Ledger) -> [u64; CLASSES] {
        let kept =
            |class: usize| ledger.seen[class].saturating_sub(ledger.lost[class].iter().sum());
        let mut exported = tables;
        exported[OWNER] = self.owners.taken();
        exported[EVENT] = self.events;
        exported[BIND] = self.ports.exported();
        let adopted = self.kernel.adopted;
        let before = self.exported_before.get_or_insert_with(|| {
            let missing = |class: usize| {
                if adopted { kept(class).saturating_sub(exported[class]) } else { 0 }
            };
            std::array::from_fn(missing)
        });
        for (exported, before) in exported.iter_mut().zip(before) {
            *exported += *before;
        }
        // Storage has no table to count; it is there or it is lost.
        exported[SOCKET] = kept(SOCKET);
        exported
    }

    fn hooks(&self) -> Vec<HookView> {
        self.kernel
            .hooks
            .iter()
            .map(|attached| {
                let link = attached.result.as_ref().ok();
                let runs = link.and_then(|link| bpf::program_runs(link.program.as_fd()).ok());
                let runs = runs.unwrap_or_default();
                HookView {
                    name: attached.hook.name.to_owned(),
                    attached: link.is_some(),
                    reason: attached.result.as_ref().err().cloned(),
                    lost_without: attached.hook.lost_without.to_owned(),
                    runs: runs.count,
                    run_seconds: runs.time_ns as f64 / 1e9,
                    misses: runs.misses,
                }
            })
            .collect()
    }

    fn listener_views(&mut self, now_us: u64) -> Vec<ListenerView> {
        let Self { names, owners, listeners, .. } = self;
        let mut views: Vec<_> = listeners
            .iter()
            .map(|record| ListenerView {
                service: local_name(names, owners, record.owner, now_us).0,
                port: record.port,
                address: if record.family == 2 && record.address == UNSPECIFIED {
                    std::net::Ipv4Addr::UNSPECIFIED.into()
                } else {
                    to_ip(record.address)
                },
                netns: record.netns,
                backlog: record.backlog,
                max_backlog: record.max_backlog,
            })
            .collect();
        views.sort_unstable();
        views
    }
}

fn give_back(what: &str, result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!("an idle {what} keeps its row in the kernel's table: {error}");
    }
}

/// Rare facts, one by one, for who debugs.
fn tell(event: &Event, tables: &Tables) {
    let (Event::ConnectFailed { slot, .. } | Event::Reset { slot, .. }) = event;
    let labels = tables.labels(*slot);
    let client = labels.map(|labels| labels.client.name.as_ref());
    let server = labels.map(|labels| labels.server.name.as_ref());
    match event {
        Event::ConnectFailed { remote, port, result, errno, elapsed_us, .. } => {
            tracing::debug!(client, server, %remote, port, result, errno, elapsed_us, "connect failed");
        }
        Event::Reset { remote, remote_port, local_port, sent, cause, idle_us, .. } => {
            // A socket that is closed already has given its port back; the edge knows a server's.
            let port = labels.map(|labels| labels.port);
            tracing::debug!(client, server, port, %remote, remote_port, local_port, sent, cause, idle_us, "reset");
        }
    }
}

/// Seconds since the Unix epoch.
fn epoch_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// CLOCK_MONOTONIC in microseconds, the clock of the kernel half.
pub(super) fn monotonic_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}
