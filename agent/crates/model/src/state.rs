//! The agent's stored state: reservations and registered services.

use super::registry::Registry;
use super::reservations::{Reservation, Reservations};

/// Reservations and registered services, including those of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Port reservations.
    pub reservations: Reservations,
    /// Services registered by hand.
    pub registry: Registry,
}

// === impl State ===

impl State {
    /// Adds the reservations of the configuration, which win: contradicting ones are dropped and returned.
    pub fn configure(&mut self, configured: &[Reservation]) -> Vec<Reservation> {
        let mut all = Reservations::default();
        // The configuration does not contradict itself: that was checked when it was parsed.
        let _ = all.configure(configured);
        let remembered = std::mem::take(&mut self.reservations);
        // Expired reservations are not removed here.
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
        let stored = |text| Reservation { origin: Origin::State, ..config(text) };
        let mut state = State::default();
        for text in ["80 web", "81 api", "82 x until=2036-01-01"] {
            state.reservations.reserve(stored(text), 0).expect("free");
        }
        assert_eq!(state.configure(&[config("81 other enforce")]), [stored("81 api")]);
        let all: Vec<_> = state.reservations.iter().cloned().collect();
        let lease = stored("82 x until=2036-01-01");
        assert_eq!(all, [stored("80 web"), config("81 other enforce"), lease]);
    }
}
