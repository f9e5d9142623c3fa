//! Why a service is not registered, and what to do instead.

use notation::Endpoint;

use super::{LEAST_TTL, MOST, MOST_ENDPOINTS, MOST_TTL};
use crate::full_name::FullName;

/// Why a service is not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Two names for one endpoint.
    #[error(
        "{endpoint} is registered as {service}; unregister that first (portolan services unregister {service})"
    )]
    Taken {
        /// Where.
        endpoint: Endpoint,
        /// Who is there.
        service: FullName,
    },
    /// No endpoint.
    #[error("{0} has no address; give at least one with --address, like 10.1.2.3:443")]
    Nowhere(FullName),
    /// Too many endpoints.
    #[error(
        "{0} has more than {MOST_ENDPOINTS} addresses; write fewer and wider ones, like 10.9.0.0/16"
    )]
    TooManyEndpoints(FullName),
    /// Too many services.
    #[error(
        "{MOST} services are registered already; unregister some that are not needed (`portolan services` lists them)"
    )]
    Full,
    /// A time to live out of range.
    #[error(
        "{0} cannot have a TTL of {1} s; write one from {LEAST_TTL}s to {days}d, like --ttl 30s",
        days = MOST_TTL / 86_400
    )]
    Ttl(FullName, u64),
    /// A check of what is not one socket.
    #[error(
        "{service} cannot be checked at {endpoint}; a check needs addresses with a port, like 10.1.2.3:443"
    )]
    Unchecked {
        /// The service.
        service: FullName,
        /// Where.
        endpoint: Endpoint,
    },
    /// Nothing to remove.
    #[error("{0} is not registered; `portolan services` lists what is")]
    NotRegistered(FullName),
}
