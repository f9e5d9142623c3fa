//! What the agent was told and remembers: its one file on disk, and the one thread that writes it.
//!
//! [`store::Store`] reads and writes the file, whole and at once; [`desk::Desk`] owns the
//! [`Book`](model::book::Book) and is its only writer; everybody else reads the copy that
//! it last published.

pub mod desk;
mod failure;
pub mod file;
mod port_use;
pub mod store;

pub use desk::{Caller, Desk, DeskHandle};
pub use failure::Failure;
pub use store::Store;
