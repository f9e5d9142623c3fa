//! Relations through late names, two sides of one connection, and the caps.

use super::*;
use crate::delta::Stage;
use crate::reclaim::Room;
use agent_common::address;
use agent_common::counters::EdgeCounters;
use agent_common::drained::{Edge, Table};
use agent_common::edge::EdgeKey;
use proptest::prelude::*;

fn ip(text: &str) -> address::Address {
    address::from_ip(text.parse::<IpAddr>().expect("an address"))
}

/// A client's row with these numbers of connections and requests.
pub(crate) fn edge(slot: u32, born_us: u64, remote: &str, connections: u64, requests: u64) -> Edge {
    let remote = ip(remote);
    let key = EdgeKey { owner: 1, port: 80, role: ROLE_CLIENT, zero: 0, remote };
    let mut counters = EdgeCounters { opened: connections, ..EdgeCounters::ZERO };
    for _ in 0..requests {
        counters.request.observe(1000);
    }
    Edge {
        table: Table::Edges,
        slot,
        key,
        local: ip("10.0.0.1"),
        remote,
        born_us,
        counters: Arc::new(counters),
    }
}

pub(crate) fn labels(client: &str, server: &str) -> Arc<EdgeLabels> {
    let server = Service::new(server, Source::Listener);
    let client = Service::new(client, Source::Process);
    Arc::new(EdgeLabels::new(client, server, 80, Role::Client))
}

/// A delta stage and what is behind it.
pub(crate) struct Drains {
    stage: Stage,
    pub(crate) relations: Relations,
}

impl Drains {
    fn new(started_us: u64) -> Self {
        Self { stage: Stage::default(), relations: Relations::new(started_us) }
    }

    /// A drain of these edges, with the names that `labels` gives to each.
    fn take(&mut self, now_us: u64, edges: &[Edge], labels: impl Fn(&Edge) -> Arc<EdgeLabels>) {
        let name = |edge: &Edge| EdgeLabels::clone(&labels(edge));
        let deltas = self.stage.take(now_us / 1_000_000, edges, Room::of(100), name);
        self.relations.update(now_us, &deltas.closed, &deltas.edges);
    }
}

/// The view after these drains, a second apart.
pub(crate) fn after(drains: &[(Vec<Edge>, Arc<EdgeLabels>)]) -> RelationsView {
    let mut all = Drains::new(1);
    let mut now_us = 1_000_000;
    for (edges, labels) in drains {
        now_us += 1_000_000;
        all.take(now_us, edges, |_| labels.clone());
    }
    let mut view = all.relations.view(now_us);
    view.rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    view
}

#[test]
fn backends_of_one_server_are_apart() {
    let edges = vec![edge(4, 2, "10.0.0.2", 3, 30), edge(5, 2, "10.0.0.3", 1, 10)];
    let view = after(&[(edges, labels("web", "api"))]);
    let seen: Vec<_> = view
        .rows
        .iter()
        .map(|(r, h)| (r.backend.to_string(), h.total.connections, h.total.requests.count()))
        .collect();
    assert_eq!(seen, [("10.0.0.2:80".into(), 3, 30), ("10.0.0.3:80".into(), 1, 10)]);
}

#[test]
fn a_slot_used_again_adds_what_it_counts_anew() {
    let named = labels("web", "api");
    let stays = edge(5, 2, "10.0.0.2", 1, 1);
    let view = after(&[
        (vec![edge(4, 2, "10.0.0.2", 3, 30), stays.clone()], named.clone()),
        (vec![stays.clone()], named.clone()),
        (vec![edge(4, 9, "10.0.0.2", 2, 5), stays], named),
    ]);
    assert_eq!(view.rows.len(), 1);
    let total = &view.rows[0].1.total;
    assert_eq!((total.connections, total.requests.count()), (6, 36));
}

#[test]
fn what_an_earlier_agent_counted_is_in_no_window() {
    let mut drains = Drains::new(50_000_000);
    let named = labels("web", "api");
    let mut edges = vec![edge(4, 20_000_000, "10.0.0.2", 3, 0)];
    drains.take(51_000_000, &edges, |_| named.clone());
    Arc::make_mut(&mut edges[0].counters).opened = 4;
    drains.take(52_000_000, &edges, |_| named.clone());
    let view = drains.relations.view(52_000_000);
    let history = &view.rows[0].1;
    assert_eq!((history.total.connections, history.last(52, 300).connections), (4, 1));
    assert_eq!(view.since, 20);
}

#[test]
fn too_many_backends_fold_into_one_and_sums_stay() {
    let edges: Vec<Edge> = (0..100).map(|i| edge(4 + i, 2, &format!("10.0.1.{i}"), 1, 0)).collect();
    let view = after(&[(edges, labels("web", "api"))]);
    assert_eq!(view.rows.len(), MAX_BACKENDS + 1);
    let of = |other: bool| -> u64 {
        let rows = view.rows.iter().filter(|(r, _)| (r.backend == Backend::Other) == other);
        rows.map(|(_, history)| history.total.connections).sum()
    };
    assert_eq!((of(false), of(true)), (64, 36));
}

proptest! {
    /// However edges are named: what they counted is in the rows.
    #[test]
    fn totals_are_the_sum_over_edges(
        steps in prop::collection::vec((0u32..5, 0u64..4, 0u64..4, 0usize..3), 1..50)
    ) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let mut drains = Drains::new(1);
        let mut edges: Vec<Edge> = (0..5).map(|i| edge(4 + i, 2, "10.0.0.2", 0, 0)).collect();
        let mut names = [0; 5];
        let (mut connections, mut requests) = (0, 0);
        for (second, (slot, more, asked, name)) in steps.into_iter().enumerate() {
            let slot = slot as usize;
            let now_us = 2_000_000 + second as u64 * 1_000_000;
            let counters = Arc::make_mut(&mut edges[slot].counters);
            counters.opened += more;
            for _ in 0..asked {
                counters.request.observe(70);
            }
            connections += more;
            requests += asked;
            names[slot] = name;
            let labels: Vec<_> = names.iter().map(|name| labels("web", NAMES[*name])).collect();
            drains.take(now_us, &edges, |edge| labels[edge.slot as usize - 4].clone());
            let view = drains.relations.view(now_us);
            let sum = |of: fn(&Tally) -> u64| view.rows.iter().map(|(_, h)| of(&h.total)).sum::<u64>();
            prop_assert_eq!(sum(|tally| tally.connections), connections);
            prop_assert_eq!(sum(|tally| tally.requests.count()), requests);
        }
    }
}
