//! Safe access to Linux: procfs, cgroups, network namespaces, sock_diag, conntrack, capabilities.
//!
//! At start, [`existing::survey`] lists the sockets of every network namespace (`sock_diag`) and
//! finds their processes in /proc, and decides role and owner of each. The kernel programs adopt
//! these pre-existing sockets by cookie; their counters start then.

use std::fmt;

pub mod addresses;
pub mod capability;
pub mod cgroup_watch;
pub mod clients;
pub mod clock;
pub mod conditions;
pub mod conntrack;
pub mod current_holders;
pub mod diag;
pub mod drops;
pub mod ephemeral;
pub mod executable;
pub mod existing;
pub mod foreign_path;
pub mod hierarchy;
pub mod holders;
pub mod hops;
pub mod inspection;
pub mod links;
pub mod listening;
mod memory_read;
pub mod mounts;
pub mod namespace_names;
pub mod namespaces;
mod netlink;
pub mod network;
pub mod oom;
pub mod pages;
pub mod peer;
pub mod probes;
pub mod process_addresses;
pub mod procfs;
pub mod project_files;
pub mod readiness;
pub mod refusal;
pub mod route;
pub mod starvation;
#[cfg(test)]
mod users_namespace;

pub use existing::{Socket, Survey, survey};
pub use namespaces::Namespace;

/// Something that could not be read, and its consequence for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What failed, with the reason.
    pub what: String,
    /// The consequence: what is not observed, or observed under a less specific name.
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
