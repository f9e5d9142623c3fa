//! Edges: who talks to whom, and everything counted about it.
//!
//! An edge is one side's view of a pair: the owner of the local sockets, the role it plays, the
//! remote address and the server's port. It gets a slot once per connection; everything that
//! happens later is an indexed addition into that slot. Listeners ([`crate::listener`]) and attempts
//! that never got as far as a SYN ([`crate::unsent`]) have tables of their own; user space shows all
//! three as edges ([`crate::drained::Edge`]).

use crate::abort::ABORT_CAUSES;
use crate::durations::KINDS;
use crate::ledger::{EDGE, NO_SLOT};
use crate::limit::LIMITS;
use crate::reset::HOT_CAUSES;
use crate::retransmit::PHASES;
use crate::share::Tenant;
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

/// In [`EdgeKey::owner`]: the row of a tenant's edges that found none of their own. No slot has this
/// number, so nobody can make such a key.
const OF_TENANT: u32 = u32::MAX;

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
    pub struct EdgeRow: 80 {
        /// The edge.
        pub key: EdgeKey,
        /// The local address of the connection that took the slot. Later ones of the edge have
        /// the same, unless the program binds to an address or clients use several of a server's.
        pub local: [u32; 4],
        /// Its remote address: a key that has an owner instead lacks it.
        pub remote: [u32; 4],
        /// When the slot was taken, CLOCK_MONOTONIC microseconds; 0 = free.
        pub born_us: u64,
        /// Whose share the slot counts against.
        pub tenant: Tenant,
    }

    /// What hooks count about an edge, on one shard. All fields only grow while the slot is in use.
    pub struct HotCounters: 456 {
        /// Ended connection attempts by `CONNECT_*`, of those that hooks find; for a server, accepted
        /// connections are `ok`.
        pub connects: [u64; HOT_CONNECT_RESULTS],
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
        /// Segments sent again (`tcp_sock.total_retrans`), by phase ([`crate::retransmit`]).
        pub retransmits: [u64; PHASES],
        /// Retransmission timeouts (`tcp_sock.total_rto`, since Linux 6.7).
        pub timeouts: u64,
        /// Segments that the peer says it has received twice (`tcp_sock.dsack_dups`).
        pub dsacks: u64,
        /// For how long something kept data from being sent, microseconds ([`crate::limit`]).
        pub limited_us: [u64; LIMITS],
        /// Resets sent, by cause.
        pub resets_sent: [u64; HOT_CAUSES],
        /// Resets received, by cause.
        pub resets_received: [u64; HOT_CAUSES],
        /// Established connections that the kernel gave up, by cause ([`crate::abort`]).
        pub aborts: [u64; ABORT_CAUSES],
        /// Requests that ended without an answer ([`crate::unanswered`]).
        pub unanswered: u64,
        /// Requests that took long, one after the other on a connection ([`crate::wait`]).
        pub waits: u64,
        /// In which rows durations are counted, by kind; see [`crate::durations`].
        pub histograms: [u64; KINDS],
    }
}

crate::slot_row! { EdgeRow {
    key: EdgeKey, table: EDGES, reserved: FIRST_FREE_SLOT, ledger: Some((EDGE, NO_SLOT))
} }

impl EdgeKey {
    /// The key of all edges of a tenant in this role that found no row of their own.
    #[inline(always)]
    pub const fn others_of(tenant: Tenant, role: u8) -> Self {
        let Tenant { cgroup, origin } = tenant;
        let remote = [cgroup as u32, (cgroup >> 32) as u32, origin as u32, (origin >> 32) as u32];
        Self { owner: OF_TENANT, port: 0, role, zero: 0, remote }
    }

    /// Whose edges without a row of their own this is the key of, if it is one.
    pub const fn others(&self) -> Option<Tenant> {
        if self.owner != OF_TENANT {
            return None;
        }
        let [a, b, c, d] = self.remote;
        let cgroup = a as u64 | (b as u64) << 32;
        Some(Tenant { cgroup, origin: c as u64 | (d as u64) << 32 })
    }
}

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
/// Every local port for that destination was in use.
pub const CONNECT_PORTS_EXHAUSTED: u8 = 7;
/// Anything else.
pub const CONNECT_OTHER: u8 = 8;
/// No address of this host can be the source: it has none of that family.
pub const CONNECT_ADDRESS_UNAVAILABLE: u8 = 9;
/// Another connection to that destination has the source port that the program had bound.
pub const CONNECT_PORT_IN_USE: u8 = 10;
/// An earlier connection to that destination has the source port that the program had bound: its
/// program has closed it, and it is in TIME_WAIT or on the way there.
pub const CONNECT_TIME_WAIT: u8 = 11;
/// The peer refused or reset the attempt while it was stopping: its listener had just ended.
pub const CONNECT_STOPPING: u8 = 12;

