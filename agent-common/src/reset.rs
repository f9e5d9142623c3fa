//! Why a connection was reset: a closed set of causes.
//!
//! Sent resets carry the kernel's own reason from 6.10 on (`enum sk_rst_reason`,
//! include/net/rstreason.h); the daemon maps its values by name into causes at load time,
//! because the numbers moved between releases. Received resets carry none: the cause follows
//! from what the connection was doing.

/// How many causes there are.
pub const CAUSES: usize = 11;
/// How many of them, the first ones, hooks can find; those behind are only found out later.
pub const HOT_CAUSES: usize = 10;

/// An idle connection reused after this long and then reset counts as [`IDLE_REUSE`] (µs).
pub const IDLE_REUSE_US: u64 = 1_000_000;

/// Keep-alive probes went unanswered.
pub const KEEPALIVE_TIMEOUT: u8 = 0;
/// A request was written on a connection that had been idle.
pub const IDLE_REUSE: u8 = 1;
/// The program closed the socket with received data unread.
pub const UNREAD_DATA: u8 = 2;
/// The program closed with `SO_LINGER` 0, or disconnected.
pub const LINGER: u8 = 3;
/// A connection request met no listener.
pub const NO_LISTENER: u8 = 4;
/// A segment met no connection: this host has forgotten it, or closed it for good.
pub const NO_CONNECTION: u8 = 5;
/// The connection was cut while it was in use.
pub const ABORTED: u8 = 6;
/// Bad sequence, flags or state; MPTCP errors.
pub const PROTOCOL: u8 = 7;
/// This kernel does not say.
pub const UNKNOWN: u8 = 8;
/// The client cut a connection on which it had never sent a byte, as health checks do.
pub const UNUSED: u8 = 9;
/// The server was stopping: its listener had just ended.
pub const STOPPING: u8 = 10;

/// Label values, indexed by cause.
pub const CAUSE_NAMES: [&str; CAUSES] = [
    "keepalive_timeout",
    "idle_reuse",
    "unread_data",
    "linger",
    "no_listener",
    "no_connection",
    "aborted",
    "protocol",
    "unknown",
    "unused",
    "stopping",
];

/// The cause behind the name of a `sk_rst_reason` enumerator.
///
/// `SK_RST_REASON_NO_SOCKET` becomes [`NO_CONNECTION`]; the hook turns it into [`NO_LISTENER`]
/// when the segment was a SYN.
pub fn cause_of_reason(name: &str) -> u8 {
    match name.strip_prefix("SK_RST_REASON_").unwrap_or(name) {
        "TCP_KEEPALIVE_TIMEOUT" => KEEPALIVE_TIMEOUT,
        "TCP_ABORT_ON_CLOSE" => UNREAD_DATA,
        "TCP_ABORT_ON_LINGER" | "TCP_DISCONNECT_WITH_DATA" => LINGER,
        "NO_SOCKET" | "TCP_TIMEWAIT_SOCKET" => NO_CONNECTION,
        // Data for a socket whose program has closed it, and segments for a dead connection.
        "TCP_ABORT_ON_DATA" | "TCP_ABORT_ON_MEMORY" | "TCP_STATE" => ABORTED,
        "TCP_INVALID_ACK_SEQUENCE"
        | "TCP_RFC7323_PAWS"
        | "TCP_TOO_OLD_ACK"
        | "TCP_ACK_UNSENT_DATA"
        | "TCP_FLAGS"
        | "TCP_OLD_ACK"
        | "INVALID_SYN" => PROTOCOL,
        mptcp if mptcp.starts_with("MPTCP_") => PROTOCOL,
        _ => UNKNOWN,
    }
}

/// The cause of a *received* reset.
///
/// * `in_flight`: something that we had written was not acknowledged, so the peer may have refused
///   it;
/// * `idle_us`: for how long nothing had been sent or received before that was sent.
///
/// Whether the peer had closed says nothing: one that closes between two requests of a busy
/// connection is restarted, or has reached its limit of requests.
#[inline(always)]
pub const fn cause_of_received(in_flight: bool, idle_us: u64) -> u8 {
    if in_flight && idle_us >= IDLE_REUSE_US { IDLE_REUSE } else { ABORTED }
}

/// The cause of a reset that a client sends, or that a server receives; `is_silent`: the client never
/// sent a byte on this connection.
///
/// A check of a load balancer connects to see whether somebody listens, and cuts the connection so that
/// no TIME_WAIT stays. The client has lost nothing, whatever the server may have sent.
#[inline(always)]
pub const fn cause_from_client(cause: u8, is_silent: bool) -> u8 {
    match cause {
        UNREAD_DATA | LINGER | ABORTED | UNKNOWN if is_silent => UNUSED,
        _ => cause,
    }
}

/// Whether resets with this cause are news about a connection: neither a failed connect nor a check.
pub const fn is_of_connection(cause: usize) -> bool {
    !is_refused_connect(cause) && cause != UNUSED as usize
}

/// Whether resets with this cause answer a connect, so they are shown as failed connects already
/// ([`crate::edge::CONNECT_REFUSED`]): people read them once.
pub const fn is_refused_connect(cause: usize) -> bool {
    cause == NO_LISTENER as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_map_by_name() {
        let check = |name, cause: u8| assert_eq!(cause_of_reason(name), cause, "{name}");
        check("SK_RST_REASON_TCP_KEEPALIVE_TIMEOUT", KEEPALIVE_TIMEOUT);
        check("SK_RST_REASON_NO_SOCKET", NO_CONNECTION);
        check("SK_RST_REASON_TCP_ABORT_ON_LINGER", LINGER);
        check("SK_RST_REASON_MPTCP_RST_EUNSPEC", PROTOCOL);
        check("SK_RST_REASON_NOT_SPECIFIED", UNKNOWN);
        check("SK_RST_REASON_SOMETHING_OF_2030", UNKNOWN);
    }

    #[test]
    fn a_client_that_never_sent_a_byte_has_only_looked() {
        for cause in [UNREAD_DATA, LINGER, ABORTED, UNKNOWN] {
            assert_eq!(cause_from_client(cause, true), UNUSED);
            assert_eq!(cause_from_client(cause, false), cause);
        }
        for cause in [KEEPALIVE_TIMEOUT, NO_LISTENER, PROTOCOL] {
            assert_eq!(cause_from_client(cause, true), cause);
        }
    }

    #[test]
    fn a_reset_after_reuse_of_an_idle_connection_is_told_from_a_cut() {
        assert_eq!(cause_of_received(true, 5_000_000), IDLE_REUSE);
        assert_eq!(cause_of_received(true, 10), ABORTED);
        assert_eq!(cause_of_received(false, 5_000_000), ABORTED);
    }
}
