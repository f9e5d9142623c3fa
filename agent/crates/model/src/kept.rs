//! What the agent was told to keep, as readers see it: reservations with who has the port now,
//! registered services, and breaches.

use std::sync::Arc;

use super::book::Book;
use super::breaches::{Breach, BreachKey};
use super::port::Port;
use super::reservations::{Environment, Reservation};

/// The part of a snapshot that comes from the agent's own state.
#[derive(Clone, Debug, Default)]
pub struct KeptView {
    /// Reservations and registered services.
    pub book: Arc<Book>,
    /// Inode of the host's network namespace, if it is known.
    pub host_netns: Option<u32>,
    /// What this host is for.
    pub environment: Option<Environment>,
    /// How often which reservation was breached, by whom.
    pub breaches: Vec<(BreachKey, u64)>,
    /// The last breaches, oldest first.
    pub breach_events: Vec<Breach>,
}

impl KeptView {
    /// The reservation of a port that binds everybody at `now` (seconds since the Unix epoch).
    pub fn reservation(&self, netns: u32, port: Port, now: u64) -> Option<&Reservation> {
        let place = (Some(netns) != self.host_netns).then_some(netns);
        self.book.reservations.in_force(place, port, now, self.environment)
    }

    /// The network namespace that a reservation is for; `None` if the host's is not known.
    pub fn netns_of(&self, reservation: &Reservation) -> Option<u32> {
        reservation.netns.or(self.host_netns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_reserved_in_its_namespace_and_in_its_time_only() {
        let mut book = Book::default();
        let host = Reservation::from_config("5432 postgres until=2036-01-01").expect("valid");
        let there = Reservation { netns: Some(7), ..host.clone() };
        let there = Reservation { service: "other".parse().expect("a name"), ..there };
        for one in [&host, &there] {
            book.reservations.reserve(one.clone(), 0).expect("free");
        }
        let kept = KeptView { book: Arc::new(book), host_netns: Some(1), ..KeptView::default() };
        let check = |netns, port, now, expected: Option<&Reservation>| {
            assert_eq!(kept.reservation(netns, port, now), expected, "{netns} {port} {now}");
        };
        check(1, Port::tcp(5432), 10, Some(&host));
        check(7, Port::tcp(5432), 10, Some(&there));
        check(8, Port::tcp(5432), 10, None);
        check(1, Port::udp(5432), 10, None);
        check(1, Port::tcp(5432), 4_000_000_000, None);
        assert_eq!((kept.netns_of(&host), kept.netns_of(&there)), (Some(1), Some(7)));
    }
}
