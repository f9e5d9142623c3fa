//! Flows through late names, other services at an address, ends of edges and a full table.

use super::*;
use crate::delta::Stage;
use crate::reclaim::Room;
use crate::slot::Naming;
use agent_common::drained::{Edge, Table};
use agent_common::edge::EdgeKey;
use agent_common::on_demand::OnDemand;

fn edge(slot: u32, role: u8, local: &str, remote: &str, opened: u64) -> Edge {
    let ip = |text: &str| address::from_ip(text.parse::<IpAddr>().expect("an address"));
    let (local, remote) = (ip(local), ip(remote));
    let key = EdgeKey { owner: 1, port: 5432, role, zero: 0, remote };
    let counters = Arc::new(EdgeCounters { opened, ..EdgeCounters::ZERO });
    Edge { table: Table::Edges, slot, key, local, remote, born_us: 1 + u64::from(slot), counters }
}

fn labels(client: &str, server: Service) -> EdgeLabels {
    EdgeLabels::new(Service::new(client, Source::Process), server, 5432, Role::Client)
}

/// Flows and the stage before them.
#[derive(Default)]
struct World {
    stage: Stage,
    flows: Flows,
    now: u64,
}

impl World {
    /// A drain of these edges, a second after the one before.
    fn drain<N: Into<Naming>>(&mut self, edges: &[Edge], name: impl Fn(&Edge) -> N) {
        self.now += 1;
        let deltas = self.stage.take(self.now, edges, Room::of(20_000), name);
        self.flows.update(1_000_000 + self.now, &deltas.closed, &deltas.edges);
    }

    /// Client, server, address of the server, connections; sorted.
    fn seen(&mut self) -> Vec<(String, String, String, u64)> {
        let view = self.flows.view();
        let row = |(flow, seen): &(Arc<Flow>, Seen)| {
            let address = flow.server_address.map(|address| address.to_string());
            let (client, server) = (flow.client.to_string(), flow.server.to_string());
            (client, server, address.unwrap_or_default(), seen.connections)
        };
        let mut rows: Vec<_> = view.rows.iter().map(row).collect();
        rows.sort_unstable();
        rows
    }
}

fn row(client: &str, server: &str, address: &str, n: u64) -> (String, String, String, u64) {
    (client.to_owned(), server.to_owned(), address.to_owned(), n)
}

#[test]
fn a_flow_has_the_addresses_of_both_ends_and_outlives_its_edge() {
    let mut world = World::default();
    let named = |_: &Edge| labels("web", Service::new("db", Source::Listener));
    world.drain(&[edge(4, ROLE_CLIENT, "10.0.0.1", "10.0.0.2", 3)], named);
    world.drain(&[edge(4, ROLE_CLIENT, "10.0.0.1", "10.0.0.2", 5)], named);
    for _ in 0..3 {
        world.drain(&[], named);
    }
    assert_eq!(world.seen(), [row("web", "db", "10.0.0.2", 5)]);
    let view = world.flows.view();
    let (flow, seen) = view.rows.first().expect("a flow");
    assert_eq!(flow.client_address, "10.0.0.1".parse().ok());
    assert_eq!((seen.first_seconds, seen.last_seconds), (1_000_001, 1_000_002));
    // The slot is another edge's now: it adds to a flow of its own.
    world.drain(&[edge(4, ROLE_SERVER, "10.0.0.2", "10.0.0.9", 1)], named);
    let all = [row("web", "db", "10.0.0.2", 1), row("web", "db", "10.0.0.2", 5)];
    assert_eq!(world.seen(), all);
}

#[test]
fn a_better_name_takes_its_connections_along_and_another_service_does_not() {
    let mut world = World::default();
    let at = |n| [edge(4, ROLE_CLIENT, "10.0.0.1", "10.0.0.2", n)];
    let address = Service::new("10.0.0.2", Source::Address);
    world.drain(&at(3), |_| labels("web", address.clone()));
    let db = Service::new("db", Source::Listener);
    world.drain(&at(4), |_| labels("web", db.clone()));
    assert_eq!(world.seen(), [row("web", "db", "10.0.0.2", 4)]);
    // Another container has the address now: what came before is not its own.
    let entity = |server| crate::service::Entity(server);
    let naming = |name: &str, number| Naming {
        server: entity(number),
        ..labels("web", Service::new(name, Source::ContainerAddress)).into()
    };
    let mut world = World::default();
    world.drain(&at(3), |_| naming("db", 7));
    world.drain(&at(5), |_| naming("cache", 8));
    world.drain(&at(6), |_| naming("cache", 8));
    let all = [row("web", "cache", "10.0.0.2", 3), row("web", "db", "10.0.0.2", 3)];
    assert_eq!(world.seen(), all);
}

#[test]
fn dns_lookups_alone_are_no_flow() {
    let mut world = World::default();
    let named = |_: &Edge| labels("web", Service::new("resolver", Source::Address));
    let mut lookup_results = OnDemand::EMPTY;
    lookup_results.observe(1);
    let mut edge = edge(4, ROLE_CLIENT, "10.0.0.1", "10.0.0.53", 0);
    Arc::make_mut(&mut edge.counters).lookup_results = lookup_results;
    world.drain(std::slice::from_ref(&edge), named);
    assert_eq!(world.seen(), []);
    // A connection for a response that is too large for a datagram is one.
    Arc::make_mut(&mut edge.counters).opened = 1;
    world.drain(&[edge], named);
    assert_eq!(world.seen(), [row("web", "resolver", "10.0.0.53", 1)]);
}

#[test]
fn what_a_user_can_have_made_up_is_no_flow() {
    let mut world = World::default();
    let doubted = |_: &Edge| EdgeLabels {
        unverified_user: Some(1500),
        ..labels("web", Service::new("db", Source::Listener))
    };
    world.drain(&[edge(4, ROLE_CLIENT, "10.0.0.1", "10.0.0.2", 3)], doubted);
    assert_eq!(world.seen(), []);
}

#[test]
fn in_a_full_table_the_flows_seen_longest_ago_give_way_and_are_counted() {
    let mut world = World::default();
    let name = |edge: &Edge| {
        labels(&format!("client-{}", edge.slot), Service::new("db", Source::Listener))
    };
    let all = |from: u32, to: u32, n| -> Vec<Edge> {
        (from..to).map(|slot| edge(slot, ROLE_CLIENT, "10.0.0.1", "10.0.0.2", n)).collect()
    };
    world.drain(&all(4, 104, 1), name);
    let mut edges = all(4, 104, 1);
    edges.extend(all(104, MOST as u32 + 4, 1));
    world.drain(&edges, name);
    assert_eq!((world.seen().len(), world.flows.view().forgotten), (MOST, 0));
    edges.extend(all(MOST as u32 + 4, MOST as u32 + 5, 1));
    world.drain(&edges, name);
    let seen = world.seen();
    assert_eq!(world.flows.view().forgotten, GIVE_WAY as u64);
    assert_eq!(seen.len(), MOST + 1 - GIVE_WAY);
    // The first hundred were older than all others.
    assert!(!seen.iter().any(|(client, ..)| client == "client-50"));
    assert!(seen.iter().any(|(client, ..)| *client == format!("client-{}", MOST + 4)));
}
