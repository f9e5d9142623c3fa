//! The state of the agent: reservations and registered services, its file on disk, and the one
//! thread that writes it.
//!
//! [`state_file::StateFile`] reads the file and replaces it atomically; [`actor::StateActor`] owns
//! the [`State`](model::state::State) and is its only writer; all others read the copy that it
//! published last.

pub mod actor;
mod checked;
mod failure;
pub mod file;
mod findings;
mod port_use;
mod registrations;
pub mod state_file;

pub use actor::{StateActor, StateHandle};
pub use failure::Failure;
pub use state_file::StateFile;
