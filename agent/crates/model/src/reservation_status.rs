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

    /// Reservations of both origins, a breach, a registered service.
    #[cfg(any(test, feature = "fixture"))]
    pub(super) fn example() -> Self {
        use super::breaches::Action;
        use super::registry::Registration;
        use super::reservations::Origin;

        let mut state = State::default();
        let config = Reservation::from_config("5432 postgres enforce").expect("valid");
        state.reservations.configure(&[config]).expect("no contradiction");
        let lease = Reservation::from_config("3001 prod/shop env=prod until=2036-12-01");
        let lease = Reservation { origin: Origin::State, ..lease.expect("valid") };
        state.reservations.reserve(lease, 0).expect("free");
        let service = "billing".parse().expect("a name");
        let endpoints = vec!["203.0.113.7:443".parse().expect("an endpoint")];
        state.registry.register(Registration::new(service, endpoints), 0).expect("free");
        let key = BreachKey {
            port: Some(Port::tcp(5432)),
            owner: "postgres".parse().expect("a name"),
            offender: "server.js".parse().expect("a name"),
            action: Action::Audited,
        };
        Self {
            state: Arc::new(state),
            host_netns: Some(4_026_531_840),
            environment: None,
            breaches: vec![(key.clone(), 2)],
            breach_events: vec![Breach { at: 1_700_000_090, netns: 4_026_531_840, owner: 1, key }],
        }
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
