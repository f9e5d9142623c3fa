//! Windows through a day of collections, late names, other services at the same address.

use agent_common::drained::{Edge, Table};
use agent_common::edge::{EdgeKey, ROLE_SERVER};
use agent_common::wire::Wire as _;
use proptest::prelude::*;

use super::steps::{HISTORY_BYTES, MAX_BYTES};
use super::*;
use crate::reclaim::Room;
use crate::service::{Service, Source};
use crate::tables::Tables;

const SECOND: u64 = 1_000_000;

/// Tables and the history behind them.
struct World {
    tables: Tables,
    recent: Recent,
    now_us: u64,
    edges: Vec<EdgeView>,
}

fn edge(slot: u32, address: u8, ok: u64) -> Edge {
    let mut counters = EdgeCounters::ZERO;
    counters.connects[0] = ok;
    counters.opened = ok;
    let remote = address::from_ip([10, 0, 0, address].into());
    Edge {
        table: Table::Edges,
        slot,
        key: EdgeKey { port: 80, role: ROLE_CLIENT, remote, ..EdgeKey::zeroed() },
        local: UNSPECIFIED,
        remote,
        born_us: 2 * SECOND,
        counters: Arc::new(counters),
    }
}

fn labels(client: &str, source: Source) -> EdgeLabels {
    let db = Service::new("db", Source::Process);
    EdgeLabels::new(Service::new(client, source), db, 80, Role::Client)
}

// === impl World ===

impl World {
    fn new() -> Self {
        let (tables, recent) = (Tables::default(), Recent::new(SECOND));
        Self { tables, recent, now_us: SECOND, edges: Vec::new() }
    }

    fn collect(&mut self, seconds: u64, edges: &[Edge], client: &str, source: Source) {
        self.now_us += seconds * SECOND;
        let (now, room) = (self.now_us / SECOND, Room::of(100));
        let updated = self.tables.update(now, edges, room, |_| labels(client, source));
        self.recent.update(self.now_us, &updated.deltas.closed, &updated.deltas.edges);
        self.edges = updated.edges;
    }

    /// Connects by client within the window, and the seconds that it covers.
    fn window(&self, seconds: u64) -> (Vec<(String, u64)>, f64) {
        let (rows, covered) = self.recent.view().rows(&self.edges, seconds);
        let ok = |row: &WindowRow| (row.labels.client.name.to_string(), row.counters.connects[0]);
        (rows.iter().map(ok).filter(|(_, ok)| *ok > 0).collect(), covered)
    }
}

#[test]
fn a_window_has_what_was_counted_in_it_and_says_how_long_it_is() {
    let mut world = World::new();
    for second in 1..=1000 {
        world.collect(1, &[edge(4, 1, second * 7)], "web", Source::Process);
        let steps = world.recent.view.steps.len();
        assert!(steps <= 60 + 100 + 10, "{steps} steps after {second} s");
        for wanted in [1, 10, 60, 300] {
            let (rows, covered) = world.window(wanted);
            // One connect in seven a second: what is counted fits the time that is named.
            assert_eq!(rows, [("web".to_owned(), covered as u64 * 7)], "{wanted} s at {second} s");
            let most = wanted as f64 + if wanted > 60 { 60.0 } else { 10.0 };
            assert!(covered >= second.min(wanted) as f64 && covered <= most, "{covered}");
        }
    }
    // A quiet minute: nothing in it, and the row is still there.
    for _ in 0..75 {
        world.collect(1, &[edge(4, 1, 7000)], "web", Source::Process);
    }
    assert_eq!(world.window(60).0, []);
    let (rows, _) = world.recent.view().rows(&world.edges, 60);
    assert_eq!(rows[0].active, 7000);
}

#[test]
fn a_better_name_takes_the_window_along_and_another_service_does_not() {
    let mut world = World::new();
    world.collect(1, &[edge(4, 1, 3)], "10.0.0.9", Source::Address);
    world.collect(1, &[edge(4, 1, 5)], "web", Source::Process);
    assert_eq!(world.window(60).0, [("web".to_owned(), 5)]);
    // The slot goes to another edge, of another service.
    let next = Edge { born_us: 9 * SECOND, ..edge(4, 1, 2) };
    world.collect(1, &[next], "cron", Source::Process);
    let rows = world.window(60).0;
    assert!(rows.contains(&("cron".to_owned(), 2)), "{rows:?}");
    assert_eq!(rows.iter().map(|(_, ok)| ok).sum::<u64>(), 7, "the former has its own: {rows:?}");
}

