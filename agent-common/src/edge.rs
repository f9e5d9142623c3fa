//! Edges: who talks to whom, and everything counted about it.
//!
//! An edge is one side's view of a pair: the owner of the local sockets, the role it plays, the
//! remote address and the server's port. It gets a slot once per connection; everything that
//! happens later is an indexed addition into that slot.

use crate::histogram::Histogram;
use crate::ledger::{EDGE, NO_SLOT};
use crate::reset::CAUSES;
use crate::slot_table::EDGES;

/// Nothing known; never stored in a slot's key, but the overflow slot 0 carries it.
pub const ROLE_UNKNOWN: u8 = 0;
/// The side that connected.
pub const ROLE_CLIENT: u8 = 1;
/// The side that accepted.
pub const ROLE_SERVER: u8 = 2;
/// A listening socket; its row counts what happens before a connection exists.
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
        /// 1 on the row of attempts that the kernel refused before a SYN; see
        /// [`EdgeCounters::unsent`].
        pub refused: u8,
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
        /// Its remote address: a key that has an owner instead does not tell it.
        pub remote: [u32; 4],
        /// When the slot was taken, CLOCK_MONOTONIC microseconds; 0 = free.
        pub born_us: u64,
    }

    /// Everything counted about an edge. All fields only grow while the slot is in use.
    pub struct EdgeCounters: 2280 {
        /// Ended connection attempts by `CONNECT_*`; for a server, accepted connections are `ok`.
        pub connects: [u64; CONNECT_RESULTS],
        /// Attempts that the kernel refused before a SYN could leave; what their result is, user
        /// space finds out, and adds them to `connects`.
        pub unsent: u64,
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
        /// Connection requests a listener dropped (`sk_drops`), mostly a full accept queue.
        pub listen_drops: u64,
        /// SYN-ACKs a listener had to send again.
        pub synack_retransmits: u64,
        /// Time from SYN to established.
        pub connect: Histogram,
        /// Smoothed round trip time, sampled through a connection's life.
        pub rtt: Histogram,
        /// Request latency at the socket; see docs/metrics.md.
        pub request: Histogram,
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

impl EdgeCounters {
    /// Adds `other` to these counters.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, u64::wrapping_add);
    }

    /// Takes `other` away again, which had been added to these counters.
    pub fn separate(&mut self, other: &Self) {
        self.combine(other, u64::wrapping_sub);
    }

    fn combine(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        let Self {
            connects,
            unsent,
            opened,
            closed,
            preexisting,
            sent_bytes,
            received_bytes,
            retransmits,
            resets_sent,
            resets_received,
            listen_drops,
            synack_retransmits,
            connect,
            rtt,
            request,
        } = self;
        let both = |mine: &mut u64, theirs: u64| *mine = with(*mine, theirs);
        for (mine, theirs) in [
            (&mut connects[..], &other.connects[..]),
            (&mut resets_sent[..], &other.resets_sent[..]),
            (&mut resets_received[..], &other.resets_received[..]),
        ] {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| both(mine, *theirs));
        }
        both(unsent, other.unsent);
        both(opened, other.opened);
        both(closed, other.closed);
        both(preexisting, other.preexisting);
        both(sent_bytes, other.sent_bytes);
        both(received_bytes, other.received_bytes);
        both(retransmits, other.retransmits);
        both(listen_drops, other.listen_drops);
        both(synack_retransmits, other.synack_retransmits);
        connect.combine(&other.connect, with);
        rtt.combine(&other.rtt, with);
        request.combine(&other.request, with);
    }

    /// Connections open now.
    pub fn active(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wire;

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

    #[test]
    fn merging_and_separating_reach_every_field() {
        // All words one: a field that merge forgot would stay at one instead of two.
        let mut ones = EdgeCounters::zeroed();
        let words = size_of::<EdgeCounters>() / 8;
        let bytes: Vec<u8> = (0..words).flat_map(|_| 1u64.to_ne_bytes()).collect();
        if let Some(value) = EdgeCounters::from_bytes(&bytes) {
            ones = value;
        }
        let mut merged = ones;
        merged.merge(&ones);
        let twos: Vec<u8> = (0..words).flat_map(|_| 2u64.to_ne_bytes()).collect();
        assert_eq!(Some(merged), EdgeCounters::from_bytes(&twos));
        merged.separate(&ones);
        assert_eq!(merged, ones);
    }
}
