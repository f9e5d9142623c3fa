//! What Portolan knows, as plain values: no IO, no clock, no async.
//!
//! [`tables::Tables`] turns what was drained from the kernel into rows with names and keeps
//! their totals; [`snapshot::Snapshot`] is the read-only picture that `/metrics`, the API and
//! the command line show.

pub mod claims;
pub mod clash;
pub mod conflicts;
#[cfg(test)]
pub(crate) mod fixture;
pub mod listen_drops;
pub mod owners;
pub mod port;
pub mod service;
pub mod slot;
pub mod snapshot;
pub mod tables;
pub mod words;
