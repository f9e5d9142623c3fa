//! `/api/v1/timeouts`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Finding, Latency, Role, Timestamp, Window};

/// After how long idle connections are closed, and after how long they are still used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Timeouts {
    /// When the numbers were read.
    pub timestamp: Timestamp,
    /// The time that the numbers cover, since the agent started by default: connections are idle for
    /// longer than a window lasts.
    pub window: Window,
    /// Edges with idle connections, each connection once, sorted by their labels.
    pub edges: Vec<EdgeTimeouts>,
    /// Edges with requests that were not answered, and what their servers call meanwhile, and so on:
    /// how long each client waits.
    #[serde(default)]
    pub waits: Vec<EdgeWaits>,
}

/// The idle connections of an edge. Idle is what nothing was sent or received on for at least half a
/// second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EdgeTimeouts {
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
    /// Which side counted.
    pub role: Role,
    /// What it means.
    pub verdict: KeepAlive,
    /// After how long the server closes idle connections: most of those that it closed were idle for
    /// so long. Null while that is not known.
    pub server_timeout_seconds: Option<f64>,
    /// The same of the client.
    pub client_timeout_seconds: Option<f64>,
    /// Idle connections that the server closed.
    pub closed_by_server: IdleTimes,
    /// Idle connections that the client closed.
    pub closed_by_client: IdleTimes,
    /// Idle connections on which the client sent a request again.
    pub reuse: IdleTimes,
    /// Request latency.
    pub request: Latency,
    /// Requests that were reset because the server had closed the idle connection.
    pub idle_reuse_resets: u64,
    /// What to do about it, if the verdict is `mismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub finding: Option<Finding>,
}

/// How long the client of an edge waits for a response before it gives up, as far as its requests
/// show that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EdgeWaits {
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
    /// Latency of the requests that were answered, on the client's side.
    pub request: Latency,
    /// Requests without a response, but for those while the server was stopping.
    pub unanswered: u64,
    /// Those that the server answered when the client was gone, as far as the agent sees both sides.
    pub late: u64,
    /// The client waits at least so long: one response took longer. Null without a response.
    pub at_least_seconds: Option<f64>,
    /// The client waits at most so long: several responses within this time were too late. Null while
    /// that is not known.
    pub at_most_seconds: Option<f64>,
    /// What to do about it, if the server waits longer for a service that it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub finding: Option<Finding>,
}

/// How long connections were idle.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct IdleTimes {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum_seconds: f64,
    /// The longest was at least so long, at most a third longer. Null without any.
    pub longest_seconds: Option<f64>,
}

/// What idle connections of an edge are in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeepAlive {
    /// Not enough of them were closed yet.
    Unknown,
    /// The client closes them before the server does: nothing is lost.
    ClientFirst,
    /// The server closes them first, but the client used none that was idle for half as long.
    ServerFirst,
    /// The server closes them first, and the client uses connections that were idle for half as long
    /// or longer: a request will meet a closed connection and be reset.
    Mismatch,
}
