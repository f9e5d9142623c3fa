//! What the agent was told to keep, as readers see it: reservations with who has the port now,
//! registered services, and breaches.

use std::sync::Arc;

use super::book::Book;
use super::breaches::{Breach, BreachKey};
use super::reservations::Environment;

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
