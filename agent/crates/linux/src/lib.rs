//! What was there before the agent: sockets, who holds them, and every network namespace.
//!
//! At start, [`existing::survey`] asks the kernel (`sock_diag`) for the TCP sockets of every
//! network namespace and /proc for the processes that hold them, and decides role and owner of
//! each. The kernel half takes them over by cookie, so that their counters start from now.

use std::fmt;

pub mod addresses;
pub mod capability;
pub mod conntrack;
pub mod diag;
pub mod drops;
pub mod ephemeral;
pub mod existing;
pub mod foreign_path;
pub mod hierarchy;
pub mod holders;
pub mod inspection;
pub mod mounts;
pub mod namespaces;
pub mod pages;
pub mod peer;
pub mod probes;
pub mod process_addresses;
pub mod procfs;
pub mod readiness;
pub mod refusal;

pub use existing::{Socket, Survey, survey};
pub use namespaces::Namespace;

/// Something that could not be read, and what the user will miss for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What failed, with the reason.
    pub what: String,
    /// What will not be seen, or seen under a poorer name.
    pub consequence: String,
}

impl Problem {
    /// A problem in two sentences.
    pub fn new(what: impl Into<String>, consequence: impl Into<String>) -> Self {
        Self { what: what.into(), consequence: consequence.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.consequence)
    }
}
