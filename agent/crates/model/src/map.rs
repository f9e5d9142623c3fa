//! The map: services as nodes, connections between them as edges, each connection once.
//!
//! An edge that both sides of this host saw has the client's numbers, which include the network;
//! the server's measurements are in separate fields.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::directory::{Class, Classes};
use super::relations::{RelationsView, ServiceName};
use super::snapshot::Role;
use super::tally::{KEEP_SECONDS, Merge as _, Tally};

/// Services and the traffic between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The time that the numbers cover, seconds up to now.
    pub seconds: u64,
    /// Services, sorted.
    pub nodes: Vec<ServiceName>,
    /// Edges, sorted by their ends.
    pub edges: Vec<Link>,
    /// Connections that found no row of their own and so are in no edge.
    pub not_drawn: u64,
}

/// An edge of the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The client.
    pub client: ServiceName,
    /// The server.
    pub server: ServiceName,
    /// The server's port.
    pub port: u16,
    /// The traffic.
    pub traffic: Traffic,
}

/// Traffic of one service with another on one port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// The side that counted: the client's, the server's (for clients of other hosts), or both, for
    /// clients of both kinds.
    pub seen_by: Vec<Role>,
    /// Connections that became established.
    pub connections: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Resets in either direction.
    pub resets: u64,
    /// Established connections that a kernel gave up because the other end did not answer.
    pub aborts: u64,
    /// Requests.
    pub requests: u64,
    /// Requests without a response.
    pub unanswered: u64,
    /// Connections in a second.
    pub connections_per_second: f64,
    /// Requests in a second.
    pub requests_per_second: f64,
    /// Half of the requests took at most this long; null without any.
    pub p50_seconds: Option<f64>,
    /// 99 of 100 requests took at most this long.
    pub p99_seconds: Option<f64>,
    /// Requests of the same connections as counted by the server's side, if it is on this host.
    pub server_requests: Option<u64>,
    /// 99 of 100 of those took at most this long.
    pub server_p99_seconds: Option<f64>,
}

impl Graph {
    /// The graph of `view` for the last `window` seconds, or since the start.
    pub fn new(view: &RelationsView, window: Option<u64>) -> Self {
        let seconds = view.seconds(window);
        let mut drawn: BTreeMap<(&ServiceName, &ServiceName, u16), Drawn> = BTreeMap::new();
        let mut not_drawn = 0;
        for (relation, history) in &view.rows {
            let tally = history.within(view.now, window);
            if relation.port == 0 {
                not_drawn += if relation.counts { tally.connections } else { 0 };
                continue;
            }
            let key = (&relation.client, &relation.server, relation.port);
            let drawn = drawn.entry(key).or_default();
            if !relation.counts {
                drawn.server.merge(&tally);
            } else if !tally.is_empty() {
                drawn.counted.merge(&tally);
                drawn.seen_by.insert(relation.role);
            }
        }
        let edges: Vec<Link> = drawn
            .into_iter()
            .filter(|(_, drawn)| !drawn.counted.is_empty())
            .map(|((client, server, port), drawn)| Link {
                client: client.clone(),
                server: server.clone(),
                port,
                traffic: drawn.traffic(seconds),
            })
            .collect();
        let ends = edges.iter().flat_map(|edge| [&edge.client, &edge.server]);
        let nodes: BTreeSet<_> = ends.cloned().collect();
        Self { seconds, nodes: nodes.into_iter().collect(), edges, not_drawn }
    }

    /// Without the edges of services that monitor or check others, and of those of the system.
    #[must_use]
    pub fn of_applications(mut self, classes: &Classes) -> Self {
        let others: BTreeSet<ServiceName> = self
            .nodes
            .iter()
            .filter(|node| classes.of(&node.name, &node.namespace) != Class::Application)
            .cloned()
            .collect();
        self.edges.retain(|edge| !others.contains(&edge.client) && !others.contains(&edge.server));
        let ends = self.edges.iter().flat_map(|edge| [&edge.client, &edge.server]);
        let left: BTreeSet<ServiceName> = ends.cloned().collect();
        self.nodes.retain(|name| left.contains(name));
        self
    }

