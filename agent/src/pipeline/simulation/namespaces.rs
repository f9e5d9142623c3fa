//! What has ended: network namespaces whose numbers the next ones have, and servers.

use std::collections::BTreeMap;

use super::agent::{Agent, Bench};
use super::fake::{Fake, World};

/// More than the time between two looks at namespaces, seconds.
const LOOK: u64 = 31;

/// Connects by namespace of the client and of the server, by the role of the side that counts.
fn connects(agent: &mut Agent<'_>) -> BTreeMap<String, u64> {
    let metrics = agent.scrape(LOOK);
    let rows = metrics.series("portolan_tcp_connects_total").map(|(series, value)| {
        let label = |name: &str| {
            let (_, rest) = series.split_once(&format!("{name}=\"")).expect("a label");
            rest.split('"').next().expect("a value").trim_start_matches("netns-").to_owned()
        };
        let [client, server] = ["client_namespace", "server_namespace"].map(label);
        (format!("{} {client} {server}", label("role")), value as u64)
    });
    rows.filter(|(_, count)| *count > 0).collect()
}

fn rows(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
    rows.iter().map(|(row, count)| ((*row).to_owned(), *count)).collect()
}

#[test]
fn counts_and_open_connections_of_a_namespace_stay_its_own_when_another_one_has_its_number() {
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(8, 8)));
    agent.world().make_namespace(0, "old");
    agent.world().make_namespace(1, "far");
    agent.world().listen(1);
    agent.drain(LOOK);
    agent.world().connect(0, 1, true);
    agent.world().accept(1, 0);
    let expected = rows(&[("client old far", 1), ("server old far", 1)]);
    assert_eq!(connects(&mut agent), expected);
    // The client's namespace ends; its server does not learn of it.
    agent.world().close(0);
    agent.drain(1);
    agent.world().make_namespace(0, "next");
    for _ in 0..3 {
        assert_eq!(connects(&mut agent), expected, "nothing has happened in the next one");
    }
    let snapshot = agent.drain(1);
    let open: Vec<_> = snapshot.edges.iter().filter(|row| row.counters.active() > 0).collect();
    assert_eq!(open.len(), 1);
    assert_eq!(&*open[0].labels.client.namespace, "netns-old");
    // Now the same program acts there.
    agent.world().connect(0, 1, true);
    let expected = rows(&[("client old far", 1), ("server old far", 1), ("client next far", 1)]);
    assert_eq!(connects(&mut agent), expected);
}

#[test]
fn the_far_end_of_an_edge_stays_what_it_was_when_another_one_has_the_number_of_its_namespace() {
    let bench = Bench::new();
    let mut agent = bench.agent(Fake::new(World::new(8, 8)));
    agent.world().make_namespace(0, "old");
    agent.world().make_namespace(1, "far");
    agent.world().resolve(0, 1);
    agent.drain(LOOK);
    agent.world().connect(0, 1, true);
    let servers =
        |agent: &mut Agent<'_>| agent.scrape(LOOK).by("portolan_tcp_connects_total", "server");
    let expected = BTreeMap::from([("host-1.example".to_owned(), 1)]);
    assert_eq!(servers(&mut agent), expected);
    agent.world().close(0);
    agent.world().make_namespace(0, "next");
    agent.drain(LOOK);
    // In the next one the address is another's: from here a program of this host is there.
    agent.world().listen(1);
    assert_eq!(servers(&mut agent), expected);
    agent.world().connect(0, 1, true);
    let expected = BTreeMap::from([("host-1.example".to_owned(), 1), ("program1".to_owned(), 1)]);
    assert_eq!(servers(&mut agent), expected);
}
