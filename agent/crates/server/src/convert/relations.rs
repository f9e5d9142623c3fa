//! The graph of services, the distribution of load, and segments.

use api_types::{
    Backend, Balance, BalanceGroup, Distribution, Map, MapEdge, MapNode, Segment, SegmentEvent,
    SegmentPair, Segments, Timestamp, Violation, ViolationReason, Window, WindowChoice,
};
use model::balance::{self, TOLERANCE};
use model::map::{Graph, Link, Traffic};
use model::relations::{Ends, ServiceName};
use model::segments::{Declared, Policy, Reason, Verdict};
use model::snapshot::Snapshot;
use model::violations::{Between, Event, InWindow, SegmentsView};

use super::ToApi;
use super::edges::since_start;

/// The map that `snapshot` shows of the last `window` seconds, or since the agent started: of
/// applications, or around the services that are asked for, whatever they are.
pub fn map(snapshot: &Snapshot, window: Option<u64>, services: &[String]) -> Map {
    let related = &snapshot.related;
    let graph = Graph::new(&related.relations, window);
    let graph = if services.is_empty() {
        graph.of_applications(&related.directory.classes)
    } else {
        graph.around(services)
    };
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let window = Window::before(timestamp, graph.seconds as f64);
    drawn(timestamp, window, graph)
}

/// A graph of what happened in this window.
pub fn drawn(timestamp: Timestamp, window: Window, graph: Graph) -> Map {
    let Graph { seconds: _, nodes, edges, not_drawn } = graph;
    Map {
        timestamp,
        window,
        nodes: nodes.iter().map(ToApi::to_api).collect(),
        edges: edges.into_iter().map(map_edge).collect(),
        unattributed_connections: not_drawn,
    }
}

/// The shares that `snapshot` shows of the last `window` seconds, or since the agent started.
pub fn balance(snapshot: &Snapshot, window: Option<u64>, services: &[String]) -> Balance {
    let related = &snapshot.related;
    let (groups, seconds) =
        balance::groups(&related.relations, window, &related.weights, &related.known);
    let is_wanted = |name: &ServiceName| {
        services.iter().any(|service| **service == *name.name || *service == name.to_string())
    };
    let groups = groups
        .into_iter()
        .filter(|group| services.is_empty() || is_wanted(&group.server))
        .map(balance_group)
        .collect();
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let window = Window::before(timestamp, seconds as f64);
    Balance { timestamp, window, tolerance: TOLERANCE, groups }
}

/// The response for `view`, taken with `snapshot`, over a window.
pub fn segments(snapshot: &Snapshot, view: &SegmentsView, window: WindowChoice) -> Segments {
    let SegmentsView { policy, events, dropped_events, steps, folded: _, unverified: _, .. } = view;
    let InWindow { cells, rows, seconds } = match window {
        WindowChoice::Last(seconds) => steps.last(seconds),
        WindowChoice::Start => InWindow {
            cells: view.cells.clone(),
            rows: view.rows.clone(),
            seconds: since_start(snapshot),
        },
    };
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    let mut matrix = Vec::new();
    for client in policy.with_outside() {
        for server in policy.with_outside() {
            let seen = cells.iter().find(|(cell, _)| *cell == (client, server));
            let connections = seen.map_or(0, |(_, connections)| *connections);
            let verdict = policy.verdict(client, server);
            if connections > 0 || verdict != Verdict::NotJudged {
                matrix.push(SegmentPair {
                    client_segment: policy.name(client).to_string(),
                    server_segment: policy.name(server).to_string(),
                    verdict: verdict.to_api(),
                    require_tls: policy.requires_tls(client, server),
                    connections,
                });
            }
        }
    }
    Segments {
        timestamp,
        window: Window::before(timestamp, seconds),
        segments: declared(policy),
        matrix,
        violations: rows.iter().map(violation).collect(),
        events: events.iter().map(|event| event.to_api()).collect(),
        dropped_events: *dropped_events,
    }
}

