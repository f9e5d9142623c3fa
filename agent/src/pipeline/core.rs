//! The core: one thread that owns the kernel half, names and tables, and is their only writer.
//!
//! It wakes up for a request of a snapshot, a call of the kernel half, the end of the collection
//! interval, an answer that a snapshot waits for, or shutdown. Each time it collects,
//! [resolves](resolve) names, [aggregates](aggregate) rows and [publishes](publish) a snapshot. It
//! opens no path, enters no namespace and never waits: a [`Host`] does, and answers later.

mod aggregate;
mod events;
mod inhabited;
mod publish;
mod resolve;
mod returned;

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_common::listener::ListenerRecord;
use hashbrown::HashSet;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use self::inhabited::Inhabited;
use self::returned::Returned;
use super::account::Account;
use super::calls::Calls;
use super::clock::epoch_seconds;
use super::conditions::Watch;
use super::full_tables::FullTables;
use super::host::Host;
use super::kernel::Kernel;
use super::memory::Keeper;
use super::ports::Ports;
use super::reconcile::{Listeners, Refused};
use super::relate::Relate;
use super::reservations::ReservationMonitor;
use super::walks::Walks;
use discovery::Names;
use discovery::sources::Sources;
use linux::addresses::Held;
use linux::clock::monotonic_us;
use linux::existing::Survey;
use linux::probes::{Pending, Probes};
use loader::attacher::Attachment;
use model::corrections::Corrections;
use model::events::{Changes, Events};
use model::health::Traffic;
use model::memory::MemoryView;
use model::owners::Owners;
use model::recent::Recent;
use model::snapshot::Snapshot;
use model::stopping::Stopping;
use model::tables::Tables;
use model::unverified::ByUser;
use telemetry::event_feed::EventFeed;
use telemetry::source::SnapshotRequests;

/// How often the addresses of this host are looked up.
const ADDRESSES_EVERY_US: u64 = 30_000_000;
/// The same when an unknown network namespace appears.
const ADDRESSES_SOONEST_US: u64 = 1_000_000;
/// Lookups of addresses may then take this fraction of one CPU (one part in N): any user can make
/// namespaces all the time.
const ADDRESSES_SHARE: u64 = 20;
/// Collections may take at most this fraction of the time (one part in N).
const DRAIN_SHARE: u32 = 50;
/// How long a requested snapshot waits for answers that improve it: names of new workloads, reasons
/// of refused connects, holders of ports.
const GRACE: Duration = Duration::from_millis(100);

/// All state, owned by one thread.
pub(super) struct Core<K> {
    kernel: K,
    host: Box<dyn Host>,
    names: Names,
    sources: Sources,
    tables: Tables,
    relate: Relate,
    owners: Owners,
    stopping: Stopping,
    corrections: Corrections,
    listener_rows: Listeners,
    refused: Refused,
    ports: Ports,
    conditions: Watch,
    walks: Walks<Vec<Attachment>>,
    listeners: Vec<ListenerRecord>,
    addresses: Vec<Held>,
    /// The pending lookup of addresses, since when, and for which namespaces of owners.
    surveying: Option<Pending<Option<Survey>>>,
    asked_us: u64,
    surveyed_us: Option<u64>,
    /// The mounts of namespaces then.
    surveyed_mounts: u64,
    surveyed_namespaces: Vec<u32>,
    known_namespaces: HashSet<u32>,
    /// When an owner was met last of which it was not sure in which namespace, CLOCK_MONOTONIC
    /// microseconds.
    met_us: u64,
    /// Which namespaces have had a program.
    inhabited: Inhabited,
    /// Which programs of namespaces that have ended act in the next ones with their numbers.
    returned: Returned,
    /// When the last lookup of addresses began that has an answer.
    looked_us: u64,
    /// CPU time that it took.
    look_cost_us: u64,
    mounts: Mounts,
    events: u64,
    account: Account,
    drains: u64,
    drain_time: Duration,
    reservations: ReservationMonitor,
    keeper: Keeper,
    memory: MemoryView,
    traffic: Traffic,
    recent: Recent,
    unverified: ByUser,
    full_tables: FullTables,
    reported: Events,
    changes: Changes,
    feed: EventFeed,
}

/// Whether mounts have changed, and namespaces with them, since those were looked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mounts {
    Same,
    Changed,
    /// They are being looked for.
    Looking,
}

/// The parts of the core.
pub(super) struct Parts<K> {
    /// The kernel half.
    pub kernel: K,
    /// Queries the host.
    pub host: Box<dyn Host>,
    /// Owners, none yet.
    pub owners: Owners,
    /// Names.
    pub names: Names,
    /// The name sources.
    pub sources: Sources,
    /// Reservations.
    pub reservations: ReservationMonitor,
    /// Relations and segments.
    pub relate: Relate,
    /// Conditions of network namespaces.
    pub conditions: Watch,
    /// Services whose protocols are walked.
    pub walks: Walks<Vec<Attachment>>,
    /// The limits of memory.
    pub keeper: Keeper,
    /// Followers of events.
    pub feed: EventFeed,
}

/// The time of a drain, by the two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// CLOCK_MONOTONIC, microseconds.
    pub us: u64,
    /// Seconds since the Unix epoch.
    pub epoch_seconds: f64,
}

impl Now {
    /// Now.
    pub(super) fn read() -> Self {
        Self { us: monotonic_us(), epoch_seconds: epoch_seconds() }
    }
}

