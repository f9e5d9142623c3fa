//! Folding, the ring and cursors.

mod changes;
mod crowds;

use std::collections::BTreeSet;

use agent_common::address;
use agent_common::counters::EdgeCounters;
use agent_common::drained::{Edge, Table};
use agent_common::edge::{
    CONNECT_OK, CONNECT_REFUSED, CONNECT_TIMEOUT, EdgeKey, ROLE_CLIENT, ROLE_SERVER,
};
use agent_common::histogram::Histogram;
use agent_common::lookup;
use agent_common::on_demand::OnDemand;
use agent_common::wire::Wire as _;

use super::*;
use crate::reclaim::Room;
use crate::service::Source;
use crate::snapshot::EdgeLabels;
use crate::tables::Tables;

const STARTED: f64 = 1_700_000_000.0;
const SECOND: u64 = 1_000_000;

/// Tables and the events of what they show.
struct World {
    tables: Tables,
    events: Events,
    changes: Changes,
    now: u64,
    user: Option<u32>,
}

fn edge(slot: u32, address: u8, results: &[(u8, u64)]) -> Edge {
    let mut counters = EdgeCounters::ZERO;
    for (result, count) in results {
        counters.connects[usize::from(*result)] = *count;
        if *result == CONNECT_OK {
            counters.opened = *count;
        }
    }
    let remote = address::from_ip([10, 0, 0, address].into());
    Edge {
        table: Table::Edges,
        slot,
        key: EdgeKey { port: 80, role: ROLE_CLIENT, remote, ..EdgeKey::zeroed() },
        local: address::UNSPECIFIED,
        remote,
        born_us: 5 * SECOND,
        counters: Arc::new(counters),
    }
}

// === impl World ===

impl World {
    fn new() -> Self {
        let (events, changes) = (Events::new(SECOND, STARTED), Changes::default());
        Self { tables: Tables::default(), events, changes, now: 1, user: None }
    }

    /// Some seconds later the tables have these edges; the events that followers see.
    fn collect(&mut self, seconds: u64, edges: &[Edge]) -> Vec<(&'static str, u64)> {
        self.now += seconds;
        let user = self.user;
        let updated = self.tables.update(self.now, edges, Room::of(100), |edge| {
            let server = Service::new("db", Source::Container);
            let client = Service::new(&format!("web{}", edge.slot), Source::Container);
            let is_server = edge.key.role == ROLE_SERVER;
            let role = if is_server { Role::Server } else { Role::Client };
            EdgeLabels { unverified_user: user, ..EdgeLabels::new(client, server, 80, role) }
        });
        self.events.begin(STARTED + self.now as f64);
        let deltas = &updated.deltas;
        let nobody = |_| Tenant::OTHERS;
        let changes = self.changes.of_edges(&deltas.closed, &deltas.edges, nobody);
        self.events.add_changes(changes);
        self.events.add_edges(&deltas.edges, nobody);
        let shown = self.events.finish();
        shown.iter().map(|event| (event.what.cause, event.count)).collect()
    }
}

fn what(cause: &'static str, server: &str) -> What {
    What {
        cause,
        ..What::of_service(Kind::Connect, "", Service::new(server, Source::Process), "refused")
    }
}

