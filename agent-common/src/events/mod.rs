//! Records for the ring: rare, attributable facts. Each is also counted in a table, so a lost
//! record loses a detail, never a count.

pub mod connect_failed;
pub mod reset;

/// No kind: a call for the daemon, which leaves nothing to read. It has a budget like the kinds.
pub const CALL: u32 = 0;
/// Kind of a [`connect_failed::ConnectFailed`].
pub const KIND_CONNECT_FAILED: u32 = 1;
/// Kind of a [`reset::Reset`].
pub const KIND_RESET: u32 = 2;

/// How many kinds there are, plus one (kinds start at 1).
pub const KINDS: usize = 3;

/// How many records of one kind one CPU may write per second.
pub const RATE_PER_SECOND: u64 = 100;

crate::wire! {
    /// Front of every record.
    pub struct EventHeader: 16 {
        /// `KIND_*`.
        pub kind: u32,
        /// Row of the owner.
        pub owner: u32,
        /// CLOCK_MONOTONIC nanoseconds.
        pub time_ns: u64,
    }

    /// One CPU's rate limiter for one kind.
    pub struct RateWindow: 16 {
        /// Start of the running second, nanoseconds.
        pub since_ns: u64,
        /// Records written in it.
        pub written: u64,
    }
}
