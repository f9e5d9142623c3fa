//! What Portolan knows, as plain values: no IO, no clock, no async.
//!
//! [`delta::Stage`] turns what was drained from the kernel into what each edge did since the drain
//! before, under its name; [`rows`], [`relations`], [`violations`] and [`health`] add that up;
//! [`snapshot::Snapshot`] is the read-only picture that `/metrics`, the API and the command line
//! show.

#![forbid(unsafe_code)]

pub mod allocation;
mod attributed;
pub mod balance;
pub mod book;
pub mod breaches;
pub mod claims;
pub mod clash;
pub mod conflicts;
pub mod deduplication;
pub mod delta;
pub mod duration;
pub mod enforcement;
pub mod ephemeral;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod full_name;
mod hashed;
pub mod health;
pub mod kept;
pub mod listen_drops;
pub mod map;
pub mod memory;
pub mod moment;
pub mod owners;
mod per_slot;
pub mod port;
pub mod port_ranges;
pub mod probes;
pub mod reclaim;
pub mod registry;
pub mod relations;
pub mod reservations;
pub mod rows;
pub mod segments;
pub mod service;
pub mod slot;
pub mod snapshot;
pub mod tables;
pub mod tally;
pub mod unsent;
pub mod violations;
mod well_known;
pub mod words;
