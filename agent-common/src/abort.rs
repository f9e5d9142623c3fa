//! Why the kernel gave up an established connection, without a reset from the peer: a closed set of
//! causes.
//!
//! All of these ends go through `tcp_write_err` (net/ipv4/tcp_timer.c), which sets `sk_err` to the
//! last soft error, else to ETIMEDOUT, before the state becomes CLOSE. Who called it follows from
//! the socket: `tcp_keepalive_timer` leaves sockets alone that have anything unacknowledged or
//! unsent, and `tcp_write_timeout` and `tcp_probe_timer` run only for those that have.

/// How many causes there are.
pub const ABORT_CAUSES: usize = 4;

/// Data was not acknowledged within `TCP_USER_TIMEOUT`.
pub const USER_TIMEOUT: u8 = 0;
/// Keep-alive probes went unanswered.
pub const KEEPALIVE: u8 = 1;
/// Data was not acknowledged, or a closed window not opened, within the kernel's retries.
pub const RETRANSMISSION: u8 = 2;
/// The same, and an ICMP error or the lack of a route or neighbour said why.
pub const UNREACHABLE: u8 = 3;

/// Label values, indexed by cause.
pub const ABORT_CAUSE_NAMES: [&str; ABORT_CAUSES] =
    ["user_timeout", "keepalive", "retransmission", "unreachable"];

/// The cause of the end of a connection with `sk_err`; `None` if it ended in another way.
///
/// * `is_acknowledged`: the peer had acknowledged everything that the program wrote;
/// * `has_user_timeout`: the program set `TCP_USER_TIMEOUT`, which then takes the place of the
///   kernel's number of retries.
#[inline(always)]
pub const fn abort_cause(errno: i32, is_acknowledged: bool, has_user_timeout: bool) -> Option<u8> {
    match errno {
        // ETIMEDOUT
        110 if is_acknowledged => Some(KEEPALIVE),
        110 if has_user_timeout => Some(USER_TIMEOUT),
        110 => Some(RETRANSMISSION),
        // EACCES, ENONET, EPROTO, ENOPROTOOPT, EOPNOTSUPP, ENETDOWN, ENETUNREACH, ECONNREFUSED,
        // EHOSTDOWN, EHOSTUNREACH: what ICMP errors become (`icmp_err_convert`,
        // net/ipv4/icmp.c; `tab_unreach`, net/ipv6/icmp.c).
        13 | 64 | 71 | 92 | 95 | 100 | 101 | 111 | 112 | 113 => Some(UNREACHABLE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_that_gave_up_follows_from_the_socket() {
        let check = |errno, is_acknowledged, has_user_timeout, expected| {
            let cause = abort_cause(errno, is_acknowledged, has_user_timeout);
            assert_eq!(cause, expected, "errno {errno}");
        };
        check(110, true, false, Some(KEEPALIVE));
        check(110, true, true, Some(KEEPALIVE));
        check(110, false, true, Some(USER_TIMEOUT));
        check(110, false, false, Some(RETRANSMISSION));
        check(113, false, true, Some(UNREACHABLE));
        check(101, true, false, Some(UNREACHABLE));
        // An ordinary end, and resets in CLOSE_WAIT and elsewhere.
        for errno in [0, 32, 103, 104] {
            check(errno, false, true, None);
        }
    }
}
