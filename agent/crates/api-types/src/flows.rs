//! `/api/v1/flows`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Kind, Role, Source, Timestamp, Window};

/// Which services connected to which, from which address to which, since the agent started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Flows {
    /// When the numbers were read.
    pub timestamp: Timestamp,
    /// The time that the numbers cover: since the agent started.
    pub window: Window,
    /// The flows, sorted by their ends.
    pub flows: Vec<Flow>,
    /// Labels of pods and containers that the agent exports (`names.labels`), by service; services
    /// without any are left out.
    pub labels: Vec<ServiceLabels>,
    /// Flows that are no longer remembered, because newer ones needed the room.
    pub forgotten: u64,
}

/// One side's view of two services, a port and two addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// The service that connects.
    pub client: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub client_namespace: String,
    /// Kind of the client.
    pub client_kind: Kind,
    /// How the client's name was found.
    pub client_source: Source,
    /// Where it connects from, the first of its addresses that was seen; null for clients from
    /// outside the internal ranges.
    #[schema(value_type = Option<String>)]
    pub client_address: Option<IpAddr>,
    /// The service that is connected to.
    pub server: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub server_namespace: String,
    /// Kind of the server.
    pub server_kind: Kind,
    /// How the server's name was found.
    pub server_source: Source,
    /// Where it is, as this side has it.
    #[schema(value_type = Option<String>)]
    pub server_address: Option<IpAddr>,
    /// The port, as this side has it: with `virtual_service` the one that was asked for.
    pub port: u16,
    /// The Kubernetes Service or published port that the client connected to, if another service
    /// answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub virtual_service: Option<String>,
    /// The namespace in which that name is unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub virtual_service_namespace: Option<String>,
    /// Which side counted.
    pub role: Role,
    /// Whether the client's side of the same connections is a flow too: without these each
    /// connection is there once.
    pub other_side: bool,
    /// Established connections.
    pub connections: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// When it was seen first.
    pub first_seen: Timestamp,
    /// When it last had a connection or moved a byte; of a flow without connections, its last failure.
    pub last_seen: Timestamp,
}

/// Labels of the pods or containers of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceLabels {
    /// The name.
    pub service: String,
    /// The namespace in which that name is unique; empty on a plain host.
    pub service_namespace: String,
    /// The labels that all of them share, as they are written there.
    pub labels: BTreeMap<String, String>,
}
