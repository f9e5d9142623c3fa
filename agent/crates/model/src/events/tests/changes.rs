//! What counts as a change: of services, edges and backends.

use super::*;

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

fn listener(cookie: u64, name: &str, command_line: u64) -> Listener {
    let service = Service::new(name, Source::Process);
    let tenant = Tenant::OTHERS;
    Listener { socket: (cookie, 1, 80), service, is_stable: true, command_line, tenant }
}
