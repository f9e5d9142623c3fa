//! Health from edges as the kernel half counts them.

use std::sync::Arc;

use agent_common::abort::KEEPALIVE;
use agent_common::address::UNSPECIFIED;
use agent_common::counters::EdgeCounters;
use agent_common::drained::{Edge, Table};
use agent_common::edge::{
    CONNECT_ABORTED, CONNECT_ADDRESS_UNAVAILABLE, CONNECT_DENIED, CONNECT_OK, CONNECT_OTHER,
    CONNECT_PORT_IN_USE, CONNECT_PORTS_EXHAUSTED, CONNECT_REFUSED, CONNECT_RESET, CONNECT_STOPPING,
    CONNECT_TIME_WAIT, CONNECT_TIMEOUT, CONNECT_UNREACHABLE, EdgeKey, ROLE_CLIENT, ROLE_SERVER,
};
use agent_common::reset::{
    ABORTED, IDLE_REUSE, LINGER, NO_LISTENER, STOPPING, UNREAD_DATA, UNUSED,
};
use agent_common::wire::Wire as _;

use super::*;
use crate::directory::Pattern;
use crate::fixture;
use crate::recent::Recent;
use crate::service::Source;
use crate::snapshot::EdgeLabels;
use crate::tables::Tables;

/// An edge of this role with these totals.
fn edge(role: u8, ok: u64, refused: u64, requests: u64, resets: u64) -> Edge {
    let mut counters = EdgeCounters::ZERO;
    counters.connects[usize::from(CONNECT_OK)] = ok;
    counters.connects[usize::from(CONNECT_REFUSED)] = refused;
    let cut =
        if role == ROLE_CLIENT { &mut counters.resets_received } else { &mut counters.resets_sent };
    cut[usize::from(ABORTED)] = resets;
    for _ in 0..requests {
        counters.request.observe(1000);
    }
    let key = EdgeKey { port: 5432, role, ..EdgeKey::zeroed() };
    let (slot, local, remote) = (3 + u32::from(role), UNSPECIFIED, UNSPECIFIED);
    Edge { table: Table::Edges, slot, key, local, remote, born_us: 1, counters: Arc::new(counters) }
}

/// An agent's tables and its history.
struct World(Tables, Recent);

impl Default for World {
    fn default() -> Self {
        Self(Tables::default(), Recent::new(1_000_000))
    }
}

impl World {
    fn health_as(&mut self, server: &str, now: f64, edges: &[Edge]) -> Health {
        self.of(server, server, now, edges)
    }

    /// The health of `wanted`, a client or a server.
    fn of(&mut self, wanted: &str, server: &str, now: f64, edges: &[Edge]) -> Health {
        let db = Service::new(server, Source::Process);
        let web = Service::new("web", Source::Process);
        let name = |edge: &Edge| {
            let role = if edge.key.role == ROLE_CLIENT { Role::Client } else { Role::Server };
            EdgeLabels::new(web.clone(), db.clone(), 5432, role)
        };
        let updated = self.0.update(now as u64, edges, crate::reclaim::Room::of(100), name);
        // A clock that does not begin with the first collection.
        let now_us = 1_000_000 + (now * 1e6) as u64;
        self.1.update(now_us, &updated.deltas.closed, &updated.deltas.edges);
        let (edges, recent, listeners) = (updated.edges, self.1.view(), Vec::new());
        let (steps, seconds) = recent.steps(300);
        let mut snapshot = Snapshot { taken_seconds: now, edges, listeners, ..fixture::snapshot() };
        Arc::make_mut(&mut snapshot.related.directory).classes.polled =
            Pattern::parse("queue").into_iter().collect();
        let found = services(&snapshot, &Traffic::of(steps), seconds);
        found.into_iter().find(|view| *view.service.name == *wanted).expect("a service").health
    }

    fn health(&mut self, now: f64, edges: &[Edge]) -> Health {
        self.health_as("db", now, edges)
    }
}

