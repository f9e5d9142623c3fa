//! The whole flow (collection, names, tables, snapshot, metrics) without a kernel: scripted and
//! random histories in a simulated world that knows the truth, compared with the text that a
//! scraper reads.

mod agent;
mod fake;
mod hanging;
mod metrics;
mod namespaces;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use self::agent::Bench;
use self::fake::{Fake, Truth, World, name_of};

const HISTORIES: u64 = 10_000;

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
