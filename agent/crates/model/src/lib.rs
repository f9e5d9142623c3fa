//! The domain as plain values: no IO, no clock, no async.
//!
//! [`delta::Stage`] turns drained edges into named deltas since the last collection; [`rows`],
//! [`relations`], [`violations`] and [`health`] aggregate them; [`snapshot::Snapshot`] is the
//! immutable result that `/metrics`, the API and the command line show.

#![forbid(unsafe_code)]

pub mod allocation;
mod attributed;
pub mod balance;
pub mod breaches;
pub mod claims;
pub mod clash;
pub mod client_timeout;
pub mod completed;
pub mod conditions;
pub mod conflicts;
pub mod corrections;
pub mod deduplication;
pub mod delta;
pub mod directory;
pub mod enforcement;
pub mod ephemeral;
pub mod events;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod flows;
pub mod full_name;
mod hashed;
pub mod health;
pub mod kernel_sockets;
pub mod line_shares;
pub mod listen_drops;
pub mod map;
pub mod memory;
pub mod messages;
pub mod owners;
mod packed;
pub mod pattern;
mod per_slot;
pub mod port;
pub mod port_ranges;
pub mod probes;
pub mod queues;
pub mod recent;
pub mod reclaim;
pub mod registry;
pub mod relations;
pub mod reservation_status;
pub mod reservations;
pub mod rows;
pub mod segments;
pub mod service;
mod shared_map;
pub mod slot;
pub mod snapshot;
pub mod state;
pub mod stopping;
pub mod tables;
pub mod tally;
pub mod timeouts;
pub mod timestamp;
pub mod unsent;
pub mod unverified;
pub mod violations;
mod well_known;
pub mod why;