impl<K: Kernel> Core<K> {
    /// Takes over the kernel half and the survey, at `now_us`.
    pub(super) fn new(parts: Parts<K>, survey: &Survey, now: Now) -> Self {
        let Now { us: now_us, epoch_seconds } = now;
        let Parts {
            kernel,
            host,
            owners,
            names,
            sources,
            reservations,
            relate,
            conditions,
            walks,
            keeper,
            feed,
        } = parts;
        let mut core = Self {
            kernel,
            host,
            names,
            sources,
            tables: Tables::default(),
            relate,
            owners,
            stopping: Stopping::default(),
            corrections: Corrections::default(),
            listener_rows: Listeners::default(),
            refused: Refused::default(),
            ports: Ports::default(),
            conditions,
            walks,
            listeners: Vec::new(),
            addresses: Vec::new(),
            surveying: None,
            asked_us: now_us,
            surveyed_mounts: 0,
            surveyed_us: Some(now_us),
            surveyed_namespaces: Vec::new(),
            known_namespaces: HashSet::new(),
            met_us: 0,
            inhabited: Inhabited::default(),
            returned: Returned::default(),
            looked_us: now_us,
            look_cost_us: 0,
            mounts: Mounts::Same,
            events: 0,
            account: Account::default(),
            drains: 0,
            drain_time: Duration::ZERO,
            reservations,
            keeper,
            memory: MemoryView::default(),
            traffic: Traffic::default(),
            recent: Recent::new(now_us),
            unverified: ByUser::default(),
            full_tables: FullTables::default(),
            reported: Events::new(now_us, epoch_seconds),
            changes: Changes::default(),
            feed,
        };
        core.take_addresses(survey);
        // Before the first collection: there may be a storm.
        core.memory = core.keeper.look(&mut core.kernel, 0);
        core
    }

    /// Runs until the sender of `stopping` is dropped. `probes` are those of the host, `mounts` is its
    /// table of mounts.
    pub(super) fn run(
        mut self,
        mut requests: SnapshotRequests,
        mut stopping: watch::Receiver<()>,
        every: Duration,
        probes: &Probes,
        mounts: Option<File>,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut calls = Calls::new(self.kernel.calls()?)?;
            let mut mounts = mounts.map(Calls::of_mounts).transpose()?;
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // Until when requests of a snapshot wait for answers.
            let mut grace: Option<tokio::time::Instant> = None;
            loop {
                let (mut was_called, mut mounts_changed) = (false, false);
                tokio::select! {
                    biased;
                    // An error means that the sender is dropped: the agent stops.
                    _ = stopping.changed() => break,
                    () = requests.asked(), if grace.is_none() => {
                        grace = Some(tokio::time::Instant::now() + GRACE);
                    }
                    () = probes.answered(), if grace.is_some() || self.mounts != Mounts::Same => {}
                    () = self.sources.connections_listed(),
                        if grace.is_some() && self.names.awaits_connections() => {}
                    () = over(grace), if grace.is_some() => {}
                    () = calls.next() => was_called = true,
                    () = next(mounts.as_ref()) => mounts_changed = true,
                    _ = ticks.tick() => {}
                }
                if mounts_changed {
                    self.mounts = Mounts::Changed;
                }
                let is_changing = mounts.as_ref().is_none_or(Calls::is_there);
                self.names.set_doubt(is_changing || self.mounts != Mounts::Same);
                let started = Instant::now();
                let is_over = grace.is_none_or(|grace| grace <= tokio::time::Instant::now());
                match self.snapshot(Now::read()) {
                    Ok(snapshot) if is_over || !self.awaits_answers(probes) => {
                        grace = None;
                        requests.publish(&Arc::new(snapshot));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!("the collection failed, metrics are stale: {error:#}");
                    }
                }
                let took = started.elapsed();
                // A host with very many sockets is drained less often rather than at any price.
                let pause = took * DRAIN_SHARE;
                if pause > every {
                    ticks.reset_after(pause);
                }
                if was_called {
                    calls.answered(pause);
                }
                if let Some(mounts) = mounts.as_mut().filter(|_| mounts_changed) {
                    mounts.answered(pause);
                }
            }
            Ok(())
        })
    }

    /// The events so far.
    #[cfg(test)]
    pub(super) fn events(&self) -> model::events::EventsView {
        self.reported.view()
    }

    /// Whether a snapshot will soon be better.
    fn awaits_answers(&self, probes: &Probes) -> bool {
        probes.is_answer_due(GRACE) || self.names.awaits_connections()
    }

    /// Collects, resolves, aggregates, publishes: the whole flow, once.
    pub(super) fn snapshot(&mut self, now: Now) -> anyhow::Result<Snapshot> {
        let started = Instant::now();
        let mut drained = self.kernel.drain(now.us * 1000)?;
        self.resolve(&mut drained, now);
        self.complete(&mut drained, now.us);
        let snapshot = self.publish(&drained, now);
        self.drains += 1;
        self.drain_time += started.elapsed();
        Ok(snapshot)
    }
}

async fn next(calls: Option<&Calls>) {
    match calls {
        Some(calls) => calls.next().await,
        None => std::future::pending().await,
    }
}

async fn over(grace: Option<tokio::time::Instant>) {
    match grace {
        Some(grace) => sleep_until(grace).await,
        None => std::future::pending().await,
    }
}
