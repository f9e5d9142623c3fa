//! Folding, the ring, cursors, and what counts as a change.

use agent_common::address;
use agent_common::counters::EdgeCounters;
use agent_common::drained::{Edge, Table};
use agent_common::edge::{CONNECT_OK, CONNECT_REFUSED, CONNECT_TIMEOUT, EdgeKey, ROLE_CLIENT};
use agent_common::wire::Wire as _;

use super::crowds::MOST_OF_TENANT;
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
            EdgeLabels {
                unverified_user: user,
                ..EdgeLabels::new(client, server, 80, Role::Client)
            }
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

#[test]
fn a_condition_is_an_event_when_it_begins() {
    let mut events = Events::new(0, STARTED);
    let full = |subject: &str| Condition {
        cause: "table_full",
        text: format!("the table {subject} is full"),
        subject: subject.to_owned(),
    };
    let mut collect = |now: u64, conditions: Vec<Condition>| {
        events.begin(STARTED + now as f64);
        events.add_conditions(conditions);
        events.finish().len()
    };
    assert_eq!(collect(1, vec![full("edges")]), 1);
    assert_eq!(collect(2, vec![full("edges")]), 0);
    assert_eq!(collect(100, vec![full("owners"), full("edges")]), 1);
    assert_eq!(collect(200, vec![]), 0);
    assert_eq!(collect(300, vec![full("edges")]), 1);
}

fn listener(cookie: u64, name: &str, command_line: u64) -> Listener {
    let service = Service::new(name, Source::Process);
    let tenant = Tenant::OTHERS;
    Listener { socket: (cookie, 1, 80), service, is_stable: true, command_line, tenant }
}

#[test]
fn services_start_stop_and_come_back() {
    let mut changes = Changes::default();
    let mut now_us = 0;
    let mut look = |listeners: &[Listener]| -> Vec<(String, &'static str)> {
        now_us += SECOND;
        let changes = changes.of_services(now_us, listeners);
        changes.into_iter().map(|it| (it.server.unwrap().name.to_string(), it.cause)).collect()
    };
    let one = |name: &str, cause| vec![(name.to_owned(), cause)];
    let [db, web] = [listener(1, "db", 7), listener(2, "web", 8)];
    // What was there before the agent did not start.
    assert_eq!(look(std::slice::from_ref(&db)), []);
    // A name that is not final yet is waited for.
    let unnamed = Listener { is_stable: false, ..listener(2, "0123456789ab", 8) };
    assert_eq!(look(&[db.clone(), unnamed]), []);
    assert_eq!(look(&[db.clone(), web.clone()]), one("web", "service_started"));
    // A second socket is not a start; a better name does not make another service.
    assert_eq!(look(&[db.clone(), web, listener(3, "web", 8)]), []);
    assert_eq!(look(&[db.clone(), listener(2, "prod-web", 8), listener(3, "prod-web", 8)]), []);
    assert_eq!(look(&[db, listener(3, "prod-web", 8)]), []);
    let web = listener(3, "prod-web", 8);
    assert_eq!(look(std::slice::from_ref(&web)), one("db", "service_stopped"));
    assert_eq!(look(&[web.clone(), listener(4, "db", 7)]), one("db", "service_started"));
    assert_eq!(look(&[web.clone(), listener(5, "db", 7)]), one("db", "service_restarted"));
    assert_eq!(look(&[web.clone(), listener(6, "db", 9)]), one("db", "service_changed"));
    assert_eq!(look(std::slice::from_ref(&web)), one("db", "service_stopped"));
    assert_eq!(look(&[web.clone(), listener(7, "db", 10)]), one("db", "service_changed"));
    // Of an unknown command line nothing can be said.
    assert_eq!(look(&[web, listener(8, "db", 0)]), one("db", "service_restarted"));
}

#[test]
fn edges_and_backends_come_and_go() {
    let mut world = World::new();
    let ok = [(CONNECT_OK, 1)];
    let [first, second, third] = [edge(4, 1, &ok), edge(5, 1, &ok), edge(6, 2, &ok)];
    // What is there at first was there before.
    assert_eq!(world.collect(1, std::slice::from_ref(&first)), []);
    let both = [first.clone(), second.clone()];
    assert_eq!(world.collect(1, &both), [("edge_first_seen", 1)]);
    let shown = world.collect(1, &[first.clone(), second.clone(), third]);
    assert_eq!(shown, [("backend_added", 1), ("edge_first_seen", 1)]);
    assert_eq!(world.collect(1, &both), [("backend_removed", 1), ("edge_last_seen", 1)]);
    assert_eq!(world.collect(1, &[first]), [("edge_last_seen", 1)]);
    assert_eq!(world.collect(1, &[]), [("edge_last_seen", 1)]);
}

#[test]
fn that_an_edge_is_new_explains_no_failure() {
    let causes =
        |view: &EventsView| view.changes().iter().map(|event| event.what.cause).collect::<Vec<_>>();
    assert_eq!(causes(&EventsView::example()), ["service_restarted"]);
    let mut world = World::new();
    world.collect(1, &[]);
    world.collect(1, &[edge(4, 1, &[(CONNECT_OK, 1)])]);
    assert!(!world.events.view().ring.is_empty());
    world.collect(1, &[edge(4, 1, &[(CONNECT_OK, 1)]), edge(5, 2, &[(CONNECT_OK, 1)])]);
    assert_eq!(causes(&world.events.view()), ["backend_added"]);
}