#[test]
fn only_what_happened_within_the_window_counts() {
    let mut world = World::default();
    let check = |world: &mut World, now, edges: [Edge; 2], expected| {
        let health = world.health(now, &edges);
        let Health { state, connects_ok, connects_failed, requests, .. } = health;
        assert_eq!((state, connects_ok, connects_failed, requests), expected, "at {now}");
    };
    let both = |ok, refused, requests| {
        [edge(ROLE_CLIENT, ok, refused, requests, 0), edge(ROLE_SERVER, ok, 0, requests, 0)]
    };
    // Counts before the agent's first collection are not recent.
    check(&mut world, 1000.0, both(10, 5, 10), (HealthState::Idle, 0, 0, 0));
    check(&mut world, 1010.0, both(14, 5, 20), (HealthState::Ok, 4, 0, 10));
    check(&mut world, 1070.0, both(14, 6, 20), (HealthState::Degraded, 4, 1, 10));
    check(&mut world, 1130.0, both(14, 20, 20), (HealthState::Failing, 4, 15, 10));
    // The window moves on, and the failures leave it.
    for minute in 0..5 {
        world.health(1190.0 + f64::from(minute) * 60.0, &both(14, 20, 20));
    }
    check(&mut world, 1490.0, both(15, 20, 21), (HealthState::Ok, 1, 0, 1));
}

#[test]
fn a_reset_degrades_and_a_row_that_begins_anew_is_no_loss() {
    let mut world = World::default();
    world.health(0.0, &[edge(ROLE_SERVER, 100, 0, 100, 0)]);
    let again = Edge { born_us: 9, ..edge(ROLE_SERVER, 3, 0, 3, 1) };
    let after = world.health(30.0, &[again]);
    assert_eq!((after.connects_ok, after.requests, after.resets), (3, 3, 1));
    assert_eq!(after.state, HealthState::Degraded);
    assert_eq!(after.p50_seconds, Some(0.00075));
    assert!((after.window_seconds - 30.0).abs() < 1e-9);
}

/// On either side: only one of them may notice.
#[test]
fn a_connection_that_dies_degrades() {
    for role in [ROLE_CLIENT, ROLE_SERVER] {
        let mut world = World::default();
        let both = [edge(ROLE_CLIENT, 5, 0, 5, 0), edge(ROLE_SERVER, 5, 0, 5, 0)];
        world.health(0.0, &both);
        let mut dead = both;
        let side = dead.iter_mut().find(|edge| edge.key.role == role).expect("both are there");
        let counters = Arc::make_mut(&mut side.counters);
        counters.aborts[usize::from(KEEPALIVE)] = 1;
        let after = world.health(30.0, &dead);
        assert_eq!((after.aborts, after.state), (1, HealthState::Degraded), "role {role}");
    }
}

#[test]
fn requests_without_an_answer_degrade_and_fail_a_service_that_answers_fewer() {
    let check = |role, answered: u64, unanswered: u64, expected| {
        let mut world = World::default();
        let both = [edge(ROLE_CLIENT, 5, 0, 5, 0), edge(ROLE_SERVER, 5, 0, 5, 0)];
        world.health(0.0, &both);
        let requests = 5 + answered;
        let mut later =
            [edge(ROLE_CLIENT, 9, 0, requests, 0), edge(ROLE_SERVER, 9, 0, requests, 0)];
        let side = later.iter_mut().find(|edge| edge.key.role == role).expect("both are there");
        Arc::make_mut(&mut side.counters).unanswered = unanswered;
        let after = world.health(30.0, &later);
        let found = (after.requests, after.unanswered, after.state);
        assert_eq!(found, (answered, unanswered, expected), "role {role}");
    };
    // A client on another host, or a server that holds on to the connection: one side knows.
    for role in [ROLE_CLIENT, ROLE_SERVER] {
        check(role, 8, 0, HealthState::Ok);
        check(role, 8, 1, HealthState::Degraded);
        check(role, 0, 9, HealthState::Degraded);
        check(role, 10, 10, HealthState::Degraded);
        check(role, 9, 10, HealthState::Failing);
    }
}

#[test]
fn a_refused_connect_is_a_failed_connect_and_no_reset() {
    let mut world = World::default();
    world.health(0.0, &[edge(ROLE_CLIENT, 5, 0, 0, 0)]);
    let mut refused = edge(ROLE_CLIENT, 9, 1, 4, 0);
    let counters = Arc::make_mut(&mut refused.counters);
    counters.resets_received[usize::from(NO_LISTENER)] = 1;
    counters.resets_sent[usize::from(NO_LISTENER)] = 1;
    let after = world.health(30.0, &[refused]);
    assert_eq!((after.connects_failed, after.resets), (1, 0));
    assert_eq!(after.state, HealthState::Degraded);
}

