//! `/api/v1/edges` and `/api/v1/listeners`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Change, Kind, Protocol, Role, Source, Timestamp, Window};

/// Clients, servers and the traffic between them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Edges {
    /// When the numbers were read.
    pub timestamp: Timestamp,
    /// The time that the numbers cover; from `window=start` since the agent, or the kernel half that
    /// it adopted, started. What is so *now* (`active`, queues, `close_wait`) has no window.
    pub window: Window,
    /// The edges, sorted by their labels.
    pub edges: Vec<Edge>,
}

/// An edge, and what it counted in the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Edge {
    /// The service that connects.
    pub client: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub client_namespace: String,
    /// Kind of the client.
    pub client_kind: Kind,
    /// How the client's name was found.
    pub client_source: Source,
    /// The service that is connected to.
    pub server: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub server_namespace: String,
    /// Kind of the server.
    pub server_kind: Kind,
    /// How the server's name was found.
    pub server_source: Source,
    /// The Kubernetes Service or published port that the client connected to, if another service
    /// answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub virtual_service: Option<String>,
    /// The namespace in which that name is unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub virtual_service_namespace: Option<String>,
    /// The server's port; 0 on overflow rows.
    pub port: u16,
    /// Which side counted.
    pub role: Role,
    /// Whether the client's side of the same connections is an edge too: without these each
    /// connection is there once.
    pub other_side: bool,
    /// With `by=address`: the server's address and port as this side has it, `other` for those that
    /// found no row of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub address: Option<String>,
    /// What went wrong in the window, or is wrong now; what matters most is first.
    pub why: Vec<Cause>,
    /// What changed at the two services in the last ten minutes, latest first, five at most; only if
    /// there is a cause in `why`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes_before: Vec<Change>,
    /// The user who can have made this up: it happened in a network namespace that the user made, and
    /// is in no metric but `portolan_unverified_events_total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub unverified_user: Option<u32>,
    /// Ended attempts to connect by result. A result that is absent never happened; `ok` is always
    /// there.
    pub connects: BTreeMap<String, u64>,
    /// Established connections that have not ended.
    pub active: u64,
    /// Connections that became established, `preexisting` included.
    pub opened: u64,
    /// Established connections that ended.
    pub closed: u64,
    /// Pre-existing connections, established before the agent started.
    pub preexisting: u64,
    /// Payload bytes sent, without retransmissions.
    pub sent_bytes: u64,
    /// Payload bytes received in order.
    pub received_bytes: u64,
    /// Retransmitted segments.
    pub retransmits: u64,
    /// The same by phase of the connection; a phase that is absent had none.
    pub retransmits_by_phase: BTreeMap<String, u64>,
    /// Retransmission timeouts; 0 before Linux 6.7, which began to count them.
    pub timeouts: u64,
    /// Segments that the other end reported as received twice (DSACK).
    pub dsacks: u64,
    /// Time in which connections had data to send and were limited, by what limited them
    /// (`receive_window` of the other end, own `send_buffer`); a limit that is absent was never met.
    pub limited_seconds: BTreeMap<String, f64>,
    /// Payload bytes that arrived and that the program has not read, now. Null of a listener, and
    /// if sockets cannot be iterated over.
    pub receive_queue_bytes: Option<u64>,
    /// Payload bytes written and not acknowledged by the other end, now; likewise.
    pub send_queue_bytes: Option<u64>,
    /// Connections that the other end closed at least a minute ago and the program has not closed
    /// (CLOSE_WAIT); likewise.
    pub close_wait: Option<u64>,
    /// Resets sent by cause; a cause that is absent never occurred.
    pub resets_sent: BTreeMap<String, u64>,
    /// Resets received by cause; a cause that is absent never occurred.
    pub resets_received: BTreeMap<String, u64>,
    /// Established connections that this side's kernel gave up because the other end did not
    /// answer, by cause; a cause that is absent never occurred.
    pub aborts: BTreeMap<String, u64>,
    /// Requests without a response: the connection ended, or the client gave up.
    pub unanswered: u64,
    /// Likewise, while the server was stopping; not in `unanswered`.
    pub unanswered_stopping: u64,
    /// Requests that took at least half a second, one right after the other on a connection: long
    /// polling, or a slow server.
    pub waits: u64,
    /// Responses of the server by protocol (`http`, `postgresql`, `mysql`, `redis`) and status (`1xx` to
    /// `5xx`, `ok`, `error`), as its own host sees them: the first response of each exchange. On the
    /// client's side those of the same connections, if the server is on this host.
    #[serde(default)]
    pub responses: BTreeMap<String, BTreeMap<String, u64>>,
    /// Connections by what their server's first response showed: a protocol of `responses`, `http2`,
    /// `tls`, or `unknown`; likewise.
    #[serde(default)]
    pub protocols: BTreeMap<String, u64>,
    /// DNS lookups over UDP by type (`A`, `AAAA`, `PTR`, `SRV`, `TXT`, `MX`, `HTTPS`, `other`) and
    /// result: the code of the response (`NOERROR`, `NXDOMAIN`, `SERVFAIL`, `REFUSED`, `other`) or
    /// `timeout`. Of a client; the server is the resolver.
    #[serde(default)]
    pub dns: BTreeMap<String, BTreeMap<String, u64>>,
    /// Requests by protocol (`http`) and operation (the method), each one counted; likewise. Only of
    /// services in `protocols.services` of the agent's configuration.
    #[serde(default)]
    pub operations: BTreeMap<String, BTreeMap<String, OperationCounts>>,
    /// Requests by protocol that had no response when their connection ended; likewise.
    #[serde(default)]
    pub operations_unanswered: BTreeMap<String, u64>,
    /// Connection requests that the listener dropped (role `listener`).
    pub listen_overflows: u64,
    /// SYN-ACKs that the listener retransmitted (role `listener`).
    pub synack_retransmits: u64,
    /// Time to connect.
    pub connect: Latency,
    /// Round trip times.
    pub rtt: Latency,
    /// Request latency.
    pub request: Latency,
    /// How long DNS lookups took that got a response.
    #[serde(default)]
    pub dns_lookup: Latency,
}

