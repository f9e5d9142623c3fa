//! The JSON of the agent's HTTP API: every response and every request body, and the OpenAPI
//! document that describes them.
//!
//! Times are RFC 3339 in UTC, durations are seconds, sizes are bytes. Within a version of the API
//! (`/api/v1`) fields are only added. This crate depends on no other crate of the workspace; server
//! and clients depend on it.

#![forbid(unsafe_code)]

mod codes;
mod discovery;
mod edges;
mod event_filter;
mod events;
mod finding;
mod flows;
mod history;
mod openapi;
mod ports;
mod relations;
mod reservations;
mod services;
mod skip;
mod status;
mod time;
mod timeouts;
mod words;

pub use self::codes::{CODES, Code, code};
pub use self::discovery::{
    ClusterLoadAssignment, DiscoveryRequest, DiscoveryResponse, EndpointHealth, Endpoints, FoundBy,
    LbAddress, LbEndpoint, LbSocket, LbSocketAddress, Locality, ServiceEndpoint, TargetGroup,
    TargetGroups,
};
pub use self::edges::{Cause, Edge, Edges, Latency, Listener, Listeners, OperationCounts};
pub use self::event_filter::{EventFacts, EventFilter, is_called};
pub use self::events::{Change, Event, EventKind, Events};
pub use self::finding::{DOCS_URL, Evidence, Finding, Severity, set_docs_url};
pub use self::flows::{Flow, Flows, ServiceLabels};
pub use self::history::{History, Point, Series};
pub use self::openapi::{Access, OPERATIONS, Operation, document};
pub use self::ports::{
    Conflict, Conflicts, Destination, EphemeralPorts, Holder, Port, Ports, Process,
};
pub use self::relations::{
    Backend, Balance, BalanceGroup, BalanceVerdict, Distribution, Map, MapEdge, MapNode, Segment,
    SegmentEvent, SegmentPair, SegmentVerdict, Segments, Violation, ViolationReason,
};
pub use self::reservations::{
    AllocatePorts, AllocatedPorts, Breach, BreachAction, HOST_NETNS, Release, Reservation,
    ReservationStatus, Reservations, Reserve, Reserved,
};
pub use self::services::{
    AcceptQueue, ClientHealth, Health, HealthReason, HealthState, Register, Registered,
    RegisteredAddress, Registration, Renew, Renewal, Renewed, Service, ServiceStatus, Services,
    Unregister,
};
pub use self::skip::Skip;
pub use self::status::{Hook, LedgerEntry, Memory, NameSource, NameSourceState, Status, Table};
pub use self::time::{Timestamp, Window, WindowChoice};
pub use self::timeouts::{EdgeTimeouts, EdgeWaits, IdleTimes, KeepAlive, Timeouts};
pub use self::words::{
    BindFailure, Environment, Kind, Origin, PortState, Protocol, Role, Source, SystemCall,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
pub use utoipa::openapi::OpenApi;

/// The body of every response with status 400 or above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(title = "Error")]
pub struct Error {
    /// The error and its fix.
    pub error: String,
}
