//! The status of reservations for readers: reservations with the current holder of the port,
//! registered services, and breaches.

use std::sync::Arc;

use super::breaches::{Breach, BreachKey};
use super::port::Port;
use super::reservations::{Environment, Reservation};
use super::state::State;

/// The part of a snapshot that comes from the agent's own state.
#[derive(Clone, Debug, Default)]
pub struct ReservationStatus {
    /// Reservations and registered services.
    pub state: Arc<State>,
    /// Inode of the host's network namespace, if known.
    pub host_netns: Option<u32>,
    /// Environment of this host.
    pub environment: Option<Environment>,
    /// Breaches by reservation and offender.
    pub breaches: Vec<(BreachKey, u64)>,
    /// The last breaches, oldest first.
    pub breach_events: Vec<Breach>,
}

impl ReservationStatus {
    /// The reservation of a port that is in force at `now` (seconds since the Unix epoch).
    pub fn reservation(&self, netns: u32, port: Port, now: u64) -> Option<&Reservation> {
        let place = (Some(netns) != self.host_netns).then_some(netns);
        self.state.reservations.in_force(place, port, now, self.environment)
    }

    /// The network namespace of a reservation; `None` if it is the host's, which is unknown.
    pub fn netns_of(&self, reservation: &Reservation) -> Option<u32> {
        reservation.netns.or(self.host_netns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_reserved_in_its_namespace_and_in_its_time_only() {
        let mut state = State::default();
        let host = Reservation::from_config("5432 postgres until=2036-01-01").expect("valid");
        let there = Reservation { netns: Some(7), ..host.clone() };
        let there = Reservation { service: "other".parse().expect("a name"), ..there };
        for one in [&host, &there] {
            state.reservations.reserve(one.clone(), 0).expect("free");
        }
        let status = ReservationStatus {
            state: Arc::new(state),
            host_netns: Some(1),
            ..ReservationStatus::default()
        };
        let check = |netns, port, now, expected: Option<&Reservation>| {
            assert_eq!(status.reservation(netns, port, now), expected, "{netns} {port} {now}");
        };
        check(1, Port::tcp(5432), 10, Some(&host));
        check(7, Port::tcp(5432), 10, Some(&there));
        check(8, Port::tcp(5432), 10, None);
        check(1, Port::udp(5432), 10, None);
        check(1, Port::tcp(5432), 4_000_000_000, None);
        assert_eq!((status.netns_of(&host), status.netns_of(&there)), (Some(1), Some(7)));
    }
}
