//! `/api/v1/map`, `/api/v1/balance` and `/api/v1/segments`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Role, Timestamp, Window};

/// The graph of services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Map {
    /// When the numbers were read.
    pub timestamp: Timestamp,
    /// The time that the numbers cover.
    pub window: Window,
    /// Services, sorted.
    pub nodes: Vec<MapNode>,
    /// Clients, servers and their traffic, sorted; each connection counts once.
    pub edges: Vec<MapEdge>,
    /// Connections that found no row of their own and so are in no edge.
    pub unattributed_connections: u64,
}

/// A service in the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MapNode {
    /// The namespace in which the name is unique; empty on a plain host.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Traffic between two services on one port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MapEdge {
    /// The service that connects.
    pub client: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub client_namespace: String,
    /// The service that is connected to.
    pub server: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub server_namespace: String,
    /// The server's port.
    pub port: u16,
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
    /// Requests without a response: the connection ended, or the client gave up.
    pub unanswered: u64,
    /// Connections per second.
    pub connections_per_second: f64,
    /// Requests per second.
    pub requests_per_second: f64,
    /// Median request latency; null without requests.
    pub p50_seconds: Option<f64>,
    /// 99th percentile of request latency.
    pub p99_seconds: Option<f64>,
    /// Requests on the same connections as counted by the server's side, if it is on this host.
    pub server_requests: Option<u64>,
    /// 99th percentile of their latency.
    pub server_p99_seconds: Option<f64>,
}

/// How load is distributed over the backends of services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Balance {
    /// When the numbers were read.
    pub timestamp: Timestamp,
    /// The time that the numbers cover.
    pub window: Window,
    /// The largest deviation of a share that still counts as balanced.
    pub tolerance: f64,
    /// Servers with a name, by client.
    pub groups: Vec<BalanceGroup>,
}

/// The backends of one server for one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BalanceGroup {
    /// The service that connects.
    pub client: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub client_namespace: String,
    /// The service that is connected to.
    pub server: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub server_namespace: String,
    /// The server's port.
    pub port: u16,
    /// The side that counted: the client's, or the server's for clients of other hosts.
    pub role: Role,
    /// How connections are distributed.
    pub connections: Distribution,
    /// How requests are distributed.
    pub requests: Distribution,
    /// The backends, by their address.
    pub backends: Vec<Backend>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    /// Address and port; `other` for those beyond the limit.
    pub backend: String,
    /// The pod or container with that address, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub instance: Option<String>,
    /// Its expected share of the whole, 0 to 1.
    pub expected_share: f64,
    /// Connections in the window.
    pub connections: u64,
    /// Their share of all connections; null without any.
    pub connections_share: Option<f64>,
    /// Attempts to connect to it that failed, in the window.
    pub failed: u64,
    /// Requests in the window.
    pub requests: u64,
    /// Their share of all requests; null without any.
    pub requests_share: Option<f64>,
    /// Requests in the window that it did not answer.
    pub unanswered: u64,
}

/// How something is distributed over backends.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Distribution {
    /// All of it in the window.
    pub total: u64,
    /// Below this total, chance alone may move a share by the tolerance.
    pub minimum: u64,
    /// The largest deviation of a backend from its expected share; null without any sample.
    pub deviation: Option<f64>,
    /// Whether it is balanced.
    pub verdict: BalanceVerdict,
}

/// Whether something is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceVerdict {
    /// Every share is within the tolerance.
    Balanced,
    /// Some share is not.
    Unbalanced,
    /// Too few samples.
    TooFew,
}

/// Declared segments, and the connections between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Segments {
    /// When the numbers were read.
    pub timestamp: Timestamp,
    /// What `matrix` and `violations` are of.
    pub window: Window,
    /// The declared segments.
    pub segments: Vec<Segment>,
    /// Every pair that a rule is about or that was seen.
    pub matrix: Vec<SegmentPair>,
    /// Connections of the window that violate the rules, by their ends.
    pub violations: Vec<Violation>,
    /// The latest violations since the agent started, with both addresses, oldest first; those of one
    /// edge within a minute are one event.
    pub events: Vec<SegmentEvent>,
    /// Events that were dropped for later ones.
    pub dropped_events: u64,
}

/// One declared segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SegmentPair {
    /// The client's segment; `outside` for clients in none.
    pub client_segment: String,
    /// The server's segment.
    pub server_segment: String,
    /// The verdict of the rules.
    pub verdict: SegmentVerdict,
    /// Whether the rules demand TLS.
    pub require_tls: bool,
    /// Connections seen, since the agent started.
    pub connections: u64,
}

/// The verdict of the rules on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SegmentVerdict {
    /// The connection is allowed.
    Allowed,
    /// The connection is not allowed.
    Violation,
    /// An end is in no segment, and no rule is about that.
    NotJudged,
}

/// What is wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ViolationReason {
    /// Its segments may not connect.
    NotAllowed,
    /// It is in plain text, and the rules demand TLS.
    Plaintext,
}

/// Connections between two services that violate the rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Violation {
    /// What is wrong with them.
    pub reason: ViolationReason,
    /// The client's segment; `outside` for clients in none.
    pub client_segment: String,
    /// The server's segment.
    pub server_segment: String,
    /// The service that connects.
    pub client: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub client_namespace: String,
    /// The service that is connected to.
    pub server: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub server_namespace: String,
    /// The server's port.
    pub port: u16,
    /// How many.
    pub connections: u64,
}

/// Connections of one edge that violate the rules, for up to a minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SegmentEvent {
    /// What is wrong with them.
    pub reason: ViolationReason,
    /// When they were first seen.
    pub first_seen: Timestamp,
    /// When they were last seen.
    pub last_seen: Timestamp,
    /// The client's segment; `outside` for clients in none.
    pub client_segment: String,
    /// The server's segment.
    pub server_segment: String,
    /// The service that connects.
    pub client: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub client_namespace: String,
    /// The service that is connected to.
    pub server: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub server_namespace: String,
    /// The server's port.
    pub port: u16,
    /// The client's address; null for clients from outside the internal ranges.
    #[schema(value_type = Option<String>)]
    pub client_address: Option<IpAddr>,
    /// The server's address.
    #[schema(value_type = Option<String>)]
    pub server_address: Option<IpAddr>,
    /// How many connections.
    pub connections: u64,
}

impl ViolationReason {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not allowed",
            Self::Plaintext => "plain text",
        }
    }
}
