//! Rows as user space has them after a drain: the kernel half's tables, copied.

use std::sync::Arc;

use crate::address::Address;
use crate::attempt::FailureRow;
use crate::edge::{EdgeCounters, EdgeKey};

/// One edge as the kernel has it now.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Its slot; below `FIRST_FREE_SLOT` an overflow row.
    pub slot: u32,
    /// Which edge; all zeros for an overflow row.
    pub key: EdgeKey,
    /// The local address of the connection that took the slot.
    pub local: Address,
    /// Its remote address.
    pub remote: Address,
    /// When the slot was taken; tells a slot used again from the one before.
    pub born_us: u64,
    /// Totals since then.
    pub counters: Arc<EdgeCounters>,
}

/// A row of failed binds as the kernel has it now.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Its number; below `FIRST_FREE_FAILURE` it belongs to nobody in particular.
    pub slot: u32,
    /// Its contents.
    pub row: FailureRow,
}
