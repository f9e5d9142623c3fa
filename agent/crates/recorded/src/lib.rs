//! What was recorded, by other hosts, in a snapshot or by Prometheus, as answers of an agent.
//!
//! Facts come from elsewhere than from the tables of a kernel; what is made of them is made by the
//! agent's own code, so that a figure means the same wherever it is from.

#![forbid(unsafe_code)]

mod map;
pub mod prometheus;

pub use self::map::around;
