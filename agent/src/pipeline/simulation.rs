//! The whole flow (collection, names, tables, snapshot, metrics) without a kernel: scripted and
//! random histories in a simulated world that knows the truth, compared with the text that a
//! scraper reads.

mod fake;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use agent_common::ledger::{CLASS_NAMES, CONNECTION};
use tokio::sync::watch;

use self::fake::{Fake, Truth, World, name_of};
use super::core::{Core, Now, Parts};
use super::host::{HeldBy, Holders, Host, Socket};
use super::memory::{Keeper, Meter};
use super::relate::Relate;
use super::reservations::ReservationMonitor;
use crate::config::Config;
use crate::state::{StateActor, StateFile, StateHandle};
use discovery::Names;
use discovery::cgroup::Cgroups;
use discovery::rules::Rules;
use discovery::sources::Sources;
use linux::addresses::Held;
use linux::current_holders::Bound;
use linux::existing::Survey;
use linux::inspection::Inspection;
use linux::probes::{Kind, Pending, Probes};
use model::events::{EventsView, Kind as EventKind};
use model::owners::Owners;
use model::probes::ProbesView;
use model::snapshot::{EdgeLabels, EdgeView, LedgerView, Snapshot};
use telemetry::event_feed::EventFeed;
use telemetry::process::Process;
use telemetry::{Build, Exporter, Format, Scrape};

const HISTORIES: u64 = 10_000;

/// Shared by all agents of a test.
struct Bench {
    config: Config,
    state: StateHandle,
    exporter: Exporter,
    scrape: Scrape,
    _directory: tempfile::TempDir,
}

/// An agent over a world.
struct Agent<'a> {
    bench: &'a Bench,
    core: Core<Fake>,
    fake: Fake,
    /// Counts of the last collection, by row.
    rows: BTreeMap<EdgeLabels, [u64; 4]>,
    /// Counters that were read at the last drain, if they were.
    read: BTreeMap<String, f64>,
}

/// Counters that a scraper reads.
struct Metrics(BTreeMap<String, f64>);

// === impl Bench ===

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, state, _) = StateFile::open(&directory.path().join("state"));
        let state = StateActor::start(store, state, None, None, Probes::inline()).expect("started");
        let build = Build { version: "1".to_owned(), kernel: "6".to_owned() };
        let scrape = Scrape { previous: None, process: Process::read(), pushes: None };
        let exporter = Exporter::new(build);
        Self { config: Config::default(), state, exporter, scrape, _directory: directory }
    }

    fn agent(&self, fake: Fake) -> Agent<'_> {
        let core = self.core(&fake, Box::new(fake.clone()));
        Agent { bench: self, core, fake, rows: BTreeMap::new(), read: BTreeMap::new() }
    }

    fn core(&self, fake: &Fake, host: Box<dyn Host>) -> Core<Fake> {
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
            keeper: Keeper::new(Meter::default()),
            feed: EventFeed::default(),
        };
        let epoch_seconds = 1_700_000_000.0 + now_us as f64 / 1e6;
        Core::new(parts, &Survey::default(), Now { us: now_us, epoch_seconds })
    }
}

// === impl Agent ===

