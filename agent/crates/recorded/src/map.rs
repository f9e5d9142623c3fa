//! The map around services, from edges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agent_common::reset::{CAUSE_NAMES, is_of_connection};
use api_types::{Edge, Edges, Map, Role};
use model::map::{Graph, Link, Traffic};
use model::relations::ServiceName;
use model::snapshot;
use server::convert;

/// An edge of the map, while it is put together.
#[derive(Default)]
struct Sides<'a> {
    /// The row that counts each of its connections once.
    counted: Vec<&'a Edge>,
    /// The server's row of the same connections.
    server: Option<&'a Edge>,
}

/// What leads to these services and away, directly or not, as the agent draws it. The edges are of
/// both sides, and of all services.
pub fn around(edges: &Edges, services: &[String]) -> Map {
    let mut drawn: BTreeMap<(ServiceName, ServiceName, u16), Sides<'_>> = BTreeMap::new();
    for edge in &edges.edges {
        let is_made_up = edge.unverified_user.is_some();
        if is_made_up || edge.port == 0 || !matches!(edge.role, Role::Client | Role::Server) {
            continue;
        }
        let (client, server) = (
            name(&edge.client_namespace, &edge.client),
            name(&edge.server_namespace, &edge.server),
        );
        let sides = drawn.entry((client, server, edge.port)).or_default();
        if edge.other_side {
            sides.server = Some(edge);
        } else {
            sides.counted.push(edge);
        }
    }
    let edges_of_map: Vec<Link> = drawn
        .into_iter()
        .filter_map(|((client, server, port), sides)| {
            let traffic = sides.traffic(edges.window.seconds)?;
            Some(Link { client, server, port, traffic })
        })
        .collect();
    let ends = edges_of_map.iter().flat_map(|edge| [&edge.client, &edge.server]);
    let nodes: BTreeSet<ServiceName> = ends.cloned().collect();
    let graph = Graph {
        seconds: edges.window.seconds as u64,
        nodes: nodes.into_iter().collect(),
        edges: edges_of_map,
        not_drawn: 0,
    };
    convert::drawn(edges.timestamp, edges.window, graph.around(services))
}

fn name(namespace: &str, name: &str) -> ServiceName {
    ServiceName { namespace: Arc::from(namespace), name: Arc::from(name) }
}

// === impl Sides ===

impl Sides<'_> {
    /// Nothing if nothing happened.
    fn traffic(&self, seconds: f64) -> Option<Traffic> {
        let Self { counted, server } = self;
        let sum = |of: fn(&Edge) -> u64| counted.iter().map(|edge| of(edge)).sum::<u64>();
        let highest = |of: fn(&Edge) -> Option<f64>| {
            counted.iter().filter_map(|edge| of(edge)).reduce(f64::max)
        };
        let (connections, requests) = (sum(|edge| edge.opened), sum(|edge| edge.request.count));
        let failed = sum(failed);
        let (resets, aborts) = (sum(resets), sum(|edge| edge.aborts.values().sum()));
        let unanswered = sum(|edge| edge.unanswered);
        if [connections, failed, resets, aborts, requests, unanswered] == [0; 6] {
            return None;
        }
        let mut seen_by: Vec<snapshot::Role> = counted
            .iter()
            .chain(server)
            .map(|edge| match edge.role {
                Role::Client => snapshot::Role::Client,
                _ => snapshot::Role::Server,
            })
            .collect();
        seen_by.sort_unstable();
        seen_by.dedup();
        let rate = |n: u64| n as f64 / seconds.max(1.0);
        Some(Traffic {
            seen_by,
            connections,
            failed,
            resets,
            aborts,
            requests,
            unanswered,
            connections_per_second: rate(connections),
            requests_per_second: rate(requests),
            p50_seconds: highest(|edge| edge.request.p50_seconds),
            p99_seconds: highest(|edge| edge.request.p99_seconds),
            server_requests: server.map(|edge| edge.request.count),
            server_p99_seconds: server.and_then(|edge| edge.request.p99_seconds),
        })
    }
}

/// Attempts to connect that failed.
fn failed(edge: &Edge) -> u64 {
    edge.connects.iter().filter(|(result, _)| *result != "ok").map(|(_, n)| n).sum()
}

/// Resets of established connections, in either direction.
fn resets(edge: &Edge) -> u64 {
    let is_counted = |name: &str| {
        let cause = CAUSE_NAMES.iter().position(|known| *known == name);
        cause.is_none_or(is_of_connection)
    };
    let both = edge.resets_received.iter().chain(&edge.resets_sent);
    both.filter(|(cause, _)| is_counted(cause)).map(|(_, n)| n).sum()
}
