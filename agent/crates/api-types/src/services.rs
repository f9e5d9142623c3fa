//! `/api/v1/services`: responses, and requests over the control socket.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Kind, Source, Timestamp, Window};

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
    /// Endpoints registered by hand.
    pub registered: Vec<String>,
    /// Its health over the window.
    pub health: Health,
}

/// The health of a service over the window of the response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// One-word summary.
    pub state: HealthState,
    /// Established connections to it.
    pub connects_ok: u64,
    /// Attempts to connect that failed, as clients of this host saw them.
    pub connects_failed: u64,
    /// Share of the attempts that succeeded; null without attempts.
    pub success_ratio: Option<f64>,
    /// Requests it answered.
    pub requests: u64,
    /// Requests without a response: the connection ended, or the client gave up.
    pub unanswered: u64,
    /// Median request latency; null without requests.
    pub p50_seconds: Option<f64>,
    /// 99th percentile of request latency.
    pub p99_seconds: Option<f64>,
    /// Connections that ended with a reset, sent or received.
    pub resets: u64,
    /// Established connections that a kernel gave up because the other end did not answer.
    pub aborts: u64,
    /// Connection requests that its listeners dropped.
    pub listen_overflows: u64,
}

/// One-word health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Most attempts to connect fail, or most requests are not answered (ten or more).
    Failing,
    /// Some attempts fail, requests are not answered, connections are reset or die, or connection
    /// requests are dropped.
    Degraded,
    /// Traffic without failures.
    Ok,
    /// No traffic within the window.
    Idle,
}

/// Names addresses that have no name otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// The name: `billing`, `acme/billing`.
    pub service: String,
    /// Its addresses: `10.1.2.3:443`, `10.9.0.0/16`, `10.9.0.0/16:5432`, `443`.
    pub addresses: Vec<String>,
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
