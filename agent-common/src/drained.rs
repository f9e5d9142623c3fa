//! Rows as user space has them after a drain: the kernel half's tables, copied.

use std::sync::Arc;

use crate::address::Address;
use crate::attempt::FailureRow;
use crate::counters::EdgeCounters;
use crate::edge::EdgeKey;
use crate::share::Tenant;

/// Which table of the kernel half counts for an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Edges with connections.
    Edges,
    /// Listeners.
    Listeners,
    /// Connects that were refused before a SYN.
    Unsent,
}

/// How many of these tables there are.
pub const TABLES: usize = 3;

/// One edge as the kernel has it now.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The table that its row is in.
    pub table: Table,
    /// Its slot there.
    pub slot: u32,
    /// Which edge; of an overflow row only the role.
    pub key: EdgeKey,
    /// The local address of the connection that took the slot.
    pub local: Address,
    /// Its remote address.
    pub remote: Address,
    /// When the slot was taken: differs when a slot is used again. 0 for an overflow row.
    pub born_us: u64,
    /// Totals since then.
    pub counters: Arc<EdgeCounters>,
}

/// A row of a slot table in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<R> {
    /// Its number; the reserved ones have no owner of their own.
    pub slot: u32,
    /// Its contents.
    pub row: R,
}

/// A row of failed binds as the kernel has it now.
pub type Claim = Row<FailureRow>;

// === impl Edge ===

impl Edge {
    /// Whether it stands for edges of its role that found no row of their own: all of them, or those
    /// of a tenant.
    pub fn is_overflow(&self) -> bool {
        self.is_reserved() || self.others().is_some()
    }

    /// Whether its slot is never taken nor given back.
    pub fn is_reserved(&self) -> bool {
        self.born_us == 0
    }

    /// Whose edges without a row of their own it stands for, if those are one tenant's.
    pub fn others(&self) -> Option<Tenant> {
        self.key.others()
    }
}
