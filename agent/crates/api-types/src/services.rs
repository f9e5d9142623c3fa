//! `/api/v1/services`: responses, and requests over the control socket.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Change, Kind, Source, Timestamp, Window};

/// Services with ports and health.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// When the numbers were read.
    pub timestamp: Timestamp,
    /// The time that `health` covers.
    pub window: Window,
    /// The services, sorted by namespace and name.
    pub services: Vec<ServiceStatus>,
}

/// A service by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// The name.
    pub name: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub namespace: String,
    /// Kind of the service.
    pub kind: Kind,
    /// How the name was found.
    pub source: Source,
}

/// A service, its ports and its health.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceStatus {
    /// Its name.
    pub service: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub service_namespace: String,
    /// Kind of the service.
    pub kind: Kind,
    /// How the name was found.
    pub source: Source,
    /// Ports that it listens on here, like `5432/tcp`.
    pub listens: Vec<String>,
    /// Ports of it that clients connect to.
    pub serves: Vec<String>,
    /// Endpoints registered by hand, without those that have expired.
    pub registered: Vec<String>,
    /// All of the registration, if it has a TTL or a check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// Its health over the window.
    pub health: Health,
    /// What changed at it in the last ten minutes, latest first, five at most; only if its health has
    /// reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes_before: Vec<Change>,
}

/// The health of a service over the window of the response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// One-word summary.
    pub state: HealthState,
    /// What is wrong with it, if anything is.
    pub reasons: Vec<HealthReason>,
    /// Established connections to it.
    pub connects_ok: u64,
    /// Attempts to connect to it that failed, as clients of this host saw them, without those that
    /// failed on the client's own side.
    pub connects_failed: u64,
    /// Share of the attempts that succeeded; null without attempts.
    pub success_ratio: Option<f64>,
    /// Requests it answered.
    pub requests: u64,
    /// Those of them that waited on purpose (long polling): long requests one right after the other on
    /// their connections, while others were answered fast, or to a service in `names.polled`. They are
    /// not in the quantiles.
    pub waits: u64,
    /// Requests without a response: the connection ended, or the client gave up.
    pub unanswered: u64,
    /// Responses whose status is known, as its own host sees them.
    #[serde(default)]
    pub responses: u64,
    /// Those of them that are errors of the server: HTTP 5xx, errors of databases.
    #[serde(default)]
    pub errors: u64,
    /// Median request latency; null without requests.
    pub p50_seconds: Option<f64>,
    /// 99th percentile of request latency.
    pub p99_seconds: Option<f64>,
    /// Connections that it, or something on the path, ended with a reset.
    pub resets: u64,
    /// Established connections that a kernel gave up because the other end did not answer.
    pub aborts: u64,
    /// Connection requests that its listeners dropped.
    pub listen_overflows: u64,
    /// Failed connects, resets and requests without a response while it was stopping. They are in
    /// none of the others, and no fault.
    pub stopping: u64,
    /// The fullest of its accept queues; null if it does not listen on this host.
    pub accept_queue: Option<AcceptQueue>,
    /// Its own failures as a client.
    pub as_client: ClientHealth,
}

/// The accept queue of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AcceptQueue {
    /// Connections that wait to be accepted.
    pub length: u32,
    /// How many may wait.
    pub limit: u32,
}

/// What a service did as a client, over the window of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientHealth {
    /// Its attempts to connect that succeeded.
    pub connects_ok: u64,
    /// Its attempts that failed on its own side: no address, port, route or permission, or given up.
    pub connects_failed: u64,
    /// Connections that it ended with a reset.
    pub resets: u64,
}

/// One-word health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Most attempts to connect fail, or most requests are not answered (ten or more).
    Failing,
    /// Something is wrong: see `reasons`.
    Degraded,
    /// Traffic without failures.
    Ok,
    /// No traffic within the window.
    Idle,
}

/// What is wrong with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthReason {
    /// Attempts to connect to it fail.
    ConnectsFail,
    /// Requests are not answered.
    Unanswered,
    /// More than one in 20 responses is an error of the server.
    Errors,
    /// More than one of 100 requests takes longer than half a second.
    Slow,
    /// It, or something on the path, resets connections.
    Resets,
    /// Connections die: a kernel gives them up because the other end does not answer.
    Aborts,
    /// Its listeners drop connection requests.
    ListenDrops,
    /// One of its accept queues is full.
    AcceptQueueFull,
    /// As a client, most of its connects fail on its own side, or it has no free local port.
    OwnConnectsFail,
}

/// Names addresses that have no name otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// The name: `billing`, `acme/billing`.
    pub service: String,
    /// Its addresses: `10.1.2.3:443`, `10.9.0.0/16`, `10.9.0.0/16:5432`, `443`.
    pub addresses: Vec<String>,
    /// How long an address lasts without being renewed, like `30s`; 5 s to 365 days. Without it, until
    /// the service is unregistered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// How `portolan services monitor` checks each address: `tcp`, `http` or `http=/healthz`. The agent
    /// checks nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

/// A registration with a TTL or a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Registration {
    /// How long an address lasts without being renewed, like `30s`; null: until it is unregistered.
    pub ttl: Option<String>,
    /// How `portolan services monitor` checks each address.
    pub check: Option<String>,
    /// The addresses.
    pub addresses: Vec<RegisteredAddress>,
}

/// An address of a registration with a TTL or a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegisteredAddress {
    /// The address: `10.1.2.3:443`.
    pub address: String,
    /// When it expires unless it is renewed; null without a TTL.
    pub expires: Option<Timestamp>,
    /// It was not renewed in time: it is removed from discovery, and forgotten after an hour. Until
    /// then what fails there has the name of the service, and it can be renewed.
    pub is_expired: bool,
}

/// Renews addresses of services that were registered with a TTL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// The addresses.
    pub addresses: Vec<Renewal>,
}

/// One address of a registered service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// The service: `billing`, `acme/billing`.
    pub service: String,
    /// The address: `10.1.2.3:443`.
    pub address: String,
}

/// What was renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Renewed {
    /// These last for their TTL again.
    pub renewed: Vec<Renewal>,
    /// These are not registered, or not with a TTL.
    pub gone: Vec<Renewal>,
}

/// Removes a registered service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Unregister {
    /// The name.
    pub service: String,
}

/// The result of a change of registered services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    /// The name.
    pub service: String,
    /// Its addresses; after a removal, those it had.
    pub addresses: Vec<String>,
    /// How long an address lasts without being renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// How `portolan services monitor` checks each address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

// === impl HealthState ===

impl HealthState {
    /// The value in JSON and in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Degraded => "degraded",
            Self::Ok => "ok",
            Self::Idle => "idle",
        }
    }
}
