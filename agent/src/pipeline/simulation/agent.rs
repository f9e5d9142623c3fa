//! An agent over a simulated world: what it collects and what a scraper reads, checked at each step.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use super::super::conditions::Watch;
use super::super::core::{Core, Now, Parts};
use super::super::host::Host;
use super::super::memory::{Keeper, Meter};
use super::super::relate::Relate;
use super::super::reservations::ReservationMonitor;
use super::super::walks::Walks;
use super::fake::{Fake, World};
use super::metrics::Metrics;
use crate::config::Config;
use crate::state::{StateActor, StateFile, StateHandle};
use agent_common::ledger::{CLASS_NAMES, CONNECTION};
use discovery::Names;
use discovery::cgroup::Cgroups;
use discovery::rules::Rules;
use discovery::sources::Sources;
use linux::existing::Survey;
use linux::probes::Probes;
use model::events::{EventsView, Kind as EventKind};
use model::owners::Owners;
use model::snapshot::{EdgeLabels, EdgeView, LedgerView, Snapshot};
use telemetry::event_feed::EventFeed;
use telemetry::process::Process;
use telemetry::{Build, Exporter, Format, Scrape};

/// Shared by all agents of a test.
pub(super) struct Bench {
    config: Config,
    state: StateHandle,
    exporter: Exporter,
    scrape: Scrape,
    _directory: tempfile::TempDir,
}

/// An agent over a world.
pub(super) struct Agent<'a> {
    bench: &'a Bench,
    core: Core<Fake>,
    pub(super) fake: Fake,
    /// Counts of the last collection, by row.
    rows: BTreeMap<EdgeLabels, [u64; 4]>,
    /// Counters that were read at the last drain, if they were.
    pub(super) read: BTreeMap<String, f64>,
}

// === impl Bench ===

impl Bench {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, state, _) = StateFile::open(&directory.path().join("state"));
        let state = StateActor::start(store, state, None, None, Probes::inline()).expect("started");
        let build = Build { version: "1".to_owned(), kernel: "6".to_owned() };
        let scrape = Scrape { previous: None, process: Process::read(), pushes: None };
        let exporter = Exporter::new(build);
        Self { config: Config::default(), state, exporter, scrape, _directory: directory }
    }

    pub(super) fn agent(&self, fake: Fake) -> Agent<'_> {
        let core = self.core(&fake, Box::new(fake.clone()));
        Agent { bench: self, core, fake, rows: BTreeMap::new(), read: BTreeMap::new() }
    }

    pub(super) fn core(&self, fake: &Fake, host: Box<dyn Host>) -> Core<Fake> {
        let probes = Probes::inline();
        let cgroups = Cgroups::with_hierarchy(None, probes.clone());
        let now_us = fake.world().now_us;
        let parts = Parts {
            kernel: fake.clone(),
            host,
            owners: Owners::default(),
            names: Names::with_cgroups(Rules::default(), true, 100, cgroups, probes),
            sources: Sources::none(),
            reservations: ReservationMonitor::new(self.state.clone(), &self.config),
            relate: Relate::new(&self.config, now_us),
            conditions: Watch::new(self.config.collection_interval),
            walks: Walks::new(Vec::new()),
            keeper: Keeper::new(Meter::default()),
            feed: EventFeed::default(),
        };
        let epoch_seconds = 1_700_000_000.0 + now_us as f64 / 1e6;
        Core::new(parts, &Survey::default(), Now { us: now_us, epoch_seconds })
    }
}

// === impl Agent ===

