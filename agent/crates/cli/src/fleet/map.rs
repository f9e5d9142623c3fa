//! Maps of several hosts: an edge that both its hosts drew is drawn once, with the client's numbers.

use std::collections::{BTreeMap, BTreeSet};

use api_types::{Map, MapEdge, MapNode, Role};

use super::addresses::{Book, Caller, Ends};
use super::edges::higher;
use super::{Combine, Host, json, together};

impl Combine for Map {
    fn combine(
        answers: Vec<(usize, Self)>,
        book: &Book,
        hosts: &[Host],
    ) -> serde_json::Result<(Self, String)> {
        let timestamp = answers.iter().map(|(_, one)| one.timestamp).max();
        let window = together(answers.iter().map(|(_, one)| one.window));
        let (Some(timestamp), Some(window)) = (timestamp, window) else {
            return Err(serde::ser::Error::custom("no host has answered"));
        };
        let unattributed_connections =
            answers.iter().map(|(_, one)| one.unattributed_connections).sum();
        let mut nodes: BTreeSet<(String, String)> = BTreeSet::new();
        let mut drawn: BTreeMap<Ends, Vec<MapEdge>> = BTreeMap::new();
        for (host, answer) in answers {
            for mut edge in answer.edges {
                if name_ends(host, &mut edge, book) {
                    drawn.entry(ends(&edge)).or_default().push(edge);
                }
            }
            for MapNode { namespace, name } in answer.nodes {
                let node = (namespace, name);
                // What has another name on its own host is a node by that.
                if book.service(host, &node).is_none() {
                    nodes.insert(node);
                }
            }
        }
        let edges: Vec<MapEdge> = drawn.into_values().filter_map(one_of).collect();
        for edge in &edges {
            nodes.insert((edge.client_namespace.clone(), edge.client.clone()));
            nodes.insert((edge.server_namespace.clone(), edge.server.clone()));
        }
        let nodes = nodes.into_iter().map(|(namespace, name)| MapNode { namespace, name });
        let nodes = nodes.collect();
        let map = Self { timestamp, window, nodes, edges, unattributed_connections };
        let json = json(&map, hosts)?;
        Ok((map, json))
    }
}

fn ends(edge: &MapEdge) -> Ends {
    let client = (edge.client_namespace.clone(), edge.client.clone());
    (client, (edge.server_namespace.clone(), edge.server.clone()), edge.port)
}

/// Gives the end on another host the name that it has there; whether the edge is to be drawn.
fn name_ends(host: usize, edge: &mut MapEdge, book: &Book) -> bool {
    let known = ends(edge);
    if let Some(server) = book.server(host, &known) {
        edge.server.clone_from(&server.name);
        edge.server_namespace.clone_from(&server.namespace);
    }
    match book.client(host, &known) {
        Some(Caller::Is(client)) => {
            edge.client.clone_from(&client.name);
            edge.client_namespace.clone_from(&client.namespace);
            true
        }
        Some(Caller::IsOneOfSeveral) => false,
        None => true,
    }
}

/// One edge of what several hosts drew: those that saw its clients count.
fn one_of(mut seen: Vec<MapEdge>) -> Option<MapEdge> {
    seen.sort_by_key(|one| !one.seen_by.contains(&Role::Client));
    let mut seen = seen.into_iter();
    let mut edge = seen.next()?;
    let by_client = edge.seen_by.contains(&Role::Client);
    for other in seen {
        if by_client && !other.seen_by.contains(&Role::Client) {
            edge.server_requests =
                Some(edge.server_requests.unwrap_or_default().saturating_add(other.requests));
            edge.server_p99_seconds = higher(edge.server_p99_seconds, other.p99_seconds);
            continue;
        }
        for (sum, n) in [
            (&mut edge.connections, other.connections),
            (&mut edge.failed, other.failed),
            (&mut edge.resets, other.resets),
            (&mut edge.aborts, other.aborts),
            (&mut edge.requests, other.requests),
            (&mut edge.unanswered, other.unanswered),
        ] {
            *sum = sum.saturating_add(n);
        }
        edge.connections_per_second += other.connections_per_second;
        edge.requests_per_second += other.requests_per_second;
        edge.p50_seconds = higher(edge.p50_seconds, other.p50_seconds);
        edge.p99_seconds = higher(edge.p99_seconds, other.p99_seconds);
        edge.server_requests = match (edge.server_requests, other.server_requests) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (known, None) | (None, known) => known,
        };
        edge.server_p99_seconds = higher(edge.server_p99_seconds, other.server_p99_seconds);
        edge.seen_by.extend(other.seen_by);
        edge.seen_by.sort_unstable();
        edge.seen_by.dedup();
    }
    Some(edge)
}