/// An edge from before the window, then one like it with more: the health of client and server after.
fn after(role: u8, table: Table, more: impl FnOnce(&mut EdgeCounters)) -> (Health, Health) {
    let mut world = World::default();
    let mut one = Edge { table, ..edge(role, 5, 0, 5, 0) };
    world.health(0.0, &[one.clone()]);
    more(Arc::make_mut(&mut one.counters));
    let server = world.health(30.0, &[one.clone()]);
    (world.of("web", "db", 31.0, &[one]), server)
}

#[test]
fn a_failed_connect_is_that_of_the_side_that_caused_it() {
    let check = |table, result: u8, failed_at_server: u64| {
        let (client, server) = after(ROLE_CLIENT, table, |counters| {
            counters.connects[usize::from(result)] = 2;
        });
        let found = (server.connects_failed, client.as_client.connects_failed);
        assert_eq!(found, (failed_at_server, 2 - failed_at_server), "{table:?} {result}");
        let state = if failed_at_server > 0 { HealthState::Failing } else { HealthState::Idle };
        assert_eq!(server.state, state, "{table:?} {result}");
        let (state, reasons) = if failed_at_server > 0 {
            (HealthState::Idle, vec![])
        } else {
            (HealthState::Degraded, vec![HealthReason::OwnConnectsFail])
        };
        assert_eq!((client.state, client.reasons), (state, reasons), "{table:?} {result}");
    };
    for result in
        [CONNECT_REFUSED, CONNECT_TIMEOUT, CONNECT_UNREACHABLE, CONNECT_RESET, CONNECT_OTHER]
    {
        check(Table::Edges, result, 2);
    }
    for result in [CONNECT_DENIED, CONNECT_ABORTED, CONNECT_PORTS_EXHAUSTED] {
        check(Table::Edges, result, 0);
    }
    for result in [
        CONNECT_UNREACHABLE,
        CONNECT_DENIED,
        CONNECT_ADDRESS_UNAVAILABLE,
        CONNECT_PORT_IN_USE,
        CONNECT_TIME_WAIT,
        CONNECT_OTHER,
    ] {
        check(Table::Unsent, result, 0);
    }
}

#[test]
fn errors_are_a_reason_if_they_are_more_than_exceptions() {
    let check = |responses: [u64; 5], state, expected: &[HealthReason]| {
        let (_, server) = after(ROLE_SERVER, Table::Edges, |counters| {
            counters.responses[..5].copy_from_slice(&responses);
            counters.request.observe(100);
        });
        assert_eq!((server.state, &server.reasons[..]), (state, expected), "{responses:?}");
        assert_eq!(server.errors, responses[4]);
    };
    use HealthReason::Errors;
    check([0, 100, 0, 900, 0], HealthState::Ok, &[]);
    check([0, 100, 0, 0, 5], HealthState::Ok, &[]);
    check([0, 94, 0, 0, 6], HealthState::Degraded, &[Errors]);
    check([0, 0, 0, 0, 2], HealthState::Ok, &[]);
    check([0, 1, 0, 0, 9], HealthState::Degraded, &[Errors]);
    check([0, 9, 0, 0, 10], HealthState::Failing, &[Errors]);
}

/// As a client that tries IPv6 first on a host without it.
#[test]
fn a_client_whose_connects_mostly_succeed_is_not_degraded_by_its_own_failures() {
    let check = |result: u8, ok, failed, expected: &[HealthReason]| {
        let (client, _) = after(ROLE_CLIENT, Table::Edges, |counters| {
            counters.connects[usize::from(CONNECT_OK)] += ok;
            counters.connects[usize::from(result)] = failed;
        });
        assert_eq!(client.reasons, expected, "{ok} and {failed}");
    };
    check(CONNECT_ABORTED, 3, 3, &[]);
    check(CONNECT_ABORTED, 3, 4, &[HealthReason::OwnConnectsFail]);
    check(CONNECT_PORTS_EXHAUSTED, 100, 1, &[HealthReason::OwnConnectsFail]);
}