/// How many results there are.
pub const CONNECT_RESULTS: usize = 13;
/// How many of them, the first ones, hooks can find; those behind are only found out later: of
/// attempts without a SYN ([`crate::unsent`]), and when a server stops.
pub const HOT_CONNECT_RESULTS: usize = 9;

/// Label values, indexed by result.
pub const CONNECT_RESULT_NAMES: [&str; CONNECT_RESULTS] = [
    "ok",
    "refused",
    "timeout",
    "unreachable",
    "reset",
    "denied",
    "aborted",
    "ports_exhausted",
    "other",
    "address_unavailable",
    "port_in_use",
    "time_wait",
    "stopping",
];

/// Whether an attempt with this result failed on the client's own side: no address or port to connect
/// from, a policy that forbids it, or a program that did not wait. So do all attempts that were
/// refused before a SYN ([`crate::unsent`]), whatever their result.
pub const fn is_clients_own(result: u8) -> bool {
    matches!(
        result,
        CONNECT_DENIED
            | CONNECT_ABORTED
            | CONNECT_PORTS_EXHAUSTED
            | CONNECT_ADDRESS_UNAVAILABLE
            | CONNECT_PORT_IN_USE
            | CONNECT_TIME_WAIT
    )
}

/// The result behind the errno of a connect that did not succeed (include/uapi/asm-generic/errno.h):
/// `sk_err` of the socket, or what the system call returned.
#[inline(always)]
pub const fn connect_result(errno: i32) -> u8 {
    match errno {
        99 => CONNECT_ADDRESS_UNAVAILABLE, // EADDRNOTAVAIL
        111 => CONNECT_REFUSED,            // ECONNREFUSED
        110 => CONNECT_TIMEOUT,            // ETIMEDOUT
        // ENONET, ENETDOWN, ENETUNREACH, EHOSTDOWN, EHOSTUNREACH
        64 | 100 | 101 | 112 | 113 => CONNECT_UNREACHABLE,
        104 => CONNECT_RESET,       // ECONNRESET
        1 | 13 => CONNECT_DENIED,   // EPERM, EACCES
        0 | 103 => CONNECT_ABORTED, // ECONNABORTED
        _ => CONNECT_OTHER,
    }
}

/// The result of an attempt that got as far as SYN_SENT, from `sk_err` and whether a SYN was made.
///
/// Without either, `tcp_v4_connect` or `tcp_v6_connect` failed behind the state change, where
/// `inet_hash_connect` looks for a source port and returns EADDRNOTAVAIL, which it does not leave in
/// `sk_err` (`__inet_hash_connect`, net/ipv4/inet_hashtables.c): all ports of the range were taken,
/// or the one that the program had bound (`bound`) was. The latter is counted as not sent.
#[inline(always)]
pub const fn attempt_result(errno: i32, has_syn: bool, bound: bool) -> u8 {
    if errno == 0 && !has_syn {
        return if bound { CONNECT_PORT_IN_USE } else { CONNECT_PORTS_EXHAUSTED };
    }
    let result = connect_result(errno);
    if (result as usize) < HOT_CONNECT_RESULTS { result } else { CONNECT_OTHER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_tenants_others_says_whose_it_is() {
        let tenant = Tenant { cgroup: 0x0123_4567_89ab_cdef, origin: crate::share::BY_USER + 1500 };
        let key = EdgeKey::others_of(tenant, ROLE_SERVER);
        assert_eq!((key.others(), key.role), (Some(tenant), ROLE_SERVER));
        assert_eq!(EdgeKey { owner: 7, ..key }.others(), None);
    }

    #[test]
    fn errors_fall_into_their_class() {
        let check = |errno, expected: u8| {
            assert_eq!(connect_result(errno), expected, "errno {errno}");
        };
        check(111, CONNECT_REFUSED);
        check(110, CONNECT_TIMEOUT);
        check(113, CONNECT_UNREACHABLE);
        check(101, CONNECT_UNREACHABLE);
        check(0, CONNECT_ABORTED);
        check(99, CONNECT_ADDRESS_UNAVAILABLE);
        check(13, CONNECT_DENIED);
        check(5, CONNECT_OTHER);
    }

    #[test]
    fn only_an_attempt_without_a_syn_and_without_an_error_lacked_a_port() {
        let check = |errno, has_syn, bound, expected: u8| {
            assert_eq!(attempt_result(errno, has_syn, bound), expected, "errno {errno}");
        };
        check(0, false, false, CONNECT_PORTS_EXHAUSTED);
        check(0, false, true, CONNECT_PORT_IN_USE);
        check(0, true, false, CONNECT_ABORTED);
        check(0, true, true, CONNECT_ABORTED);
        check(111, true, true, CONNECT_REFUSED);
        check(113, false, false, CONNECT_UNREACHABLE);
        // What hooks count has no place for it, and `sk_err` never is.
        check(99, true, false, CONNECT_OTHER);
    }
}