impl Agent<'_> {
    fn world(&self) -> MutexGuard<'_, World> {
        self.fake.world()
    }

    /// Some seconds later the tables are read.
    fn drain(&mut self, seconds: u64) -> Arc<Snapshot> {
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
    fn scrape(&mut self, seconds: u64) -> Metrics {
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
    fn check_law(&self, class: &str, seen: u64, arrived: u64) {
        let waits = class == CLASS_NAMES[CONNECTION] && self.world().owes_answers();
        let is_right = seen == arrived || (waits && arrived < seen);
        assert!(is_right, "{class}: {seen} seen, {arrived} exported or lost");
    }

    /// Nothing else happens, and all answers arrive.
    fn finish(&mut self) -> Metrics {
        for _ in 0..2 {
            self.world().answer();
            self.drain(4);
            self.read.clear();
        }
        self.world().answer();
        self.scrape(4)
    }

    /// Totals equal the truth.
    fn check_totals(&self, metrics: &Metrics) {
        assert_eq!(metrics.truth(), self.world().truth);
    }

    /// The list of events has every failure that counters have, with the side that is shown.
    fn check_events(&self, metrics: &Metrics) {
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

// === impl Metrics ===

impl Metrics {
    /// Reads the text format; buckets of histograms are left out.
    fn read(text: &str) -> Self {
        let mut counters = BTreeMap::new();
        let mut is_counter = false;
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').expect("a type");
                // How the agent works is not the world's.
                let is_own =
                    name.starts_with("process_") || name.contains("duration_seconds_total");
                is_counter = kind != "gauge" && !is_own;
            }
            if !is_counter || line.starts_with('#') || line.contains("_bucket{") {
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            counters.insert(series.to_owned(), value.parse().expect("a number"));
        }
        Self(counters)
    }

    /// Series that never go back.
    fn counters(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(series, value)| (series.as_str(), *value))
    }

    /// Every series of a metric with its value.
    fn series<'a>(&'a self, metric: &str) -> impl Iterator<Item = (&'a str, f64)> {
        let first = metric.to_owned();
        let range = self.0.range(first.clone()..);
        let of = range.take_while(move |(series, _)| series.starts_with(&first));
        let is_whole = metric.len();
        of.filter(move |(series, _)| {
            series.as_bytes().get(is_whole).is_none_or(|next| *next == b'{')
        })
        .map(|(series, value)| (series.as_str(), *value))
    }

    fn truth(&self) -> Truth {
        Truth {
            connects: self.by("portolan_tcp_connects_total", "client"),
            requests: self.by("portolan_request_duration_seconds_count", "client"),
            resets: self.by("portolan_tcp_resets_total", "client"),
            drops: self.by("portolan_listen_overflows_total", "service"),
            conflicts: self.by("portolan_port_conflicts_total", "claimant"),
        }
    }

    /// Sums of a metric by a label, without zeros.
    fn by(&self, metric: &str, label: &str) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (series, value) in self.series(metric).filter(|(_, value)| *value > 0.0) {
            *sums.entry(value_of(series, label)).or_default() += value as u64;
        }
        sums
    }

    /// Servers, by name.
    fn servers(&self) -> BTreeMap<String, u64> {
        self.by("portolan_tcp_connects_total", "server")
    }
}

fn value_of(series: &str, label: &str) -> String {
    let (_, rest) = series.split_once(&format!("{label}=\"")).expect("the label");
    rest.split('"').next().expect("a value").to_owned()
}

/// SplitMix64 (Steele, Lea and Flood, 2014): histories that a seed reproduces.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// One event.
fn happen(world: &mut World, random: &mut Random) {
    let (program, other) = (random.below(6) as u32, random.below(6) as u32);
    let nth = random.below(64) as usize;
    match random.below(18) {
        0..=4 => world.connect(program, other, true),
        5 => world.connect(program, other, false),
        6 => world.connect_unsent(program, other),
        7 | 8 => world.request(nth, 1 + random.below(1_000_000)),
        9 => world.reset(nth),
        10 | 11 => world.close(nth),
        12 => world.listen(program),
        13 => world.drop_at_listener(program, random.below(2) == 0),
        14 => world.resolve(program, other),
        15 | 16 => world.bind(program, other),
        _ => match random.below(3) {
            0 => world.answer(),
            1 => world.give_up(),
            _ => world.answers_at_once = !world.answers_at_once,
        },
    }
}

fn history(bench: &Bench, seed: u64) {
    let mut random = Random(seed);
    let world = World::new(1 + random.below(8) as u32, 1 + random.below(24) as u32);
    let mut agent = bench.agent(Fake::new(world));
    let mut is_aged = false;
    for _ in 0..=random.below(6) {
        for _ in 0..random.below(12) {
            happen(&mut agent.world(), &mut random);
        }
        let seconds = match random.below(12) {
            0 => 4_000,
            1 => 400,
            _ => random.below(5),
        };
        if seconds >= 400 {
            // Rows end, and with them their series; a question does not stay open for so long.
            is_aged = true;
            agent.world().answer();
        }
        // Reading text takes longer than all the rest.
        if random.below(8) == 0 {
            agent.scrape(seconds);
        } else {
            agent.drain(seconds);
            agent.read.clear();
        }
        if random.below(10) == 0 {
            let adopted = agent.fake.adopted();
            agent = bench.agent(adopted);
            // Answers about drops are unknown to the next agent.
            is_aged = true;
        }
    }
    let metrics = agent.finish();
    if !is_aged {
        agent.check_totals(&metrics);
        agent.check_events(&metrics);
    }
}

#[test]
fn ten_thousand_random_histories_are_counted_exactly() {
    let bench = Bench::new();
    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    thread::scope(|scope| {
        for first in 0..threads {
            let bench = &bench;
            scope.spawn(move || {
                for seed in (first..HISTORIES).step_by(threads as usize) {
                    let result = catch_unwind(AssertUnwindSafe(|| history(bench, seed)));
                    assert!(result.is_ok(), "history {seed} is not counted exactly");
                }
            });
        }
    });
}

