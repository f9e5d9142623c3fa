//! How much of the list of events one client or one tenant may take.

use super::super::crowds::MOST_OF_TENANT;
use super::*;

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