/// Requests of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperationCounts {
    /// How many were answered, by status (`1xx` to `5xx`).
    pub statuses: BTreeMap<String, u64>,
    /// Time from the first byte of a request to the first byte of its final response.
    pub duration: Latency,
}

/// Something that went wrong on an edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cause {
    /// For programs: `connect_refused`, `request_unanswered`, `reset_idle_reuse`, `abort_keepalive`,
    /// `dns_timeout`, `listen_drop`, `close_wait`, `receive_queue`, `send_queue`.
    pub cause: String,
    /// In words, for people.
    pub text: String,
    /// How often; of queues, bytes.
    pub count: u64,
}

/// A summary of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Their sum.
    pub sum_seconds: f64,
    /// The median, from the exported buckets as Prometheus' `histogram_quantile` computes it; 10
    /// stands for 10 s or more. Null if none was measured.
    pub p50_seconds: Option<f64>,
    /// The 99th percentile, likewise.
    pub p99_seconds: Option<f64>,
}

// === impl Latency ===

impl Latency {
    /// A quantile of this many seconds stands for this and more: the last exported bound.
    pub const LONGEST_SECONDS: f64 = 10.0;
}

/// Listening sockets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Listeners {
    /// When the sockets were read.
    pub timestamp: Timestamp,
    /// The sockets.
    pub listeners: Vec<Listener>,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listener {
    /// The service that listens.
    pub service: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub service_namespace: String,
    /// How the name was found.
    pub source: Source,
    /// The port.
    pub port: u16,
    /// The protocol; always `tcp` so far.
    pub protocol: Protocol,
    /// The address, `0.0.0.0` or `::` for all.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Inode of the network namespace.
    pub netns: u32,
    /// Connections that wait to be accepted.
    pub backlog: u32,
    /// Backlog limit: how many connections may wait.
    pub max_backlog: u32,
}