#[test]
fn who_sends_a_reset_has_cut_the_connection() {
    let check = |role, is_sent: bool, cause: u8, expected: u64| {
        let (_, server) = after(role, Table::Edges, |counters| {
            let side =
                if is_sent { &mut counters.resets_sent } else { &mut counters.resets_received };
            side[usize::from(cause)] = 2;
        });
        assert_eq!(server.resets, expected, "role {role}, sent {is_sent}, cause {cause}");
        assert_eq!(server.reasons.is_empty(), expected == 0);
    };
    for cause in [ABORTED, IDLE_REUSE] {
        check(ROLE_CLIENT, false, cause, 2);
    }
    for cause in [ABORTED, LINGER, UNREAD_DATA] {
        check(ROLE_CLIENT, true, cause, 0);
        check(ROLE_SERVER, true, cause, 2);
    }
    // A client cuts, or answers the response that it did not wait for.
    check(ROLE_SERVER, false, ABORTED, 0);
}

#[test]
fn a_health_check_harms_neither_side() {
    let checked = |role| {
        after(role, Table::Edges, |counters| {
            counters.connects[usize::from(CONNECT_OK)] += 9;
            counters.resets_sent[usize::from(UNUSED)] = 9;
            counters.resets_received[usize::from(UNUSED)] = 9;
        })
    };
    for role in [ROLE_CLIENT, ROLE_SERVER] {
        let (client, server) = checked(role);
        assert_eq!((server.state, server.resets), (HealthState::Ok, 0));
        assert_eq!((client.as_client.resets, client.reasons), (0, vec![]));
    }
}

#[test]
fn failures_of_a_server_that_stops_are_no_fault_and_shown() {
    let (client, server) = after(ROLE_CLIENT, Table::Edges, |counters| {
        counters.connects[usize::from(CONNECT_STOPPING)] = 3;
        counters.resets_received[usize::from(STOPPING)] = 2;
        counters.unanswered_stopping = 1;
    });
    assert_eq!((server.state, server.stopping), (HealthState::Ok, 6));
    assert_eq!((server.connects_failed, server.resets, server.unanswered), (0, 0, 0));
    assert_eq!(client.as_client, ClientHealth::default());
}

/// So many requests that take as many microseconds each, and how many waits the kernel half counted.
fn answering(requests: &[(u64, u64)], waits: u64) -> Health {
    let (_, server) = after(ROLE_SERVER, Table::Edges, |counters| {
        for (count, us) in requests {
            (0..*count).for_each(|_| counters.request.observe(*us));
        }
        counters.waits = waits;
    });
    server
}

#[test]
fn slow_responses_degrade() {
    let check = |requests: &[(u64, u64)], expected: &[HealthReason]| {
        assert_eq!(answering(requests, 0).reasons, expected, "{requests:?}");
    };
    check(&[(200, 400_000)], &[]);
    check(&[(5, 600_000)], &[HealthReason::Slow]);
    check(&[(500, 1000), (6, 2_000_000)], &[HealthReason::Slow]);
    // One of a hundred is not more than one of a hundred, and two may be an accident.
    check(&[(495, 1000), (5, 2_000_000)], &[]);
    check(&[(9, 1000), (2, 2_000_000)], &[]);
}

#[test]
fn polls_that_wait_do_not_make_a_server_slow_that_answers_others() {
    let polled = answering(&[(50, 1000), (20, 5_000_000)], 20);
    assert_eq!((polled.state, polled.reasons), (HealthState::Ok, vec![]));
    assert_eq!((polled.requests, polled.waits, polled.p99_seconds), (70, 20, Some(0.000_995)));
    // Beside them others are slow.
    let both = answering(&[(50, 1000), (20, 5_000_000), (9, 800_000)], 20);
    assert_eq!(both.reasons, [HealthReason::Slow]);
    assert!(both.p99_seconds.is_some_and(|p99| (0.5..1.0).contains(&p99)), "{both:?}");
    // Busy clients of a server that is slow to all of them.
    let slow = answering(&[(3, 1000), (20, 5_000_000)], 20);
    assert_eq!((&slow.reasons[..], slow.waits), (&[HealthReason::Slow][..], 0));
    assert!(slow.p99_seconds.is_some_and(|p99| (4.9..5.0).contains(&p99)), "{slow:?}");
}

