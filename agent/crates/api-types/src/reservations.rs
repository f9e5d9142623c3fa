//! `/api/v1/reservations` and `/api/v1/ports/free`: responses, and requests over the control
//! socket.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Environment, Finding, Origin, Protocol, Timestamp};

/// Replaces the inode of the host's network namespace, which not every caller may read.
pub const HOST_NETNS: u32 = 0;

/// Reserved ports and their status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reservations {
    /// When the ports were read.
    pub timestamp: Timestamp,
    /// Reserved ports, sorted.
    pub reservations: Vec<ReservationStatus>,
    /// The last breaches, oldest first.
    pub breaches: Vec<Breach>,
}

/// A port reserved for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reservation {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The service that may bind it.
    #[schema(example = "shop/postgres")]
    pub service: String,
    /// Only on hosts of this kind; null is all.
    pub environment: Option<Environment>,
    /// In force before this time; null = until it is removed.
    pub until: Option<Timestamp>,
    /// Whether bind() by other services fails.
    pub enforce: bool,
    /// Inode of the network namespace; null is the host's.
    pub netns: Option<u32>,
    /// Where it comes from.
    pub origin: Origin,
}

/// A reservation and its status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReservationStatus {
    /// The reservation.
    #[serde(flatten)]
    pub reservation: Reservation,
    /// Whether it applies now, on this host.
    pub in_force: bool,
    /// The services that listen on the port now.
    pub holders: Vec<String>,
    /// How often another service took the port or was denied it, since the agent started.
    pub breaches: u64,
}

/// Another service took a reserved port, or was denied it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Breach {
    /// When.
    pub timestamp: Timestamp,
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The service that the port is reserved for.
    pub owner: String,
    /// The service that took or requested it.
    pub offender: String,
    /// The action taken.
    pub action: BreachAction,
    /// The breach as a finding: summary, evidence, remediation.
    pub finding: Finding,
}

/// The action taken on a breach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BreachAction {
    /// It was reported.
    Audited,
    /// bind() failed.
    Denied,
}

/// Reserves a port for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The port, 1 to 65535.
    #[schema(minimum = 1)]
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The service: `postgres`, `shop/postgres`.
    #[schema(example = "shop/postgres")]
    pub service: String,
    /// Only on hosts of this kind.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// Until when: a time in UTC, or a duration from now (`2h`).
    #[serde(default)]
    #[schema(example = "2026-12-01T10:00:00Z")]
    pub until: Option<String>,
    /// Make bind() by other services fail: against accidents, not attacks (PO314).
    #[serde(default)]
    pub enforce: bool,
    /// Inode of the network namespace, 0 is the host's; by default that of the caller.
    #[serde(default)]
    pub netns: Option<u32>,
}

/// Removes a reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The port.
    #[schema(minimum = 1)]
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Which one, if the port is reserved for both.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// Inode of the network namespace, 0 is the host's; by default that of the caller.
    #[serde(default)]
    pub netns: Option<u32>,
}

/// Allocates free ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllocatePorts {
    /// The nearest to this one first.
    #[serde(default)]
    pub near: Option<u16>,
    /// How many; 1 by default.
    #[serde(default)]
    pub count: Option<usize>,
    /// For which protocol.
    pub protocol: Protocol,
    /// Reserve them for this service.
    #[serde(default)]
    pub service: Option<String>,
    /// Only on hosts of this kind.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// Until when they are reserved, a time in UTC or a duration from now; a day by default.
    #[serde(default)]
    pub until: Option<String>,
    /// Make bind() by other services fail: against accidents, not attacks (PO314).
    #[serde(default)]
    pub enforce: bool,
    /// Inode of the network namespace, 0 is the host's; by default that of the caller.
    #[serde(default)]
    pub netns: Option<u32>,
}

/// Allocated ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AllocatedPorts {
    /// The ports, the best first.
    pub ports: Vec<u16>,
    /// Their protocol.
    pub protocol: Protocol,
    /// Inode of the network namespace they are free in; null is the host's.
    pub netns: Option<u32>,
    /// They are not allocated again before this time.
    pub until: Timestamp,
    /// The service that they are reserved for, if they are.
    pub service: Option<String>,
}

/// The result of a change of reservations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reserved {
    /// The reservation in force; after a removal, the removed one.
    pub reservations: Vec<Reservation>,
    /// Problems that remain.
    pub findings: Vec<Finding>,
}