#[test]
fn a_storm_is_one_event_that_is_shown_every_ten_seconds_with_its_count() {
    let mut world = World::new();
    world.collect(1, &[edge(4, 1, &[(CONNECT_OK, 1)])]);
    let shown: Vec<_> = (1..=25)
        .filter_map(|second| {
            let counts = [(CONNECT_OK, 1), (CONNECT_REFUSED, second * 100)];
            let shown = world.collect(1, &[edge(4, 1, &counts)]);
            (!shown.is_empty()).then_some((second, shown))
        })
        .collect();
    let once = |second, count| (second, vec![("connect_refused", count)]);
    assert_eq!(shown, [once(1, 100), once(11, 1100), once(21, 2100)]);
    let view = world.events.view();
    let events = view.ring.after(0, |_| true);
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].count, events[0].last_seconds - events[0].first_seconds), (2500, 24.0));
    assert_eq!(view.totals[Kind::Connect as usize], 2500);
    // What came after it was shown last is shown once it is over.
    let quiet = [edge(4, 1, &[(CONNECT_OK, 1), (CONNECT_REFUSED, 2500)])];
    assert_eq!(world.collect(10, &quiet), [("connect_refused", 2500)]);
    assert_eq!(world.collect(100, &quiet), []);
    // After a minute without it the same is another event.
    let again = [edge(4, 1, &[(CONNECT_OK, 1), (CONNECT_REFUSED, 2501)])];
    assert_eq!(world.collect(1, &again), [("connect_refused", 1)]);
    assert_eq!(world.events.view().ring.len(), 2);
}

#[test]
fn error_responses_are_events_of_the_server_and_lookups_without_an_answer_of_the_client() {
    let mut world = World::new();
    let (here, there) =
        (address::from_ip([10, 0, 0, 9].into()), address::from_ip([10, 0, 0, 1].into()));
    // Both sides are on this host; only the server's knows its responses.
    let both = |refused, errors, timeouts| {
        let mut client = edge(4, 1, &[(CONNECT_OK, 8), (CONNECT_REFUSED, refused)]);
        client.local = here;
        let counters = Arc::make_mut(&mut client.counters);
        let mut results = Histogram::EMPTY;
        results.buckets[lookup::TIMEOUT as usize] = timeouts;
        counters.lookup_results = OnDemand::after(None, Some(&results));
        let mut server = edge(5, 9, &[(CONNECT_OK, 8), (CONNECT_REFUSED, refused)]);
        server.key.role = ROLE_SERVER;
        server.local = there;
        let counters = Arc::make_mut(&mut server.counters);
        counters.responses[1] = errors * 10;
        counters.responses[4] = errors;
        [client, server]
    };
    for _ in 0..3 {
        assert_eq!(world.collect(1, &both(0, 0, 0)), []);
    }
    let shown = world.collect(1, &both(2, 3, 4));
    let expected = [("connect_refused", 2), ("dns_timeout", 4), ("response_http_5xx", 3)];
    assert_eq!(shown.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(expected));
    let totals = world.events.view().totals;
    let of = |kind: Kind| totals[kind as usize];
    assert_eq!((of(Kind::Connect), of(Kind::Dns), of(Kind::Response)), (2, 4, 3));
}

#[test]
fn a_storm_that_does_not_end_is_another_event_after_five_minutes() {
    let mut world = World::new();
    world.collect(1, &[edge(4, 1, &[(CONNECT_OK, 1)])]);
    for second in 1..=900 {
        world.collect(1, &[edge(4, 1, &[(CONNECT_OK, 1), (CONNECT_REFUSED, second)])]);
    }
    let view = world.events.view();
    let counts: Vec<_> = view.ring.after(0, |_| true).iter().map(|event| event.count).collect();
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (3, 900), "{counts:?}");
}

#[test]
fn causes_and_edges_are_events_of_their_own_in_the_words_of_why() {
    let mut world = World::new();
    let edges = |refused, timeout| {
        [
            edge(4, 1, &[(CONNECT_REFUSED, refused)]),
            edge(5, 2, &[(CONNECT_TIMEOUT, timeout), (CONNECT_REFUSED, refused)]),
        ]
    };
    world.collect(1, &edges(0, 0));
    world.collect(1, &edges(2, 3));
    let view = world.events.view();
    let shown: Vec<_> = view
        .ring
        .after(0, |event| !event.what.kind.is_change())
        .iter()
        .map(|event| {
            let client = event.what.client.as_ref().map(|client| client.name.to_string());
            (client.unwrap_or_default(), event.what.text.to_string(), event.count)
        })
        .collect();
    let expected =
        [("web4", "refused", 2), ("web5", "connect timed out", 3), ("web5", "refused", 2)];
    assert_eq!(shown, expected.map(|(client, text, n)| (client.to_owned(), text.to_owned(), n)));
}