    /// The longest window there is, seconds.
    pub const LONGEST_WINDOW: u64 = KEEP_SECONDS;

    /// Only the edges that lead to or from these services, directly or indirectly.
    #[must_use]
    pub fn around(mut self, services: &[String]) -> Self {
        if services.is_empty() {
            return self;
        }
        let is_meant = |name: &ServiceName| {
            services.iter().any(|service| **service == *name.name || *service == name.to_string())
        };
        let start: BTreeSet<ServiceName> =
            self.nodes.iter().filter(|name| is_meant(name)).cloned().collect();
        let spread = |step: fn(&Link) -> (&ServiceName, &ServiceName)| {
            let mut reached = start.clone();
            loop {
                let next = self.edges.iter().map(step);
                let new: Vec<ServiceName> = next
                    .filter(|(from, to)| reached.contains(*from) && !reached.contains(*to))
                    .map(|(_, to)| to.clone())
                    .collect();
                if new.is_empty() {
                    return reached;
                }
                reached.extend(new);
            }
        };
        let after = spread(|edge| (&edge.client, &edge.server));
        let before = spread(|edge| (&edge.server, &edge.client));
        self.edges.retain(|edge| {
            (after.contains(&edge.client) && after.contains(&edge.server))
                || (before.contains(&edge.client) && before.contains(&edge.server))
        });
        let ends = self.edges.iter().flat_map(|edge| [&edge.client, &edge.server]);
        let left: BTreeSet<ServiceName> = ends.cloned().collect();
        self.nodes.retain(|name| left.contains(name) || start.contains(name));
        self
    }
}

/// An edge while it is summed up.
#[derive(Default)]
struct Drawn {
    counted: Tally,
    server: Tally,
    seen_by: BTreeSet<Role>,
}

