//! The JSON that changes the agent's state, and its answers. The command line uses the same types.

use serde::{Deserialize, Serialize};

use model::full_name::FullName;
use model::moment;
use model::port::Protocol;
use model::registry::Endpoint;
use model::reservations::{Environment, Origin, Reservation};

/// Stands for the inode of the host's network namespace, which not every caller may look at.
pub const HOST_NETNS: u32 = 0;

/// `POST /api/v1/reservations`: keep a port for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// The port, 1 to 65535.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// For whom: `postgres`, `shop/postgres`.
    pub service: FullName,
    /// Only on hosts that are for this.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// Until when: a time in UTC, or how long from now.
    #[serde(default)]
    pub until: Option<String>,
    /// Refuse it to others.
    #[serde(default)]
    pub enforce: bool,
    /// Inode of the network namespace, 0 = the host's; that of the caller if it is not said.
    #[serde(default)]
    pub netns: Option<u32>,
}

/// `DELETE /api/v1/reservations`: keep a port no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Which one, if it is reserved for both.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// Inode of the network namespace, 0 = the host's; that of the caller if it is not said.
    #[serde(default)]
    pub netns: Option<u32>,
}

/// `POST /api/v1/ports/free`: hand out ports that nobody has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Free {
    /// The nearest to this one first.
    #[serde(default)]
    pub near: Option<u16>,
    /// How many; one if it is not said.
    #[serde(default)]
    pub count: Option<usize>,
    /// For which protocol.
    pub protocol: Protocol,
    /// Reserve them for this service.
    #[serde(default)]
    pub service: Option<FullName>,
    /// Only on hosts that are for this.
    #[serde(default)]
    pub environment: Option<Environment>,
    /// Until when they are reserved; a day from now if it is not said.
    #[serde(default)]
    pub until: Option<String>,
    /// Refuse them to others.
    #[serde(default)]
    pub enforce: bool,
    /// Inode of the network namespace, 0 = the host's; that of the caller if it is not said.
    #[serde(default)]
    pub netns: Option<u32>,
}

/// `POST /api/v1/services`: name an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// Its name.
    pub service: FullName,
    /// Where it is.
    pub addresses: Vec<Endpoint>,
}

/// `DELETE /api/v1/services`: forget a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unregister {
    /// Its name.
    pub service: FullName,
}

/// What a change of reservations led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// What is reserved now; of a release, what was.
    pub reservations: Vec<ReservationShape>,
    /// What may still go wrong.
    pub warnings: Vec<Warning>,
}

/// Ports that were handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// The ports, the best first.
    pub ports: Vec<u16>,
    /// Their protocol.
    pub protocol: Protocol,
    /// Inode of the network namespace they are free in; null is the host's.
    pub netns: Option<u32>,
    /// Nobody else is given them before this moment.
    pub until: String,
    /// For whom they are reserved, if they are.
    pub service: Option<FullName>,
}

/// What a change of registered services led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The service.
    pub service: FullName,
    /// Where it is, or was.
    pub addresses: Vec<Endpoint>,
}

/// A reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationShape {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// For whom.
    pub service: FullName,
    /// Only on hosts that are for this; null is all.
    pub environment: Option<Environment>,
    /// In force before this moment (RFC 3339); null is until it is released.
    pub until: Option<String>,
    /// Whether others are refused.
    pub enforce: bool,
    /// Inode of the network namespace; null is the host's.
    pub netns: Option<u32>,
    /// `config` or `state`.
    pub origin: Origin,
}

/// Something that endangers what was asked for, and a command that mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// One sentence.
    pub problem: String,
    /// A command, if there is one.
    pub mend: Option<String>,
}

// === impl ReservationShape ===

impl From<&Reservation> for ReservationShape {
    fn from(reservation: &Reservation) -> Self {
        Self {
            port: reservation.port.number,
            protocol: reservation.port.protocol,
            service: reservation.service.clone(),
            environment: reservation.environment,
            until: reservation.until.map(moment::rfc3339),
            enforce: reservation.enforce,
            netns: reservation.netns,
            origin: reservation.origin,
        }
    }
}