/// The same connections: long requests one right after the other, and nothing else.
#[test]
fn a_server_that_is_said_to_be_polled_is_not_slow_while_its_clients_wait_and_any_other_is() {
    let check = |server: &str, long: u64, waits: u64, expected: &[HealthReason]| {
        let mut world = World::default();
        let mut one = edge(ROLE_SERVER, 5, 0, 0, 0);
        world.health_as(server, 0.0, &[one.clone()]);
        let counters = Arc::make_mut(&mut one.counters);
        (0..long).for_each(|_| counters.request.observe(5_000_000));
        counters.waits = waits;
        let found = world.health_as(server, 30.0, &[one]);
        assert_eq!((&found.reasons[..], found.requests), (expected, long), "{server}");
        found
    };
    let polled = check("queue", 20, 20, &[]);
    assert_eq!((polled.state, polled.waits, polled.p99_seconds), (HealthState::Ok, 20, None));
    check("db", 20, 20, &[HealthReason::Slow]);
    // Long requests with pauses between them are slow anywhere.
    let slow = check("queue", 20, 15, &[HealthReason::Slow]);
    assert!(slow.p99_seconds.is_some_and(|p99| p99 > 4.0), "{slow:?}");
}

#[test]
fn the_fullest_accept_queue_is_shown_and_a_full_one_degrades() {
    let queue = |length, limit| AcceptQueue { length, limit };
    let check = |queues: &[AcceptQueue], fullest, expected: &[HealthReason]| {
        let (_, mut health) = after(ROLE_SERVER, Table::Edges, |counters| {
            counters.connects[usize::from(CONNECT_OK)] += 1;
        });
        for queue in queues {
            health.add_queue(*queue);
        }
        assert_eq!((health.accept_queue, &*health.reasons), (Some(fullest), expected));
        let state = if expected.is_empty() { HealthState::Ok } else { HealthState::Degraded };
        assert_eq!(health.state, state);
    };
    check(&[queue(0, 128), queue(0, 128)], queue(0, 128), &[]);
    check(&[queue(0, 128), queue(128, 128), queue(1, 128)], queue(128, 128), &[]);
    check(&[queue(200, 4096), queue(9, 8)], queue(9, 8), &[HealthReason::AcceptQueueFull]);
    check(&[queue(1, 0), queue(5, 128)], queue(1, 0), &[HealthReason::AcceptQueueFull]);
}

#[test]
fn an_accept_queue_that_a_user_can_have_made_up_degrades_nobody() {
    let mut snapshot = fixture::snapshot();
    let queue = |snapshot: &Snapshot| {
        let found = services(snapshot, &snapshot.traffic, 100.0);
        let postgres = found.iter().find(|view| &*view.service.name == "postgres");
        postgres.expect("there").health.accept_queue
    };
    assert!(queue(&snapshot).is_some());
    for listener in &mut snapshot.listeners {
        (listener.backlog, listener.unverified_user) = (500, Some(1500));
    }
    assert_eq!(queue(&snapshot), None);
}

#[test]
fn what_was_long_ago_is_no_news_under_a_better_name() {
    let mut world = World::default();
    world.health_as("10.0.0.1", 0.0, &[edge(ROLE_SERVER, 100, 0, 100, 0)]);
    let named = world.health_as("db", 30.0, &[edge(ROLE_SERVER, 102, 0, 102, 0)]);
    assert_eq!((named.connects_ok, named.requests), (2, 2));
}

#[test]
fn every_end_listener_and_registration_is_a_service() {
    let snapshot = fixture::snapshot();
    let found = services(&snapshot, &snapshot.traffic, 100.0);
    let name = |view: &ServiceView| view.service.name.to_string();
    let names: Vec<_> = found.iter().map(name).collect();
    assert_eq!(names, ["billing", "internet", "other", "postgres", "shop"]);
    let billing = &found[0];
    assert_eq!(billing.service.source, Source::Registered);
    assert_eq!(billing.registered.len(), 1);
    let postgres = found.iter().find(|view| name(view) == "postgres").expect("there");
    assert_eq!(postgres.listens, BTreeSet::from([Port::tcp(5432)]));
    assert_eq!(postgres.serves, BTreeSet::from([Port::tcp(5432)]));
}
