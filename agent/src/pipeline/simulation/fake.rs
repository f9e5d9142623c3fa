//! A kernel half and a host made of plain tables.

mod host;
mod kernel;
mod slots;
mod world;

use std::sync::{Arc, Mutex, MutexGuard};

pub(super) use self::world::{Truth, World, name_of};

/// Handles to one world.
#[derive(Clone)]
pub(super) struct Fake {
    world: Arc<Mutex<World>>,
    is_adopted: bool,
}

// === impl Fake ===

impl Fake {
    pub(super) fn new(world: World) -> Self {
        Self { world: Arc::new(Mutex::new(world)), is_adopted: false }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic while it was locked")
    }

    /// The same tables for an agent that takes them over.
    pub(super) fn adopted(&self) -> Self {
        self.world().adopt();
        Self { world: Arc::clone(&self.world), is_adopted: true }
    }
}
