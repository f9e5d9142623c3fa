//! Connects that the kernel refused before a SYN could leave, counted by who connects where to.
//!
//! The kernel half cannot know why: the errno is nowhere but in the answer of the system call, and
//! who has a source port only in the kernel's tables of connections. User space finds that out. A program that only ever fails so takes one of these rows and none of the
//! edges'.
//!
//! The rows have no shards: an attempt is counted when the next one of its thread begins, and a
//! system call that fails takes longer than an addition that CPUs contend for.

use crate::ledger::{EDGE, NO_SLOT};
use crate::share::Tenant;
use crate::slot_table::UNSENT;

/// Row 0 takes attempts that found no row of their own.
pub const UNSENT_OVERFLOW: u32 = 0;
/// The first row that is not reserved.
pub const FIRST_FREE_UNSENT: u32 = 1;

crate::wire! {
    /// Who connects where to.
    pub struct UnsentKey: 24 {
        /// Row of the owner of the calling process.
        pub owner: u32,
        /// The remote port, host byte order.
        pub port: u16,
        /// The source port that the program had bound, which was in use; 0 if there was none, and
        /// the kernel refused for another reason.
        pub local_port: u16,
        /// The remote address.
        pub remote: [u32; 4],
    }

    /// Attempts of one kind. `born_us` is written last: a row without it is not in use.
    pub struct UnsentRow: 56 {
        /// Who connects where to; all zeros in the overflow row.
        pub key: UnsentKey,
        /// When the row was taken, CLOCK_MONOTONIC microseconds; 0 = free.
        pub born_us: u64,
        /// Whose share the slot counts against.
        pub tenant: Tenant,
        /// How many attempts were refused.
        pub count: u64,
    }
}

crate::slot_row! { UnsentRow {
    key: UnsentKey, table: UNSENT, reserved: FIRST_FREE_UNSENT, ledger: Some((EDGE, NO_SLOT))
} }
