//! `/api/v1/ports` and `/api/v1/conflicts`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    BindFailure, Finding, PortState, Protocol, Reservation, Service, SystemCall, Timestamp,
};

/// Bound ports and their holders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ports {
    /// When the ports were read.
    pub timestamp: Timestamp,
    /// Inode of the host's network namespace; null if unknown.
    pub host_netns: Option<u32>,
    /// Ports in use, sorted.
    pub ports: Vec<Port>,
    /// Reservations in force whose port is not in use, sorted.
    pub unused_reservations: Vec<Reservation>,
    /// Ephemeral ports in use, by network namespace.
    pub ephemeral_ports: Vec<EphemeralPorts>,
}

/// A port in use: the sockets of one service at one address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Port {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The address, `0.0.0.0` or `::` for all.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Whether an IPv6 address for all refuses IPv4.
    pub v6_only: bool,
    /// Inode of the network namespace.
    pub netns: u32,
    /// State of the socket.
    pub state: PortState,
    /// The process that bound it.
    pub holder: Process,
    /// User id of the process that made the socket.
    pub uid: u32,
    /// Since when; null if it was bound before the agent started.
    pub since: Option<Timestamp>,
    /// How many sockets share it (SO_REUSEPORT).
    pub sockets: u32,
    /// Connections that wait to be accepted, in the fullest accept queue of these sockets.
    pub backlog: u32,
    /// Limit of that queue: how many connections may wait.
    pub max_backlog: u32,
    /// The service that it is reserved for; null if it is not reserved.
    pub reserved_for: Option<String>,
    /// When another process last failed to get it; null if none did.
    pub last_conflict: Option<Timestamp>,
}

/// A process that requests or has a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Process {
    /// Its service.
    pub service: Service,
    /// Its pid on the host; 0 if it is unknown or the process has exited.
    pub pid: u32,
    /// Its command name; empty if unknown.
    pub command: String,
}

/// Ephemeral ports of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EphemeralPorts {
    /// Inode of the network namespace.
    pub netns: u32,
    /// The service that runs in it.
    pub service: Service,
    /// First port of the range (`net.ipv4.ip_local_port_range`).
    pub first: u16,
    /// Last port of the range.
    pub last: u16,
    /// Ports of the range in use by TCP sockets.
    pub used_tcp: u32,
    /// Ports of the range in use by UDP sockets.
    pub used_udp: u32,
    /// The destination with the most connections from the range.
    pub busiest_destination: Option<Destination>,
    /// Closed connections that the kernel remembers (TIME_WAIT).
    pub time_wait: u32,
}

/// A destination, and the ports that connections to it use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Destination {
    /// Address and port.
    #[schema(value_type = String, example = "10.0.0.2:5432")]
    pub address: SocketAddr,
    /// Local ports in use for it.
    pub used: u32,
}

/// Binds and listens that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Conflicts {
    /// When the list was read.
    pub timestamp: Timestamp,
    /// Inode of the host's network namespace; null if unknown.
    pub host_netns: Option<u32>,
    /// The failures, in the order in which they happened last.
    pub conflicts: Vec<Conflict>,
}

/// Failures of one kind within five minutes, as one entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Conflict {
    /// When it first happened.
    pub first_seen: Timestamp,
    /// When it last happened.
    pub last_seen: Timestamp,
    /// How often.
    pub count: u64,
    /// The process that requested the port.
    pub claimant: Process,
    /// The port; 0 if any port was requested.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The address that was requested.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The call that failed.
    pub system_call: SystemCall,
    /// Name of the errno.
    #[schema(example = "EADDRINUSE")]
    pub errno: String,
    /// Whether the errno was inferred from the sockets, not reported by the kernel.
    pub inferred: bool,
    /// Why it failed.
    pub reason: BindFailure,
    /// The process that has the port, if it could be found.
    pub holder: Option<Holder>,
    /// A port nearby that is free.
    pub next_free: Option<u16>,
    /// The user who can have made this up: it happened in a network namespace that the user made, and
    /// is in no metric but `portolan_unverified_events_total`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub unverified_user: Option<u32>,
    /// The conflict as a finding: summary, evidence, remediation.
    pub finding: Finding,
}

/// The process that has a port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// Its service.
    pub service: Service,
    /// Its pid on the host; 0 if it is unknown or the process has exited.
    pub pid: u32,
    /// Its command name; empty if unknown.
    pub command: String,
    /// The address it has.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// How it holds the port.
    pub state: PortState,
    /// Since when; null if it was bound before the agent started.
    pub since: Option<Timestamp>,
}

// === impl EphemeralPorts ===

impl EphemeralPorts {
    /// How many ports the range has.
    pub fn size(&self) -> u32 {
        u32::from(self.last).saturating_sub(u32::from(self.first)) + 1
    }

    /// The share of the range that is in use, by the protocol that uses more.
    pub fn used_ratio(&self) -> f64 {
        f64::from(self.used_tcp.max(self.used_udp)) / f64::from(self.size())
    }

    /// The share of the range that connections to one destination use.
    pub fn destination_ratio(&self) -> f64 {
        let used = self.busiest_destination.map_or(0, |destination| destination.used);
        f64::from(used) / f64::from(self.size())
    }
}
