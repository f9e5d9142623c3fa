//! The ledger: every countable fact is `seen`, and ends either exported or `lost` for a reason.
//!
//! For every class, at rest: `seen = exported + Σ lost{reason}`. `seen` and `lost` are counted
//! per CPU by the kernel programs; `exported` is what user space finds in the tables.

use crate::slot_table::TABLES;

/// An attempt to connect that ended, or an accepted connection. Exported: `connects`.
pub const CONNECTION: usize = 0;
/// A request that got its answer. Exported: the count of `request`.
pub const REQUEST: usize = 1;
/// A reset sent or received. Exported: `resets_sent` and `resets_received`.
pub const RESET: usize = 2;
/// A socket that deserves per-socket state. Exported: those that got it.
pub const SOCKET: usize = 3;
/// A new edge. Exported: those that got a slot; the rest is counted in an overflow row.
pub const EDGE: usize = 4;
/// A new owner. Exported: those that got a row; the rest shares the overflow owner.
pub const OWNER: usize = 5;
/// A detail record for the ring. Exported: records drained. Losing one loses no count.
pub const EVENT: usize = 6;

/// A program asked to bind, or a listen lost its port. Exported: rows of bind failures, and that of those that got their port.
pub const BIND: usize = 7;

/// An answer of a DNS server that may hold a name. Exported: those drained, read or not.
pub const DNS_ANSWER: usize = 8;

/// A response whose beginning was to be looked at. Exported: statuses, and connections of a protocol
/// that has none ([`crate::response::looked_at`]).
pub const RESPONSE: usize = 9;

/// A DNS query over UDP. Exported: those that ended, with a response or as timed out
/// ([`crate::lookup`]); others are open.
pub const DNS_LOOKUP: usize = 10;

/// A request to a service whose protocols are walked ([`crate::protocol`]). Exported: those that were
/// answered, or not until their connection ended; others are open.
pub const OPERATION: usize = 11;

/// How many classes there are.
pub const CLASSES: usize = 12;

/// Label values, indexed by class.
pub const CLASS_NAMES: [&str; CLASSES] = [
    "connection",
    "request",
    "reset",
    "socket",
    "edge",
    "owner",
    "event",
    "bind",
    "dns_answer",
    "response",
    "dns_lookup",
    "operation",
];

/// No memory for per-socket state, or more lookups open at one socket than it has room for.
pub const NO_STORAGE: usize = 0;
/// The table of edges is full.
pub const NO_SLOT: usize = 1;
/// The table of owners is full.
pub const NO_OWNER: usize = 2;
/// The ring was full.
pub const RING_FULL: usize = 3;
/// More of a kind than its share per second.
pub const RATE_LIMITED: usize = 4;
/// A map refused an insertion for another reason than being full.
pub const MAP_ERROR: usize = 5;

/// No room to remember a bind until it ends.
pub const NO_ATTEMPT: usize = 6;
/// A bind that was taken for failed, after a second of silence, and succeeded later.
pub const LATE: usize = 7;

/// The program had read an answer before we could, or too many were queued at once. Of a response: the
/// connection ended, or another one was sent, before its send returned. Of a lookup: its response may have
/// been read so.
pub const OVERTAKEN: usize = 8;
/// An answer, or the beginning of a response, lay in pages that could not be read.
pub const PAGED: usize = 9;

/// The kernel skipped a program because it was already running on that CPU. Whole runs are counted
/// by user space (`bpf_prog_info.recursion_misses`), what a fallback program noticed by that.
pub const RECURSION: usize = 10;

/// The tenant has its share of the table ([`crate::share`]).
pub const OVER_SHARE: usize = 11;

/// A response did not come from a buffer of the program that sent it: it sent a file, or by `io_uring`,
/// `splice`, or from a program of 32 bits.
pub const NO_BUFFER: usize = 12;
/// What was sent does not begin as a response of the connection's protocol does. Of an operation: where its
/// message, or one before it, begins and ends is not known.
pub const UNFRAMED: usize = 13;

/// A socket was closed soon after a query, without a response: whether there would have been one is not
/// known.
pub const CLOSED: usize = 14;

/// Packets came out of order, and what was missed was more than a body.
pub const GAP: usize = 15;
/// More requests open on one connection, or more lines in one packet, than are walked.
pub const OVERFLOW: usize = 16;

/// How many reasons there are.
pub const REASONS: usize = 17;

/// Label values, indexed by reason.
pub const REASON_NAMES: [&str; REASONS] = [
    "no_storage",
    "no_slot",
    "no_owner",
    "ring_full",
    "rate_limited",
    "map_error",
    "no_attempt",
    "late",
    "overtaken",
    "paged",
    "recursion",
    "over_share",
    "no_buffer",
    "unframed",
    "closed",
    "gap",
    "overflow",
];

crate::wire! {
    /// One CPU's part of the ledger.
    pub struct Ledger: 1784 {
        /// Facts met, by class.
        pub seen: [u64; CLASSES],
        /// Facts lost, by class and reason.
        pub lost: [[u64; REASONS]; CLASSES],
        /// When a program last asked for a connection, CLOCK_MONOTONIC nanoseconds: what became
        /// of it may be open yet.
        pub connect_ns: u64,
        /// Sockets that found no room in the table of sockets ([`crate::socket_table`]), so that their
        /// states lie in the sockets.
        pub spilled: u64,
        /// No slot above this was ever taken, by slot table: the numbers of those that were, or-ed.
        /// Free slots are offered the lowest first, but come back in any order.
        pub reach: [u64; TABLES],
    }
}

impl Ledger {
    /// Adds another CPU's part.
    pub fn merge(&mut self, other: &Self) {
        self.connect_ns = self.connect_ns.max(other.connect_ns);
        self.spilled = self.spilled.wrapping_add(other.spilled);
        for (mine, theirs) in self.reach.iter_mut().zip(other.reach) {
            *mine |= theirs;
        }
        for (mine, theirs) in self.seen.iter_mut().zip(other.seen) {
            *mine = mine.wrapping_add(theirs);
        }
        for (mine, theirs) in self.lost.iter_mut().flatten().zip(other.lost.iter().flatten()) {
            *mine = mine.wrapping_add(*theirs);
        }
    }
}
