//! Edges: who talks to whom, and everything counted about it.
//!
//! An edge is one side's view of a pair: the owner of the local sockets, the role it plays, the
//! remote address and the server's port. It gets a slot once per connection; everything that
//! happens later is an indexed addition into that slot. Listeners ([`crate::listener`]) and attempts
//! that never got as far as a SYN ([`crate::unsent`]) have tables of their own; user space shows all
//! three as edges ([`crate::drained::Edge`]).

use crate::durations::KINDS;
use crate::ledger::{EDGE, NO_SLOT};
use crate::reset::CAUSES;
use crate::slot_table::EDGES;

/// Nothing known; never stored in a slot's key, but the overflow slot 0 carries it.
pub const ROLE_UNKNOWN: u8 = 0;
/// The side that connected.
pub const ROLE_CLIENT: u8 = 1;
/// The side that accepted.
pub const ROLE_SERVER: u8 = 2;
/// A listening socket; what happens before a connection exists. Such rows are in a table of their own.
pub const ROLE_LISTENER: u8 = 3;

/// Label values, indexed by role.
pub const ROLE_NAMES: [&str; 4] = ["unknown", "client", "server", "listener"];

/// Slots below this one are overflow rows, one per role: slot r takes what found no slot of
/// its own in role r, so totals stay exact.
pub const FIRST_FREE_SLOT: u32 = 4;

crate::wire! {
    /// What makes an edge.
    pub struct EdgeKey: 24 {
        /// Row of the owner of the local sockets.
        pub owner: u32,
        /// The server's port, host byte order.
        pub port: u16,
        /// `ROLE_*`.
        pub role: u8,
        /// Always zero.
        pub zero: u8,
        /// The remote address; for a listener the address it listens on.
        pub remote: [u32; 4],
    }

    /// Which edge a slot belongs to. `born_us` is written last: a row without it is not in use.
    pub struct EdgeRow: 64 {
        /// The edge.
        pub key: EdgeKey,
        /// The local address of the connection that took the slot. Later ones of the edge have
        /// the same, unless the program binds to an address or clients use several of a server's.
        pub local: [u32; 4],
        /// Its remote address: a key that has an owner instead lacks it.
        pub remote: [u32; 4],
        /// When the slot was taken, CLOCK_MONOTONIC microseconds; 0 = free.
        pub born_us: u64,
    }

    /// What hooks count about an edge, on one shard. All fields only grow while the slot is in use.
    pub struct HotCounters: 288 {
        /// Ended connection attempts by `CONNECT_*`; for a server, accepted connections are `ok`.
        pub connects: [u64; CONNECT_RESULTS],
        /// Connections that became established.
        pub opened: u64,
        /// Established connections that ended.
        pub closed: u64,
        /// Connections that were there before the agent; also counted in `opened`.
        pub preexisting: u64,
        /// Payload bytes handed to the network for the first time.
        pub sent_bytes: u64,
        /// Payload bytes received in order.
        pub received_bytes: u64,
        /// Segments sent again (`tcp_sock.total_retrans`).
        pub retransmits: u64,
        /// Resets sent, by cause.
        pub resets_sent: [u64; CAUSES],
        /// Resets received, by cause.
        pub resets_received: [u64; CAUSES],
        /// In which rows durations are counted, by kind; see [`crate::durations`].
        pub histograms: [u64; KINDS],
    }
}

crate::slot_row! { EdgeRow {
    key: EdgeKey, table: EDGES, reserved: FIRST_FREE_SLOT, ledger: Some((EDGE, NO_SLOT))
} }

/// The handshake completed.
pub const CONNECT_OK: u8 = 0;
/// The peer answered with a reset, or a port-unreachable came back.
pub const CONNECT_REFUSED: u8 = 1;
/// No answer within the kernel's retries.
pub const CONNECT_TIMEOUT: u8 = 2;
/// No route, or the network said host or net unreachable.
pub const CONNECT_UNREACHABLE: u8 = 3;
/// The connection was reset during the handshake.
pub const CONNECT_RESET: u8 = 4;
/// A policy said no.
pub const CONNECT_DENIED: u8 = 5;
/// The program closed the socket before the handshake ended, as it does on its own timeout.
pub const CONNECT_ABORTED: u8 = 6;
/// No local port or address was left to connect from.
pub const CONNECT_ADDRESS_UNAVAILABLE: u8 = 7;
/// Anything else.
pub const CONNECT_OTHER: u8 = 8;

/// How many results there are.
pub const CONNECT_RESULTS: usize = 9;

/// Label values, indexed by result.
pub const CONNECT_RESULT_NAMES: [&str; CONNECT_RESULTS] = [
    "ok",
    "refused",
    "timeout",
    "unreachable",
    "reset",
    "denied",
    "aborted",
    "address_unavailable",
    "other",
];

/// The result behind `sk_err` of a connect that did not succeed (include/uapi/asm-generic/errno.h).
///
/// `had_port`: a local port had been chosen. Without one and without an error the kernel found
/// none (`inet_hash_connect` fails before it sets `sk_err`).
#[inline(always)]
pub const fn connect_result(errno: i32, had_port: bool) -> u8 {
    match errno {
        0 if had_port => CONNECT_ABORTED,
        0 | 99 => CONNECT_ADDRESS_UNAVAILABLE, // EADDRNOTAVAIL
        111 => CONNECT_REFUSED,                // ECONNREFUSED
        110 => CONNECT_TIMEOUT,                // ETIMEDOUT
        // ENONET, ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH
        64 | 100 | 101 | 112 | 113 => CONNECT_UNREACHABLE,
        104 => CONNECT_RESET,     // ECONNRESET
        1 | 13 => CONNECT_DENIED, // EPERM, EACCES
        103 => CONNECT_ABORTED,   // ECONNABORTED
        _ => CONNECT_OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_fall_into_their_class() {
        let check = |errno, had_port, expected: u8| {
            assert_eq!(connect_result(errno, had_port), expected, "errno {errno}");
        };
        check(111, true, CONNECT_REFUSED);
        check(110, true, CONNECT_TIMEOUT);
        check(113, true, CONNECT_UNREACHABLE);
        check(101, false, CONNECT_UNREACHABLE);
        check(0, true, CONNECT_ABORTED);
        check(0, false, CONNECT_ADDRESS_UNAVAILABLE);
        check(13, true, CONNECT_DENIED);
        check(5, true, CONNECT_OTHER);
    }
}