#[test]
fn a_late_name_takes_its_totals_along() {
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(8, 8)));
    agent.world().connect(0, 1, true);
    agent.world().connect(0, 1, true);
    agent.scrape(1);
    // No service is known there, and none appeared.
    let servers = agent.finish().servers();
    assert_eq!(servers, BTreeMap::from([("10.0.0.2".to_owned(), 2)]));
    agent.world().resolve(0, 1);
    agent.world().connect(0, 1, true);
    let servers = agent.scrape(1).servers();
    assert_eq!(servers, BTreeMap::from([("host-1.example".to_owned(), 3)]));
    // A process of this host listens there: a more reliable name.
    agent.world().listen(1);
    agent.scrape(1);
    let metrics = agent.finish();
    assert_eq!(metrics.servers(), BTreeMap::from([(name_of(1), 3)]));
    agent.check_totals(&metrics);
}

#[test]
fn full_tables_keep_totals_exact() {
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(2, 3)));
    for program in 0..5 {
        for to in 0..4 {
            agent.world().connect(program, to, true);
            agent.world().request(to as usize, 1000);
        }
    }
    let metrics = agent.finish();
    agent.check_totals(&metrics);
    let clients = metrics.by("portolan_tcp_connects_total", "client");
    assert_eq!(clients, BTreeMap::from([(name_of(0), 3), ("other".to_owned(), 17)]));
    let lost = metrics.by("portolan_events_lost_total", "class");
    // Three programs of five find no owner's row; each of their connects retries.
    assert_eq!(lost, BTreeMap::from([("edge".to_owned(), 17), ("owner".to_owned(), 12)]));
}

#[test]
fn a_new_edge_has_a_row_within_ten_seconds_after_a_scan_filled_the_table_and_no_count_is_lost() {
    const ROWS: u16 = 1200;
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(8, ROWS.into())));
    agent.world().scan(0, ROWS);
    let mut has_row = None;
    // For as long as a scraper may need to come by twice.
    for second in 0..20 {
        agent.world().connect(1, second, false);
        if has_row.is_none() && agent.world().truth.connects.contains_key(&name_of(1)) {
            has_row = Some(second);
        }
        let metrics = agent.scrape(1);
        // Names are there after some seconds.
        if second > 4 {
            agent.check_totals(&metrics);
        }
    }
    assert!(has_row.is_some_and(|second| (1..=10).contains(&second)), "{has_row:?}");
}

#[test]
fn a_new_owner_has_a_row_soon_after_a_flood_of_owners() {
    const ROWS: u32 = 1100;
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(ROWS, 4 * ROWS)));
    for program in 1..=ROWS {
        agent.world().connect(program, 0, false);
    }
    let has_row = (0..20).find(|_| {
        agent.world().connect(0, 1, false);
        agent.scrape(1);
        agent.world().truth.connects.contains_key(&name_of(0))
    });
    assert!(has_row.is_some_and(|second| second > 0), "{has_row:?}");
}

#[test]
fn an_agent_that_adopts_the_tables_continues_their_counts() {
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(8, 8)));
    agent.world().connect(0, 1, true);
    agent.world().connect_unsent(0, 2);
    agent.scrape(1);
    agent.world().connect(0, 1, false);
    let mut next = bench.agent(agent.fake.adopted());
    drop(agent);
    let metrics = next.finish();
    next.check_totals(&metrics);
    next.world().connect(3, 1, true);
    let metrics = next.finish();
    next.check_totals(&metrics);
}

#[test]
fn records_that_found_no_room_are_counted_as_lost() {
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(8, 8)));
    for _ in 0..10 {
        agent.world().connect(0, 1, false);
    }
    let metrics = agent.finish();
    let of = |metric| metrics.by(metric, "class").get("event").copied();
    assert_eq!(of("portolan_events_exported_total"), Some(4));
    assert_eq!(of("portolan_events_lost_total"), Some(6));
    agent.check_totals(&metrics);
}

#[test]
fn late_answers_of_the_host_are_counted_late_and_exactly() {
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(8, 8)));
    agent.world().listen(1);
    agent.scrape(1);
    agent.world().answers_at_once = false;
    for is_request in [true, false, true] {
        agent.world().drop_at_listener(1, is_request);
    }
    agent.world().connect_unsent(0, 2);
    let metrics = agent.scrape(1);
    assert_eq!(metrics.truth(), Truth::default(), "nothing is known yet");
    // While the questions are under way more happens.
    agent.world().drop_at_listener(1, true);
    agent.world().answer();
    agent.scrape(1);
    let metrics = agent.finish();
    agent.check_totals(&metrics);
    agent.check_events(&metrics);
    assert_eq!(metrics.by("portolan_listen_overflows_total", "service"), [(name_of(1), 3)].into());
    let results = metrics.by("portolan_tcp_connects_total", "result");
    assert_eq!(results, BTreeMap::from([("unreachable".to_owned(), 1)]));
}