#[test]
fn names_of_listeners_are_asked_for_only_if_one_comes_or_goes_or_has_no_final_name() {
    let mut changes = Changes::default();
    let [db, web] = [listener(1, "db", 7), listener(2, "web", 8)];
    let unnamed = Listener { is_stable: false, ..web.clone() };
    let ids = |all: &[&Listener]| all.iter().map(|one| one.socket).collect::<Vec<_>>().into_iter();
    assert!(changes.needs_names(SECOND, ids(&[])), "the first time");
    changes.of_services(SECOND, &[db.clone(), unnamed]);
    assert!(changes.needs_names(2 * SECOND, ids(&[&db, &web])), "one has no name");
    changes.of_services(2 * SECOND, &[db.clone(), web.clone()]);
    assert!(!changes.needs_names(3 * SECOND, ids(&[&web, &db])));
    assert!(changes.needs_names(3 * SECOND, ids(&[&web])), "one is gone");
    let other = listener(3, "db", 7);
    assert!(changes.needs_names(3 * SECOND, ids(&[&web, &other])), "one is another");
    assert!(changes.needs_names(12 * SECOND, ids(&[&web, &db])), "a better name may be known");
}

#[test]
fn a_scan_is_a_hundred_events_of_its_client_and_one_for_the_rest() {
    let mut events = Events::new(0, STARTED);
    let scan = |events: &mut Events, seconds: f64, client: &str, servers: u64| {
        events.begin(STARTED + seconds);
        for n in 0..servers {
            let client = Some(Service::new(client, Source::Process));
            let what = What { client, ..what("connect_refused", &format!("s{n}")) };
            events.add_changes(vec![what]);
        }
        let shown = events.finish();
        let rest = shown.iter().find(|event| event.what.server.is_none());
        (shown.len(), rest.map(|event| event.count))
    };
    assert_eq!(scan(&mut events, 1.0, "scanner", 5000), (101, Some(4900)));
    assert_eq!(scan(&mut events, 2.0, "web", 3), (3, None), "others have room");
    // What goes on is shown again, and has not become more events.
    assert_eq!(scan(&mut events, 12.0, "scanner", 5000), (101, Some(9800)));
    // Many clients: without a client from the two-thousandth on.
    for client in 0..30 {
        scan(&mut events, 13.0, &format!("c{client}"), 200);
    }
    let view = events.view();
    let rest = view.ring.after(0, |event| event.what.client.is_none());
    assert_eq!(rest.len(), 1);
    assert!(view.ring.len() <= 2000 + 40, "{}", view.ring.len());
    assert_eq!(view.totals[Kind::Connect as usize], 10_003 + 6000);
    let sum: u64 = view.ring.after(0, |_| true).iter().map(|event| event.count).sum();
    assert_eq!(sum, 10_003 + 6000);
    // After a minute there is room again.
    events.begin(STARTED + 100.0);
    events.finish();
    assert!(events.crowds.is_empty() && events.open.is_empty());
}

#[test]
fn a_tenant_whose_programs_have_many_names_leaves_others_their_events() {
    let mut events = Events::new(0, STARTED);
    events.begin(STARTED + 1.0);
    let fail = |events: &mut Events, cgroup, client: &str, server: &str| {
        let client = Some(Service::new(client, Source::Process));
        let tenant = Some(Tenant { cgroup, origin: 1 });
        events.add_changes(vec![What { client, tenant, ..what("connect_refused", server) }]);
    };
    for client in 0..100 {
        for server in 0..50 {
            fail(&mut events, 1, &format!("c{client}"), &format!("s{server}"));
        }
    }
    fail(&mut events, 2, "shop", "db");
    let shown = events.finish();
    assert_eq!(shown.len() as u32, MOST_OF_TENANT + 2);
    let rest = shown.iter().find(|event| event.what.client.is_none()).expect("the others");
    assert_eq!(rest.count, 5000 - u64::from(MOST_OF_TENANT));
    let last = &shown.last().expect("an event").what;
    let name = |service: &Option<Service>| service.as_ref().map(|it| it.name.to_string());
    assert_eq!((name(&last.client), name(&last.server)), (Some("shop".into()), Some("db".into())));
    // After a minute there is room again.
    events.begin(STARTED + 100.0);
    events.finish();
    assert!(events.crowds.is_empty() && events.open.is_empty());
}

#[test]
fn what_displaces_an_event_is_one_of_its_tenant_that_has_more_of_them() {
    let mut events = Events::new(0, STARTED);
    let fail = |events: &mut Events, cgroup, server: &str| {
        let tenant = Some(Tenant { cgroup, origin: 1 });
        events.add_changes(vec![What { tenant, ..what("connect_refused", server) }]);
    };
    events.begin(STARTED);
    fail(&mut events, 2, "db");
    for n in 0..MOST + 500 {
        // Each hundred ends before the next.
        events.begin(STARTED + 100.0 + (n / 100) as f64 * 100.0);
        if n % 100 == 0 {
            events.finish();
        }
        fail(&mut events, 1, &format!("s{n}"));
    }
    let view = events.view();
    assert_eq!((view.ring.len(), view.overwritten), (MOST, 501));
    let servers = view.ring.after(0, |_| true);
    let name = |at: usize| servers[at].what.server.as_ref().map(|it| it.name.to_string());
    assert_eq!((name(0), name(1)), (Some("db".into()), Some("s501".into())));
}
