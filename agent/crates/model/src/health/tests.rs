//! Health from edges as the kernel half counts them.

use agent_common::abort::KEEPALIVE;
use agent_common::address::UNSPECIFIED;
use agent_common::drained::{Edge, Table};
use agent_common::edge::{CONNECT_REFUSED, EdgeKey, ROLE_CLIENT, ROLE_SERVER};
use agent_common::reset::NO_LISTENER;
use agent_common::wire::Wire as _;

use super::*;
use crate::fixture;
use crate::service::Source;
use crate::snapshot::EdgeLabels;
use crate::tables::Tables;
use agent_common::counters::EdgeCounters;
use agent_common::edge::CONNECT_OK;
use std::sync::Arc;

/// An edge of this role with these totals.
fn edge(role: u8, ok: u64, refused: u64, requests: u64, resets: u64) -> Edge {
    let mut counters = EdgeCounters::ZERO;
    counters.connects[usize::from(CONNECT_OK)] = ok;
    counters.connects[usize::from(CONNECT_REFUSED)] = refused;
    counters.resets_received[0] = resets;
    for _ in 0..requests {
        counters.request.observe(1000);
    }
    let key = EdgeKey { port: 5432, role, ..EdgeKey::zeroed() };
    let (slot, local, remote) = (3 + u32::from(role), UNSPECIFIED, UNSPECIFIED);
    Edge { table: Table::Edges, slot, key, local, remote, born_us: 1, counters: Arc::new(counters) }
}

/// An agent's tables and its history.
#[derive(Default)]
struct World(Tables, Epochs);

impl World {
    fn health_as(&mut self, server: &str, now: f64, edges: &[Edge]) -> Health {
        let db = Service::new(server, Source::Process);
        let web = Service::new("web", Source::Process);
        let name = |edge: &Edge| {
            let role = if edge.key.role == ROLE_CLIENT { Role::Client } else { Role::Server };
            EdgeLabels::new(web.clone(), db.clone(), 5432, role)
        };
        let updated = self.0.update(now as u64, edges, crate::reclaim::Room::of(100), name);
        self.1.observe(now, &updated.deltas.edges);
        let (edges, health) = (updated.edges, self.1.clone());
        let snapshot = Snapshot { taken_seconds: now, edges, health, ..fixture::snapshot() };
        let found = services(&snapshot);
        found.into_iter().find(|view| *view.service.name == *server).expect("a service").health
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
    assert_eq!(after.p50_seconds, Some(0.001));
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

#[test]
fn what_was_long_ago_is_no_news_under_a_better_name() {
    let mut world = World::default();
    world.health_as("10.0.0.1", 0.0, &[edge(ROLE_SERVER, 100, 0, 100, 0)]);
    let named = world.health_as("db", 30.0, &[edge(ROLE_SERVER, 102, 0, 102, 0)]);
    assert_eq!((named.connects_ok, named.requests), (2, 2));
}

#[test]
fn every_end_listener_and_registration_is_a_service() {
    let found = services(&fixture::snapshot());
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
