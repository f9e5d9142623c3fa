//! `/api/v1/history`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Role, Timestamp, Window};

/// What edges or services counted, step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// When the numbers were read.
    pub timestamp: Timestamp,
    /// The time that the series cover; shorter than asked for if the agent has not run for so long,
    /// or if memory was short.
    pub window: Window,
    /// The series, the busiest first.
    pub series: Vec<Series>,
    /// Series that match and are left out because of `limit`.
    pub omitted: u64,
}

/// One edge, or one service as the server of all its edges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Series {
    /// The service that connects; null of a service.
    pub client: Option<String>,
    /// The namespace in which that name is unique; null of a service.
    pub client_namespace: Option<String>,
    /// The service that is connected to.
    pub server: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub server_namespace: String,
    /// The server's port; null of a service.
    pub port: Option<u16>,
    /// Which side counted; null of a service.
    pub role: Option<Role>,
    /// What was counted, oldest first. Times without anything have no point.
    pub points: Vec<Point>,
}

/// What was counted in one step: about a second in the last minute, about ten before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Point {
    /// When the step began.
    pub since: Timestamp,
    /// Its length.
    pub seconds: f64,
    /// Connects that succeeded.
    pub connects_ok: u64,
    /// Attempts to connect that failed.
    pub connects_failed: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests without a response.
    pub unanswered: u64,
    /// Median request latency; null without requests.
    pub p50_seconds: Option<f64>,
    /// 99th percentile of request latency.
    pub p99_seconds: Option<f64>,
    /// Resets of connections, sent and received.
    pub resets: u64,
    /// Connections that a kernel gave up.
    pub aborts: u64,
    /// Connection requests that a listener dropped.
    pub listen_overflows: u64,
    /// Retransmitted segments.
    pub retransmits: u64,
    /// Payload bytes sent by the side that counted.
    pub sent_bytes: u64,
    /// Payload bytes received by it.
    pub received_bytes: u64,
}