#[test]
fn what_the_host_never_answers_counts_all_the_same() {
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(8, 8)));
    agent.world().answers_at_once = false;
    agent.world().connect_unsent(0, 2);
    agent.scrape(1);
    agent.world().give_up();
    agent.world().answers_at_once = true;
    let metrics = agent.finish();
    agent.check_totals(&metrics);
    let results = metrics.by("portolan_tcp_connects_total", "result");
    assert_eq!(results, BTreeMap::from([("other".to_owned(), 1)]));
}

#[test]
fn failed_binds_count_exactly_with_both_names_and_without() {
    let bench = Bench::new();
    // Two rows for failed binds.
    let mut agent = bench.agent(Fake::new(World::new(8, 8)));
    agent.world().bind(0, 0);
    agent.world().listen(0);
    agent.scrape(1);
    for claimant in [1, 1, 2, 3, 3, 3] {
        agent.world().bind(claimant, 0);
    }
    let metrics = agent.finish();
    agent.check_totals(&metrics);
    agent.check_events(&metrics);
    let by = |label| metrics.by("portolan_port_conflicts_total", label);
    let claimants = [(name_of(1), 2), (name_of(2), 1), ("other".to_owned(), 3)];
    assert_eq!(by("claimant"), BTreeMap::from(claimants));
    assert_eq!(by("holder"), BTreeMap::from([(name_of(0), 3), ("other".to_owned(), 3)]));
}

#[test]
fn a_bind_failure_whose_holder_is_not_found_counts_all_the_same() {
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(8, 8)));
    agent.world().listen(0);
    agent.scrape(1);
    agent.world().answers_at_once = false;
    agent.world().bind(1, 0);
    let metrics = agent.scrape(1);
    assert_eq!(metrics.truth(), Truth::default(), "nobody has looked yet");
    agent.world().give_up();
    let metrics = agent.finish();
    agent.check_totals(&metrics);
}

/// A host on which a lookup in a namespace hangs.
struct Hanging {
    fake: Fake,
    probes: Probes,
    /// Opening it waits for a writer.
    fifo: PathBuf,
}

impl Host for Hanging {
    fn refusal(&self, _netns: u32, _tgid: u32, _local: u16, _remote: SocketAddr) -> Pending<u8> {
        let fifo = self.fifo.clone();
        self.probes.ask(Kind::ConnectErrno, move || File::open(fifo).map(|_| 0))
    }

    fn addresses(&self, known: &[Held], mounts: Option<u64>) -> Pending<Option<Survey>> {
        self.fake.addresses(known, mounts)
    }

    fn listen_drops(&self, netns: u32, tgid: u32) -> Pending<Option<u64>> {
        self.fake.listen_drops(netns, tgid)
    }

    fn sockets(&self, netns: u32, processes: Vec<u32>) -> Pending<Inspection> {
        self.fake.sockets(netns, processes)
    }

    fn holder(&self, bound: Bound, netns: u32) -> Pending<HeldBy> {
        self.fake.holder(bound, netns)
    }

    fn holders(&self, bound: Vec<Socket>) -> Pending<Holders> {
        self.fake.holders(bound)
    }

    fn proxy_arguments(&self, tgid: u32) -> Pending<Vec<u8>> {
        self.fake.proxy_arguments(tgid)
    }

    fn probes(&self) -> ProbesView {
        Host::probes(&self.probes)
    }
}

#[tokio::test]
async fn a_look_that_hangs_delays_neither_scrapes_nor_the_end() {
    const SOON: Duration = Duration::from_secs(1);
    let directory = tempfile::tempdir().expect("a directory");
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    let probes = Probes::start().expect("threads");
    let fake = Fake::new(World::new(8, 8));
    fake.world().connect_unsent(0, 2);
    let host = Hanging { fake: fake.clone(), probes: probes.clone(), fifo: fifo.clone() };
    let core = Bench::new().core(&fake, Box::new(host));
    let (source, requests) = telemetry::source::channel();
    let (stop, stopping) = watch::channel(());
    let hour = Duration::from_hours(1);
    let running = thread::spawn(move || core.run(requests, stopping, hour, &probes, None));
    // It counts once no lookup is pending any more.
    let mut is_given_up = false;
    while !is_given_up || source.stuck() == 0 {
        let began = Instant::now();
        let snapshot = source.fresh().await.expect("a snapshot");
        assert!(began.elapsed() < SOON, "a scrape took {:?}", began.elapsed());
        is_given_up = snapshot.ledger.exported[CONNECTION] == 1;
    }
    assert_eq!(source.stuck(), 1);
    let began = Instant::now();
    drop(stop);
    running.join().expect("no panic").expect("no error");
    assert!(began.elapsed() < SOON, "the end took {:?}", began.elapsed());
    // Let the thread go.
    drop(File::options().read(true).write(true).open(fifo));
}