impl Agent<'_> {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.fake.world()
    }

    /// Some seconds later the tables are read.
    pub(super) fn drain(&mut self, seconds: u64) -> Arc<Snapshot> {
        let us = {
            let mut world = self.fake.world();
            world.now_us += seconds * 1_000_000;
            world.now_us
        };
        if std::mem::take(&mut self.world().has_freed) {
            // Rows may have ended after the last collection: those that come back start at zero.
            self.rows.clear();
            self.read.clear();
        }
        let now = Now { us, epoch_seconds: 1_700_000_000.0 + us as f64 / 1e6 };
        let snapshot = self.core.snapshot(now).expect("a drain");
        let LedgerView { kernel, exported, .. } = &snapshot.ledger;
        for (class, name) in CLASS_NAMES.iter().enumerate() {
            let lost: u64 = kernel.lost[class].iter().sum();
            self.check_law(name, kernel.seen[class], exported[class] + lost);
        }
        let sums = |row: &EdgeView| {
            let counters = &row.counters;
            let resets = counters.resets_received.iter().sum();
            let connects = counters.connects.iter().sum();
            [connects, counters.request.count(), resets, counters.listen_drops]
        };
        let rows: BTreeMap<_, _> =
            snapshot.edges.iter().map(|row| ((*row.labels).clone(), sums(row))).collect();
        for (labels, now) in &rows {
            let before = self.rows.get(labels).copied().unwrap_or_default();
            let goes_on = now.iter().zip(before).all(|(now, before)| *now >= before);
            assert!(goes_on, "{labels:?} went back from {before:?} to {now:?}");
        }
        self.rows = rows;
        Arc::new(snapshot)
    }

    /// The same for a scraper: what it reads must be correct.
    pub(super) fn scrape(&mut self, seconds: u64) -> Metrics {
        let snapshot = self.drain(seconds);
        let read = std::mem::take(&mut self.read);
        let mut text = String::new();
        let Bench { exporter, scrape, .. } = self.bench;
        exporter
            .render(&snapshot, Format::Prometheus, scrape.clone(), &mut text)
            .expect("a string takes everything");
        let metrics = Metrics::read(&text);
        for class in CLASS_NAMES {
            let sum = |metric| metrics.by(metric, "class").get(class).copied().unwrap_or_default();
            let arrived = sum("portolan_events_exported_total") + sum("portolan_events_lost_total");
            self.check_law(class, sum("portolan_events_seen_total"), arrived);
        }
        for (series, value) in metrics.counters() {
            let before = read.get(series).copied().unwrap_or_default();
            assert!(value >= before, "{series} went back from {before} to {value}");
        }
        self.read = metrics.counters().map(|(name, value)| (name.to_owned(), value)).collect();
        metrics
    }

    /// seen = exported + lost, for every class. A lookup of a refused connect is pending until the
    /// host answers.
    pub(super) fn check_law(&self, class: &str, seen: u64, arrived: u64) {
        let waits = class == CLASS_NAMES[CONNECTION] && self.world().owes_answers();
        let is_right = seen == arrived || (waits && arrived < seen);
        assert!(is_right, "{class}: {seen} seen, {arrived} exported or lost");
    }

    /// Nothing else happens, and all answers arrive.
    pub(super) fn finish(&mut self) -> Metrics {
        for _ in 0..2 {
            self.world().answer();
            self.drain(4);
            self.read.clear();
        }
        self.world().answer();
        self.scrape(4)
    }

    /// Totals equal the truth.
    pub(super) fn check_totals(&self, metrics: &Metrics) {
        assert_eq!(metrics.truth(), self.world().truth);
    }

    /// The list of events has every failure that counters have, with the side that is shown.
    pub(super) fn check_events(&self, metrics: &Metrics) {
        let EventsView { ring, totals, overwritten, .. } = self.core.events();
        let mut listed: BTreeMap<_, u64> = BTreeMap::new();
        for event in ring.after(0, |_| true) {
            *listed.entry(event.what.kind.as_str()).or_default() += event.count;
        }
        let reported = metrics.by("portolan_reported_events_total", "kind");
        let kinds = EventKind::ALL.iter().zip(totals).filter(|(_, total)| *total > 0);
        let totals: BTreeMap<_, _> = kinds.map(|(kind, total)| (kind.as_str(), total)).collect();
        assert_eq!((&listed, overwritten), (&totals, 0));
        assert!(totals.iter().all(|(kind, total)| reported.get(*kind) == Some(total)));
        let total = |kind| totals.get(kind).copied().unwrap_or_default();
        let sum = |metric, label| metrics.by(metric, label).values().sum::<u64>();
        let results = metrics.by("portolan_tcp_connects_total", "result");
        let failed: u64 =
            results.iter().filter(|(result, _)| *result != "ok").map(|(_, count)| count).sum();
        assert_eq!(total("connect"), failed);
        assert_eq!(total("listen_drop"), sum("portolan_listen_overflows_total", "service"));
        let conflicts = metrics.by("portolan_port_conflicts_total", "claimant");
        let known = conflicts.iter().filter(|(claimant, _)| *claimant != "other");
        assert!(total("bind") >= known.map(|(_, count)| count).sum());
        assert!(total("bind") <= conflicts.values().sum());
        assert_eq!(total("reset"), sum("portolan_tcp_resets_total", "client"));
    }
}
