//! What counts as a violation, once, and which events are logged.

use super::*;
use crate::attributed::ENDED_SECONDS;
use crate::delta::Stage;
use crate::fixture::declarations;
use crate::line_shares::LINES_OF_A_TENANT;
use crate::reclaim::Room;
use crate::service::{Entity, Service, Source};
use crate::slot::Naming;
use crate::snapshot::{EdgeLabels, Role};
use agent_common::counters::EdgeCounters;
use agent_common::drained::{Edge, Table};
use agent_common::edge::{EdgeKey, ROLE_SERVER};
use proptest::prelude::*;

fn ip(text: &str) -> Address {
    address::from_ip(text.parse::<IpAddr>().expect("an address"))
}

fn edge(slot: u32, role: u8, local: &str, remote: &str, opened: u64) -> Edge {
    let (local, remote) = (ip(local), ip(remote));
    let key = EdgeKey { owner: 1, port: 5432, role, zero: 0, remote };
    let counters = EdgeCounters { opened, ..EdgeCounters::ZERO };
    Edge {
        table: Table::Edges,
        slot,
        key,
        local,
        remote,
        born_us: u64::from(slot),
        counters: Arc::new(counters),
    }
}

fn labels(client: &str, server: &str) -> Arc<EdgeLabels> {
    let server = Service::new(server, Source::Process);
    let client = Service::new(client, Source::Process);
    Arc::new(EdgeLabels::new(client, server, 5432, Role::Client))
}

/// Owners have a tenant each.
fn tenant(owner: u32) -> Tenant {
    Tenant { cgroup: owner.into(), origin: 1 }
}

/// Violations, the time, who the clients are, and the stage before.
struct World(Violations, f64, u64, Stage);

impl World {
    fn new() -> Self {
        Self::with(Policy::new(declarations()).expect("valid"))
    }

    fn with(policy: Policy) -> Self {
        Self(Violations::new(Arc::new(policy)), 1e9, 1, Stage::default())
    }

    fn drain(&mut self, edges: &[Edge], labels: &Arc<EdgeLabels>) -> Lines {
        self.1 += 1.0;
        let client = Entity(self.2);
        let name = |_: &Edge| Naming { client, ..EdgeLabels::clone(labels).into() };
        let deltas = self.3.take(self.1 as u64, edges, Room::of(1000), name);
        self.0.update(self.1, &deltas.closed, &deltas.edges, tenant)
    }

    fn total(&self) -> u64 {
        self.0.view().rows.iter().map(|(_, n)| n).sum()
    }
}

#[test]
fn a_connection_seen_from_both_sides_violates_once() {
    let mut world = World::new();
    let both = |n| {
        [
            edge(4, ROLE_SERVER, "172.22.0.2", "172.20.0.2", n),
            edge(5, ROLE_CLIENT, "172.20.0.2", "172.22.0.2", n),
        ]
    };
    // The server's row alone: the client's was taken after the reader had passed it.
    let labels = labels("web", "db");
    assert!(world.drain(&both(1)[..1], &labels).events.is_empty());
    assert_eq!(world.drain(&both(1), &labels).events.len(), 0);
    let events = world.drain(&both(1), &labels).events;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].client_address, "172.20.0.2".parse().ok());
    assert_eq!(events[0].server_address, "172.22.0.2".parse().ok());
    assert_eq!(world.total(), 1);
    assert!(world.drain(&both(4), &labels).events.is_empty(), "the same event");
    assert_eq!(world.total(), 4);
    let view = world.0.view();
    assert_eq!((view.events.len(), view.events[0].connections), (1, 4));
    assert_eq!(view.cells, [((Some(0), Some(2)), 4)]);
    let lately = view.steps.last(60);
    assert_eq!((&lately.cells, &lately.rows), (&view.cells, &view.rows));
    // A minute later it is not in the window any more, and still since the start.
    world.1 += 100.0;
    world.drain(&both(4), &labels);
    let view = world.0.view();
    assert_eq!((view.steps.last(60).cells, view.steps.last(60).rows), (vec![], vec![]));
    assert_eq!(view.cells, [((Some(0), Some(2)), 4)]);
}