impl Drawn {
    fn traffic(self, seconds: u64) -> Traffic {
        let Self { counted, server, seen_by } = self;
        let rate = |n: u64| n as f64 / seconds.max(1) as f64;
        let server_requests = server.requests.count();
        Traffic {
            seen_by: seen_by.into_iter().collect(),
            connections: counted.connections,
            failed: counted.failed,
            resets: counted.resets,
            aborts: counted.aborts,
            requests: counted.requests.count(),
            unanswered: counted.unanswered,
            connections_per_second: rate(counted.connections),
            requests_per_second: rate(counted.requests.count()),
            p50_seconds: counted.requests.quantile_seconds(0.5),
            p99_seconds: counted.requests.quantile_seconds(0.99),
            server_requests: (!server.is_empty()).then_some(server_requests),
            server_p99_seconds: server.requests.quantile_seconds(0.99),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::directory::Pattern;
    use crate::fixture::tally;
    use crate::relations::{Backend, Relation};
    use crate::tally::History;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn name(text: &str) -> ServiceName {
        ServiceName { namespace: "".into(), name: text.into() }
    }

    /// A relation with this many connections and requests.
    fn row(
        client: &str,
        server: &str,
        role: Role,
        counts: bool,
        (connections, requests): (u64, u64),
    ) -> (Relation, Arc<History>) {
        let relation = Relation {
            client: name(client),
            server: name(server),
            port: 80,
            role,
            counts,
            named: true,
            backend: Backend::Other,
        };
        let mut history = History::default();
        history.add(100, &tally(connections, requests));
        (relation, Arc::new(history))
    }

    pub(crate) fn view() -> RelationsView {
        RelationsView {
            now: 110,
            since: 100,
            rows: vec![
                row("internet", "web", Role::Server, true, (5, 50)),
                row("web", "api", Role::Client, true, (2, 40)),
                row("web", "api", Role::Server, false, (2, 40)),
                row("api", "redis", Role::Client, true, (1, 80)),
                row("cron", "redis", Role::Client, true, (1, 1)),
            ],
            folded: 0,
        }
    }

    #[test]
    fn two_sides_of_one_connection_are_drawn_once() {
        let graph = Graph::new(&view(), None);
        let edges: Vec<_> = graph
            .edges
            .iter()
            .map(|e| {
                let Traffic { connections, requests, server_requests, .. } = e.traffic;
                (&*e.client.name, &*e.server.name, connections, requests, server_requests)
            })
            .collect();
        assert_eq!(
            edges,
            [
                ("api", "redis", 1, 80, None),
                ("cron", "redis", 1, 1, None),
                ("internet", "web", 5, 50, None),
                ("web", "api", 2, 40, Some(40)),
            ]
        );
        assert_eq!(graph.nodes.len(), 5);
        assert_eq!(graph.seconds, 10);
        assert!((graph.edges[0].traffic.requests_per_second - 8.0).abs() < 1e-9);
        assert_eq!(graph.edges[0].traffic.p99_seconds, Some(0.000_995));
        assert_eq!(graph.edges[2].traffic.seen_by, [Role::Server]);
    }

    #[test]
    fn around_a_service_is_what_leads_there_and_away() {
        let check = |services: &[&str], expected: &[&str]| {
            let services: Vec<String> = services.iter().map(|s| (*s).to_owned()).collect();
            let graph = Graph::new(&view(), None).around(&services);
            let edges: Vec<String> =
                graph.edges.iter().map(|e| format!("{}>{}", e.client, e.server)).collect();
            assert_eq!(edges, expected, "{services:?}");
        };
        check(&["api"], &["api>redis", "internet>web", "web>api"]);
        check(&["redis"], &["api>redis", "cron>redis", "internet>web", "web>api"]);
        check(&["cron"], &["cron>redis"]);
        check(&["nobody"], &[]);
        check(&[], &["api>redis", "cron>redis", "internet>web", "web>api"]);
    }

    #[test]
    fn monitoring_and_the_system_are_left_out() {
        let all = |texts: &[&str]| texts.iter().filter_map(|text| Pattern::parse(text)).collect();
        let check = |monitoring: &[&str], system: &[&str], expected: &[&str], nodes: usize| {
            let classes =
                Classes { monitoring: all(monitoring), system: all(system), polled: Vec::new() };
            let graph = Graph::new(&view(), None).of_applications(&classes);
            let edges: Vec<String> =
                graph.edges.iter().map(|e| format!("{}>{}", e.client, e.server)).collect();
            assert_eq!(edges, expected, "{monitoring:?} {system:?}");
            assert_eq!(graph.nodes.len(), nodes);
        };
        check(&[], &[], &["api>redis", "cron>redis", "internet>web", "web>api"], 5);
        check(&[], &["cron"], &["api>redis", "internet>web", "web>api"], 4);
        check(&["redis"], &["shop/*"], &["internet>web", "web>api"], 3);
        check(&["*"], &[], &[], 0);
    }

    #[test]
    fn a_window_that_has_passed_draws_nothing() {
        let mut view = view();
        view.now += 1000;
        assert!(Graph::new(&view, Some(60)).edges.is_empty());
        assert_eq!(Graph::new(&view, None).edges.len(), 4);
    }

    proptest! {
        /// Everything that was counted is drawn once, whatever the names.
        #[test]
        fn the_graph_conserves_connections(
            rows in prop::collection::vec((0usize..3, 0usize..3, any::<bool>(), 0u64..9, 0u64..9), 0..20)
        ) {
            const NAMES: [&str; 3] = ["a", "b", "c"];
            let expected: u64 = rows.iter().filter(|r| r.2).map(|r| r.3).sum();
            let rows = rows
                .into_iter()
                .map(|(client, server, counts, connections, requests)| {
                    let role = if counts { Role::Client } else { Role::Server };
                    row(NAMES[client], NAMES[server], role, counts, (connections, requests))
                })
                .collect();
            let graph = Graph::new(&RelationsView { now: 110, since: 100, rows, folded: 0 }, None);
            prop_assert_eq!(graph.edges.iter().map(|e| e.traffic.connections).sum::<u64>(), expected);
        }
    }
}
