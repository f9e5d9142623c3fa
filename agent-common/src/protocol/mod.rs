//! Protocols that are walked message by message, over every byte that a connection's packets carry.
//!
//! Each protocol is a folder with the same parts: `detect` (what a first line is), `frame` (where
//! messages begin and end), `parse` (what the framing says), `pair` (which response answers which
//! request). All of it is pure: the kernel programs run it over packets, tests run it over slices. Nothing
//! of what is read is kept but numbers, except the beginning of a line that a packet cuts.

pub mod http1;
pub mod order;