#[test]
fn what_is_allowed_or_outside_is_seen_and_no_violation() {
    let mut world = World::new();
    let edges = [
        edge(4, ROLE_CLIENT, "172.20.0.2", "172.21.0.2", 3),
        edge(5, ROLE_CLIENT, "172.20.0.2", "8.8.8.8", 2),
        edge(6, ROLE_CLIENT, "172.20.0.2", "172.22.0.2", 0),
    ];
    for _ in 0..3 {
        world.drain(&edges, &labels("web", "x"));
    }
    let view = world.0.view();
    assert_eq!(world.total(), 0);
    assert_eq!(view.cells, [((Some(0), None), 2), ((Some(0), Some(1)), 3)]);
}

#[test]
fn a_connection_in_plain_text_violates_where_tls_is_required_once() {
    let mut declared = declarations();
    let tls = "backend -> database".parse().expect("a rule");
    declared.push(crate::segments::Declared::RequireTls(tls));
    let mut world = World::with(Policy::new(declared).expect("valid"));
    // Opened, in plain text, encrypted; the rest of an unknown protocol.
    let both = |opened, plain, encrypted| {
        let mut server = edge(4, ROLE_SERVER, "172.22.0.2", "172.21.0.2", opened);
        let counters = Arc::make_mut(&mut server.counters);
        let of = |protocol| response::STATUSES + (protocol - response::FIRST_PROTOCOL) as usize;
        counters.responses[of(response::POSTGRESQL)] = plain;
        counters.responses[of(response::TLS)] = encrypted;
        counters.responses[of(response::OTHER)] = opened - plain - encrypted;
        [server, edge(5, ROLE_CLIENT, "172.21.0.2", "172.22.0.2", opened)]
    };
    let labels = labels("api", "db");
    for _ in 0..3 {
        assert!(world.drain(&both(2, 0, 1), &labels).events.is_empty());
    }
    assert!(world.0.view().rows.is_empty());
    let events = world.drain(&both(5, 3, 1), &labels).events;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].between.reason, events[0].connections), (Reason::Plaintext, 3));
    assert!(world.drain(&both(6, 4, 1), &labels).events.is_empty(), "the same event");
    let view = world.0.view();
    let rows: Vec<_> = view.rows.iter().map(|(between, n)| (between.reason, *n)).collect();
    assert_eq!(rows, [(Reason::Plaintext, 4)]);
    assert_eq!(view.cells, [((Some(1), Some(2)), 6)]);
}

#[test]
fn a_connection_can_violate_for_both_reasons() {
    let mut declared = declarations();
    let tls = "* -> database".parse().expect("a rule");
    declared.push(crate::segments::Declared::RequireTls(tls));
    let mut world = World::with(Policy::new(declared).expect("valid"));
    // Its client is on another host, so the server's side evaluates all of it.
    let mut server = edge(4, ROLE_SERVER, "172.22.0.2", "172.20.0.2", 2);
    Arc::make_mut(&mut server.counters).responses[response::STATUSES] = 1;
    let labels = labels("web", "db");
    for _ in 0..3 {
        world.drain(std::slice::from_ref(&server), &labels);
    }
    let view = world.0.view();
    let rows: Vec<_> = view.rows.iter().map(|(between, n)| (between.reason, *n)).collect();
    assert_eq!(rows, [(Reason::NotAllowed, 2), (Reason::Plaintext, 1)]);
    assert_eq!(view.events.len(), 2);
}

#[test]
fn a_late_name_makes_what_came_before_a_violation_once() {
    let mut declared = declarations();
    declared.push(crate::segments::Declared::Service("frontend".into(), "web".into()));
    let mut world = World::with(Policy::new(declared).expect("valid"));
    let edges = [edge(4, ROLE_CLIENT, "10.0.0.1", "172.22.0.2", 3)];
    let (early, late) = (labels("10.0.0.1", "db"), labels("web", "db"));
    for _ in 0..3 {
        world.drain(&edges, &early);
    }
    assert_eq!(world.total(), 0);
    for _ in 0..3 {
        world.drain(&edges, &late);
    }
    assert_eq!(world.total(), 3);
    // And what was counted stays counted.
    for labels in [&early, &late] {
        world.drain(&edges, labels);
        assert_eq!(world.total(), 3);
    }
    let view = world.0.view();
    assert_eq!(view.cells, [((Some(0), Some(2)), 3)]);
    assert_eq!(view.steps.last(60).cells, view.cells);
}

