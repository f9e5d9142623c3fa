//! The JSON of map, balance and segments. Fields are only ever added.

use serde::{Deserialize, Serialize};

use model::balance::{self, TOLERANCE};
use model::map::{Graph, Link, Traffic};
use model::relations::{Ends, ServiceName};
use model::segments::{Declared, Policy, Verdict};
use model::snapshot::{Role, Snapshot};
use model::violations::{Between, Event, SegmentsView};

/// `/api/v1/map`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// What time the numbers are about, seconds up to then.
    pub seconds: u64,
    /// Services, sorted.
    pub nodes: Vec<ServiceName>,
    /// Who talks to whom, sorted; each connection once.
    pub edges: Vec<MapEdge>,
    /// Connections that found no row of their own and so are in no edge.
    pub not_drawn: u64,
}

/// What one service does with another on one port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapEdge {
    /// The two services.
    #[serde(flatten)]
    pub ends: Ends,
    /// What runs between them.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// `/api/v1/balance`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// What time the numbers are about, seconds up to then.
    pub seconds: u64,
    /// The largest deviation of a share that is still balanced.
    pub tolerance: f64,
    /// Servers with a name, by client.
    pub groups: Vec<BalanceGroup>,
}

/// The backends of one server for one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalanceGroup {
    /// The two services.
    #[serde(flatten)]
    pub ends: Ends,
    /// The client's side saw it, or the server's for clients of other hosts.
    pub role: Role,
    /// How connections spread.
    pub connections: balance::Spread,
    /// How requests spread.
    pub requests: balance::Spread,
    /// The backends, by their address.
    pub backends: Vec<balance::Share>,
}

/// `/api/v1/segments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segments {
    /// When the snapshot was taken, seconds since the Unix epoch.
    pub taken_seconds: f64,
    /// The declared segments.
    pub segments: Vec<Segment>,
    /// Every pair that is allowed or was seen, and every other that is judged.
    pub matrix: Vec<Cell>,
    /// Connections that are not allowed, by their ends, since the agent started.
    pub violations: Vec<Violation>,
    /// The latest of them with both addresses, oldest first; those of one edge within a minute are
    /// one event.
    pub events: Vec<Event>,
    /// Events that were dropped for later ones.
    pub dropped_events: u64,
}

/// One declared segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// Its networks.
    pub networks: Vec<String>,
    /// Its namespaces.
    pub namespaces: Vec<String>,
    /// Its services.
    pub services: Vec<String>,
}

/// One pair of segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Segment of who connects; `outside` for those in none.
    pub client_segment: String,
    /// Segment of who is connected to.
    pub server_segment: String,
    /// What is declared of it.
    pub verdict: Verdict,
    /// Connections seen, since the agent started.
    pub connections: u64,
}

/// Connections of one pair of services that are not allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Who with whom, and their segments.
    #[serde(flatten)]
    pub between: Between,
    /// How many.
    pub connections: u64,
}

// === impl Map ===

impl Map {
    /// The map that `snapshot` shows of the last `window` seconds, or of all the time.
    pub fn new(snapshot: &Snapshot, window: Option<u64>, services: &[String]) -> Self {
        let graph = Graph::new(&snapshot.related.relations, window).around(services);
        let Graph { seconds, nodes, edges, not_drawn } = graph;
        let edges = edges.into_iter().map(MapEdge::from).collect();
        Self { taken_seconds: snapshot.taken_seconds, seconds, nodes, edges, not_drawn }
    }
}

impl From<Link> for MapEdge {
    fn from(link: Link) -> Self {
        let Link { client, server, port, traffic } = link;
        Self { ends: Ends::new(client, server, port), traffic }
    }
}

// === impl Balance ===

impl Balance {
    /// The shares that `snapshot` shows of the last `window` seconds.
    pub fn new(snapshot: &Snapshot, window: u64, services: &[String]) -> Self {
        let related = &snapshot.related;
        let (groups, seconds) =
            balance::groups(&related.relations, window, &related.weights, &related.known);
        let is_wanted = |name: &ServiceName| {
            services.iter().any(|service| **service == *name.name || *service == name.to_string())
        };
        let groups = groups
            .into_iter()
            .filter(|group| services.is_empty() || is_wanted(&group.server))
            .map(BalanceGroup::from)
            .collect();
        Self { taken_seconds: snapshot.taken_seconds, seconds, tolerance: TOLERANCE, groups }
    }
}

impl From<balance::Group> for BalanceGroup {
    fn from(group: balance::Group) -> Self {
        let balance::Group { client, server, port, role, backends, connections, requests } = group;
        Self { ends: Ends::new(client, server, port), role, connections, requests, backends }
    }
}

// === impl Segments ===

impl Segments {
    /// What `view`, taken with `snapshot`, shows.
    pub fn new(snapshot: &Snapshot, view: &SegmentsView) -> Self {
        let SegmentsView { policy, cells, rows, events, dropped_events, folded: _ } = view;
        let mut matrix = Vec::new();
        for client in policy.with_outside() {
            for server in policy.with_outside() {
                let seen = cells.iter().find(|(cell, _)| *cell == (client, server));
                let connections = seen.map_or(0, |(_, connections)| *connections);
                let verdict = policy.verdict(client, server);
                if connections > 0 || verdict != Verdict::NotJudged {
                    matrix.push(Cell {
                        client_segment: policy.name(client).to_string(),
                        server_segment: policy.name(server).to_string(),
                        verdict,
                        connections,
                    });
                }
            }
        }
        Self {
            taken_seconds: snapshot.taken_seconds,
            segments: declared(policy),
            matrix,
            violations: rows.iter().map(Violation::from).collect(),
            events: events.iter().map(|event| Event::clone(event)).collect(),
            dropped_events: *dropped_events,
        }
    }
}

impl From<&(Between, u64)> for Violation {
    fn from((between, connections): &(Between, u64)) -> Self {
        Self { between: between.clone(), connections: *connections }
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