fn map_edge(link: Link) -> MapEdge {
    let Link { client, server, port, traffic } = link;
    let Traffic {
        seen_by,
        connections,
        failed,
        resets,
        aborts,
        requests,
        unanswered,
        connections_per_second,
        requests_per_second,
        p50_seconds,
        p99_seconds,
        server_requests,
        server_p99_seconds,
    } = traffic;
    MapEdge {
        client: client.name.to_string(),
        client_namespace: client.namespace.to_string(),
        server: server.name.to_string(),
        server_namespace: server.namespace.to_string(),
        port,
        seen_by: seen_by.iter().map(ToApi::to_api).collect(),
        connections,
        failed,
        resets,
        aborts,
        requests,
        unanswered,
        connections_per_second,
        requests_per_second,
        p50_seconds,
        p99_seconds,
        server_requests,
        server_p99_seconds,
    }
}

fn balance_group(group: balance::Group) -> BalanceGroup {
    let balance::Group { client, server, port, role, backends, connections, requests } = group;
    BalanceGroup {
        client: client.name.to_string(),
        client_namespace: client.namespace.to_string(),
        server: server.name.to_string(),
        server_namespace: server.namespace.to_string(),
        port,
        role: role.to_api(),
        connections: connections.to_api(),
        requests: requests.to_api(),
        backends: backends.into_iter().map(backend).collect(),
    }
}

fn backend(share: balance::Share) -> Backend {
    let balance::Share {
        backend,
        instance,
        expected_share,
        connections,
        connections_share,
        failed,
        requests,
        requests_share,
        unanswered,
    } = share;
    Backend {
        backend,
        instance,
        expected_share,
        connections,
        connections_share,
        failed,
        requests,
        requests_share,
        unanswered,
    }
}

fn violation((between, connections): &(Between, u64)) -> Violation {
    let Between { reason, client_segment, server_segment, ends } = between;
    let Ends { client, client_namespace, server, server_namespace, port } = ends;
    Violation {
        reason: reason.to_api(),
        client_segment: client_segment.to_string(),
        server_segment: server_segment.to_string(),
        client: client.to_string(),
        client_namespace: client_namespace.to_string(),
        server: server.to_string(),
        server_namespace: server_namespace.to_string(),
        port: *port,
        connections: *connections,
    }
}

impl ToApi for ServiceName {
    type Shape = MapNode;

    fn to_api(&self) -> MapNode {
        let Self { namespace, name } = self;
        MapNode { namespace: namespace.to_string(), name: name.to_string() }
    }
}

impl ToApi for balance::Spread {
    type Shape = Distribution;

    fn to_api(&self) -> Distribution {
        let Self { total, minimum, deviation, verdict } = *self;
        Distribution { total, minimum, deviation, verdict: verdict.to_api() }
    }
}

impl ToApi for Reason {
    type Shape = ViolationReason;

    fn to_api(&self) -> ViolationReason {
        match self {
            Self::NotAllowed => ViolationReason::NotAllowed,
            Self::Plaintext => ViolationReason::Plaintext,
        }
    }
}

impl ToApi for Event {
    type Shape = SegmentEvent;

    fn to_api(&self) -> SegmentEvent {
        let Between { reason, client_segment, server_segment, ends } = &self.between;
        SegmentEvent {
            reason: reason.to_api(),
            first_seen: Timestamp::from_seconds(self.first_seconds),
            last_seen: Timestamp::from_seconds(self.last_seconds),
            client_segment: client_segment.to_string(),
            server_segment: server_segment.to_string(),
            client: ends.client.to_string(),
            client_namespace: ends.client_namespace.to_string(),
            server: ends.server.to_string(),
            server_namespace: ends.server_namespace.to_string(),
            port: ends.port,
            client_address: self.client_address,
            server_address: self.server_address,
            connections: self.connections,
        }
    }
}

fn declared(policy: &Policy) -> Vec<Segment> {
    let declared = policy.segments().map(|segment| {
        let name = policy.name(segment);
        let mut shape = Segment {
            name: name.to_string(),
            networks: Vec::new(),
            namespaces: Vec::new(),
            services: Vec::new(),
        };
        for declared in policy.declared() {
            match declared {
                Declared::Network(of, network) if *of == name => {
                    shape.networks.push(network.to_string());
                }
                Declared::Namespace(of, member) if *of == name => {
                    shape.namespaces.push(member.to_string());
                }
                Declared::Service(of, member) if *of == name => {
                    shape.services.push(member.to_string());
                }
                _ => {}
            }
        }
        shape
    });
    declared.collect()
}