#[test]
fn what_a_user_can_have_made_up_is_no_event() {
    let mut world = World::new();
    world.user = Some(1500);
    world.collect(1, &[edge(4, 1, &[(CONNECT_OK, 1)])]);
    assert_eq!(world.collect(1, &[edge(4, 1, &[(CONNECT_REFUSED, 9)]), edge(5, 2, &[])]), []);
    assert!(world.events.view().ring.is_empty());
}

#[test]
fn what_an_earlier_agent_left_has_no_time_and_is_no_event() {
    let mut world = World::new();
    let earlier = Edge { born_us: SECOND / 2, ..edge(4, 1, &[(CONNECT_REFUSED, 7)]) };
    assert_eq!(world.collect(1, std::slice::from_ref(&earlier)), []);
    let next = Edge { born_us: SECOND / 2, ..edge(4, 1, &[(CONNECT_REFUSED, 9)]) };
    assert_eq!(world.collect(1, &[next]), [("connect_refused", 2)]);
}

#[test]
fn a_full_list_overwrites_the_oldest_of_the_most_frequent_cause() {
    let mut events = Events::new(0, STARTED);
    events.begin(STARTED);
    events.add_changes(vec![what("service_started", "first")]);
    let many = MOST + 500;
    for n in 0..many {
        // Each ends before the next thousand.
        events.begin(STARTED + (n / 1000) as f64 * 100.0);
        if n % 1000 == 0 {
            events.finish();
        }
        events.add_changes(vec![what("connect_refused", &format!("s{n}"))]);
    }
    events.finish();
    let view = events.view();
    assert_eq!((view.ring.len(), view.overwritten), (MOST, 501));
    let all = view.ring.after(0, |_| true);
    assert_eq!(all[0].what.cause, "service_started");
    assert_eq!(&*all[1].what.server.as_ref().unwrap().name, "s501");
    // Nothing is folded into an event that is gone.
    events.add_changes(vec![what("connect_refused", "s0")]);
    let shown = events.finish();
    assert_eq!((shown.len(), shown[0].count), (1, 1));
    assert_eq!(events.view().totals[Kind::Connect as usize], many as u64 + 2);
}

#[test]
fn a_reader_that_goes_on_from_its_cursor_gets_every_event_and_learns_of_those_that_are_gone() {
    let mut events = Events::new(0, STARTED);
    let mut cursor = 0;
    let mut read = Vec::new();
    for n in 0..50u64 {
        events.begin(STARTED + n as f64);
        events.add_changes(vec![what("connect_refused", &format!("s{}", n % 7))]);
        events.finish();
        if n % 3 == 0 {
            let view = events.view();
            let next = view.ring.after(cursor, |_| true);
            assert!(next.windows(2).all(|two| two[0].cursor < two[1].cursor));
            read.extend(next.iter().map(|event| (event.id, event.count)));
            cursor = view.ring.latest();
            assert!(view.ring.after(cursor, |_| true).is_empty());
        }
    }
    events.begin(STARTED + 200.0);
    events.finish();
    let view = events.view();
    read.extend(view.ring.after(cursor, |_| true).iter().map(|event| (event.id, event.count)));
    let last: std::collections::BTreeMap<u64, u64> = read.into_iter().collect();
    assert_eq!((last.len(), last.values().sum::<u64>()), (7, 50));
    assert!(!view.ring.has_lost_after(0));
    for n in 0..MOST {
        events.begin(STARTED + 200.0 + n as f64);
        events.add_changes(vec![what("connect_refused", &format!("t{n}"))]);
        events.finish();
    }
    assert!(events.view().ring.has_lost_after(cursor));
    // A later start goes on with larger cursors.
    let next = Events::new(0, STARTED + 300_000.0);
    assert!(next.next > events.view().ring.latest());
}
