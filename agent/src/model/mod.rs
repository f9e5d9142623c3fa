//! What Portolan knows, as plain values: no IO, no clock, no async.
//!
//! [`tables::Tables`] turns what was drained from the kernel into rows with names and keeps
//! their totals; [`snapshot::Snapshot`] is the read-only picture that `/metrics`, the API and
//! the command line show.

pub mod allocation;
pub mod book;
pub mod breaches;
pub mod claims;
pub mod clash;
pub mod conflicts;
pub mod enforcement;
#[cfg(test)]
pub(crate) mod fixture;
pub mod full_name;
pub mod health;
pub mod kept;
pub mod listen_drops;
pub mod moment;
pub mod owners;
pub mod port;
pub mod port_ranges;
pub mod registry;
pub mod reservations;
pub mod service;
pub mod slot;
pub mod snapshot;
pub mod tables;
mod well_known;
pub mod words;