#[test]
fn each_address_of_a_service_has_its_own_counts() {
    let mut world = World::new();
    let edges = |a, b| [edge(4, 1, a), edge(5, 2, b)];
    world.collect(1, &edges(3, 1), "web", Source::Process);
    world.collect(1, &edges(3, 11), "web", Source::Process);
    let (rows, covered) = world.recent.view().rows_by_address(60);
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.address.expect("one").to_string(), row.counters.opened, row.active))
        .collect();
    let expected = [("10.0.0.1:80", 3, 3), ("10.0.0.2:80", 11, 11)];
    assert_eq!(found, expected.map(|(address, n, active)| (address.to_owned(), n, active)));
    assert!((covered - 2.0).abs() < 1e-9);
    assert_eq!(world.window(60).0, [("web".to_owned(), 14)], "the row has both");
}

#[test]
fn the_other_side_of_a_connection_within_this_host_is_known_as_such() {
    let mut world = World::new();
    let (near, far) =
        (address::from_ip([10, 0, 0, 5].into()), address::from_ip([10, 0, 0, 6].into()));
    let client = Edge { local: near, ..edge(4, 6, 1) };
    let server = Edge {
        key: EdgeKey { role: ROLE_SERVER, remote: near, ..client.key },
        slot: 5,
        local: far,
        remote: near,
        ..client.clone()
    };
    world.now_us += SECOND;
    let name = |edge: &Edge| {
        let role = if edge.key.role == ROLE_SERVER { Role::Server } else { Role::Client };
        EdgeLabels { role, ..labels("web", Source::Process) }
    };
    let updated = world.tables.update(2, &[client, server], Room::of(100), name);
    world.recent.update(world.now_us, &updated.deltas.closed, &updated.deltas.edges);
    let rows = world.recent.view().since_start(&updated.edges);
    let sides: Vec<_> = rows.iter().map(|row| (row.labels.role, row.is_other_side)).collect();
    assert_eq!(sides, [(Role::Client, false), (Role::Server, true)]);
}

#[test]
fn counts_from_before_the_agent_are_in_no_window() {
    let mut world = World::new();
    let earlier = Edge { born_us: 1, ..edge(4, 1, 100) };
    world.collect(1, &[earlier], "web", Source::Process);
    assert_eq!(world.window(60).0, []);
    world.collect(1, &[Edge { born_us: 1, ..edge(4, 1, 104) }], "web", Source::Process);
    assert_eq!(world.window(60).0, [("web".to_owned(), 4)]);
}

#[test]
fn without_room_the_oldest_steps_go_and_the_window_says_so() {
    let mut view = RecentView::default();
    let busy = Packed::new(&EdgeCounters { sent_bytes: 1, ..EdgeCounters::ZERO });
    let each = PER_EDGE + busy.len();
    let subjects = (MAX_BYTES / each / 4) as u32;
    for second in 1..=60 {
        let grown = (0..subjects).map(|subject| (subject, busy.clone())).collect();
        view.push(0, second * SECOND, grown);
        assert!(view.bytes() <= MAX_BYTES, "{}", view.bytes());
    }
    let (sums, covered) = view.last(300);
    assert!((2.0..60.0).contains(&covered), "{covered}");
    assert_eq!(sums[&0].sent_bytes, covered as u64);
}

#[test]
fn names_that_no_window_has_are_forgotten() {
    let mut world = World::new();
    for slot in 1..2000 {
        let born_us = (slot + 2) * SECOND;
        world.collect(
            10,
            &[Edge { born_us, ..edge(4, 1, 1) }],
            &format!("job-{slot}"),
            Source::Process,
        );
    }
    assert!(world.recent.view.subjects.len() < 600, "{}", world.recent.view.subjects.len());
}