#[test]
fn what_another_did_before_is_not_held_against_the_next() {
    let mut declared = declarations();
    declared.push(crate::segments::Declared::Service("backend".into(), "ok".into()));
    let mut world = World::with(Policy::new(declared).expect("valid"));
    let mut edges = [edge(4, ROLE_CLIENT, "172.20.0.2", "172.22.0.2", 3)];
    for _ in 0..3 {
        world.drain(&edges, &labels("ok", "db"));
    }
    world.2 += 1;
    world.drain(&edges, &labels("web", "db"));
    assert_eq!(world.total(), 0);
    Arc::make_mut(&mut edges[0].counters).opened += 2;
    world.drain(&edges, &labels("web", "db"));
    assert_eq!(world.total(), 2);
}

#[test]
fn a_slot_used_again_goes_on_in_the_row_of_its_names() {
    let mut world = World::new();
    let named = labels("web", "db");
    let first = [edge(4, ROLE_CLIENT, "172.20.0.2", "172.22.0.2", 7)];
    let mut again = first[0].clone();
    again.born_us = 99;
    Arc::make_mut(&mut again.counters).opened = 2;
    for edges in [&first[..], &first, &[again.clone()], &[again]] {
        world.drain(edges, &named);
    }
    assert_eq!(world.total(), 9);
    assert_eq!(world.0.view().cells[0].1, 9);
    assert_eq!(world.0.view().steps.last(60).cells[0].1, 9);
    // A row outlives its last slot, so that it is read.
    for _ in 0..ENDED_SECONDS {
        world.drain(&[], &named);
        assert_eq!(world.total(), 9);
    }
    world.drain(&[], &named);
    assert_eq!(world.total(), 0);
}

#[test]
fn the_log_gets_a_few_events_of_each_client_a_minute_and_the_number_of_others() {
    let mut world = World::new();
    let mut many: Vec<Edge> =
        (4..400).map(|slot| edge(slot, ROLE_CLIENT, "172.20.0.2", "172.22.0.2", 1)).collect();
    // The last one is another client's.
    many.last_mut().expect("an edge").key.owner = 2;
    world.1 = 60e6;
    world.drain(&many, &labels("web", "db"));
    let lines = world.drain(&many, &labels("web", "db"));
    let clients: Vec<u32> =
        lines.events.iter().map(|event| event.edge.expect("an edge").0).collect();
    assert_eq!(clients.len() as u64, LINES_OF_A_TENANT + 1);
    assert_eq!(clients.last(), Some(&EdgeId::of(many.last().expect("an edge")).0));
    world.1 += 60.0;
    let lines = world.drain(&many, &labels("web", "db"));
    assert_eq!(lines.suppressed, 396 - LINES_OF_A_TENANT - 1);
    let view = world.0.view();
    assert_eq!((view.events.len() as u64 + view.dropped_events), 396);
    assert_eq!(world.total(), 396);
}

proptest! {
    /// However connections arrive and names change, each counts at most once, and a slot whose
    /// last evaluation is a violation has counted all of its own.
    #[test]
    fn every_violating_connection_counts_once(
        steps in prop::collection::vec((4u32..7, 0u64..4, any::<bool>()), 1..60)
    ) {
        let mut declared = declarations();
        declared.push(crate::segments::Declared::Service("backend".into(), "ok".into()));
        let policy = Policy::new(declared).expect("valid");
        let mut world = World::with(policy);
        let mut edges: Vec<Edge> = (4..7)
            .map(|slot| edge(slot, ROLE_CLIENT, "172.20.0.2", "172.22.0.2", 0))
            .collect();
        let mut opened = 0;
        for (slot, more, good) in steps {
            Arc::make_mut(&mut edges[slot as usize - 4].counters).opened += more;
            opened += more;
            world.drain(&edges, &labels(if good { "ok" } else { "web" }, "db"));
            prop_assert!(world.total() <= opened);
        }
        for _ in 0..2 {
            world.drain(&edges, &labels("web", "db"));
        }
        prop_assert_eq!(world.total(), opened);
    }
}
