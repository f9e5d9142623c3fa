//! What the agent was told and has to remember: reservations and registered services.

use super::registry::Registry;
use super::reservations::{Reservation, Reservations};

/// Everything that people write down through the agent, with what the configuration adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// Which port is kept for whom.
    pub reservations: Reservations,
    /// Which service is where.
    pub registry: Registry,
}

// === impl Book ===

impl Book {
    /// Adds what the configuration says. It wins: what contradicts it is dropped and returned.
    pub fn configure(&mut self, configured: &[Reservation]) -> Vec<Reservation> {
        let mut all = Reservations::default();
        // The configuration does not contradict itself: that was checked when it was read.
        let _ = all.configure(configured);
        let remembered = std::mem::take(&mut self.reservations);
        // Whether one has run out is not asked here.
        let dropped = remembered.iter().filter(|one| all.reserve((*one).clone(), 0).is_err());
        let dropped = dropped.cloned().collect();
        self.reservations = all;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reservations::Origin;

    #[test]
    fn the_configuration_wins() {
        let config = |text: &str| Reservation::from_config(text).expect("valid");
        let state = |text| Reservation { origin: Origin::State, ..config(text) };
        let mut book = Book::default();
        for text in ["80 web", "81 api", "82 x until=2036-01-01"] {
            book.reservations.reserve(state(text), 0).expect("free");
        }
        assert_eq!(book.configure(&[config("81 other enforce")]), [state("81 api")]);
        let all: Vec<_> = book.reservations.iter().cloned().collect();
        let lease = state("82 x until=2036-01-01");
        assert_eq!(all, [state("80 web"), config("81 other enforce"), lease]);
    }
}