/// What `web` connected in each step of the last `window` seconds: how long ago, how long, how often.
fn history(world: &World, window: u64) -> Vec<(f64, f64, u64)> {
    let view = world.recent.view();
    let name = |labels: &Arc<EdgeLabels>| Some(labels.client.name.to_string());
    let (mut series, _) = view.history(window, name);
    let points = series.remove("web").unwrap_or_default();
    let shown =
        |point: &HistoryPoint| (point.since_seconds_ago, point.seconds, point.counters.connects[0]);
    points.iter().map(shown).collect()
}

#[test]
fn history_has_a_second_for_a_minute_and_ten_seconds_for_an_hour() {
    let mut world = World::new();
    for second in 1..=4000 {
        world.collect(1, &[edge(4, 1, second)], "web", Source::Process);
    }
    let minute = history(&world, 60);
    assert_eq!(minute.len(), 60);
    for (at, (ago, seconds, ok)) in minute.iter().enumerate() {
        assert_eq!((*ago, *seconds, *ok), (60.0 - at as f64, 1.0, 1));
    }
    let hour = history(&world, HISTORY_SECONDS);
    let covered: f64 = hour.iter().map(|(_, seconds, _)| seconds).sum();
    assert!((3600.0..3611.0).contains(&covered), "{covered}");
    assert_eq!(hour.iter().map(|(_, _, ok)| ok).sum::<u64>(), covered as u64);
    assert!(hour.iter().all(|(_, seconds, ok)| *ok == *seconds as u64 && *seconds <= 10.0));
    assert!((360 - 6 + 60..430).contains(&hour.len()), "{}", hour.len());
    // Steps without anything have no point, and the longest window is still whole.
    for _ in 0..30 {
        world.collect(1, &[edge(4, 1, 4000)], "web", Source::Process);
    }
    assert_eq!(history(&world, 60).len(), 30);
    assert_eq!(world.recent.view().dropped(), 0);
}

#[test]
fn history_is_of_rows_that_are_shown_and_goes_before_windows_when_memory_is_short() {
    let mut world = World::new();
    world.collect(1, &[edge(4, 1, 1)], "web", Source::Process);
    let mut view = world.recent.view();
    let busy = Packed::new(&EdgeCounters { sent_bytes: 1, ..EdgeCounters::ZERO });
    // Steps of a second and of ten seconds for five minutes fit, those of an hour do not.
    let subjects = (HISTORY_BYTES / (PER_EDGE + busy.len()) / 90) as u32;
    for second in 2..=700 {
        let grown = (0..subjects).map(|subject| (subject, busy.clone())).collect();
        view.push(0, second * SECOND, grown);
    }
    assert!(view.bytes() <= HISTORY_BYTES && view.dropped() > 0);
    let (steps, covered) = view.covering(LONGEST_SECONDS);
    assert!((300.0..311.0).contains(&covered), "{covered}");
    assert!(steps.count() >= 60 + 24, "steps of windows are not joined further");
    assert!(view.covering(HISTORY_SECONDS).1 < 450.0);
    let user = EdgeLabels { unverified_user: Some(1500), ..labels("web", Source::Process) };
    let subject = view.subjects.get(1).expect("the edge").clone();
    view.subjects.insert(1, Subject { labels: Arc::new(user), ..subject.clone() });
    assert!(view.history(60, |labels| Some(Arc::clone(labels))).0.is_empty());
    view.subjects.insert(1, Subject { counts: false, ..subject.clone() });
    assert!(view.history(60, |labels| Some(Arc::clone(labels))).0.is_empty());
    view.subjects.insert(1, subject);
    assert_eq!(view.history(60, |labels| Some(Arc::clone(labels))).0.len(), 1);
}

proptest! {
    /// Whenever collections come: what was counted within five minutes is in the longest window.
    #[test]
    fn nothing_is_lost_between_steps(
        steps in prop::collection::vec((1u64..20, 0u64..9), 1..14),
    ) {
        let (mut world, mut total) = (World::new(), 0);
        for (seconds, ok) in steps {
            total += ok;
            world.collect(seconds, &[edge(4, 1, total)], "web", Source::Process);
        }
        let sum: u64 = world.window(LONGEST_SECONDS).0.iter().map(|(_, ok)| ok).sum();
        prop_assert_eq!(sum, total);
    }
}
