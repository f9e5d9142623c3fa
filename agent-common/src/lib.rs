//! The contract between Portolan's kernel programs and its daemon.
//!
//! Everything both halves must agree on lives here: the layout of map keys and values, the
//! histogram grid, the canonical form of addresses, the names of what can be counted and of
//! what can be lost, and the small pure functions the kernel programs run. Because the crate
//! is `no_std` and free of kernel calls, the same functions are unit-tested on the host.
//!
//! Rules of the boundary:
//! * only integers and byte arrays cross it ([`wire!`] enforces it); enums are born in user
//!   space by `TryFrom`;
//! * a layout never has padding, so that keys compare by bytes and nothing leaks;
//! * addresses are always 16 bytes, IPv4 in its v4-mapped form ([`address`]).
#![cfg_attr(not(any(feature = "user", test)), no_std)]

pub mod abort;
pub mod address;
pub mod answer;
pub mod attempt;
pub mod bound;
pub mod config;
#[cfg(feature = "user")]
pub mod counters;
#[cfg(feature = "user")]
pub mod decode;
#[cfg(feature = "user")]
pub mod drained;
pub mod durations;
pub mod edge;
pub mod enforced;
pub mod events;
pub mod exchange;
#[cfg(feature = "user")]
pub mod exported;
pub mod histogram;
pub mod idle;
pub mod ledger;
pub mod limit;
pub mod listener;
pub mod lookup;
#[cfg(feature = "user")]
pub mod on_demand;
#[cfg(feature = "user")]
pub mod operations;
pub mod owner;
pub mod peer;
pub mod preexisting;
pub mod protocol;
pub mod queues;
pub mod reset;
pub mod response;
pub mod retransmit;
pub mod share;
pub mod slot_table;
pub mod socket;
pub mod socket_table;
pub mod unanswered;
pub mod unsent;
pub mod wait;
pub mod wire;
