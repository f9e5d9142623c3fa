//! Retransmits by the phase of the connection that they fall into: a closed set.

/// How many phases there are.
pub const PHASES: usize = 3;

/// A connect that is not answered yet.
pub const SYN: u8 = 0;
/// Data, until this side closes.
pub const ESTABLISHED: u8 = 1;
/// This side has closed: its FIN, and data before it that is not acknowledged.
pub const CLOSING: u8 = 2;

/// Label values, indexed by phase.
pub const PHASE_NAMES: [&str; PHASES] = ["syn", "established", "closing"];

/// The phase of a socket in this TCP state (include/net/tcp_states.h).
///
/// While the hook of a state change runs, the socket still has the state before, and the stack holds
/// its lock. So who reads the count of retransmits first and then the state gets a phase that the
/// count belongs to, or finds that the hook has counted all of it under the phase before.
#[inline(always)]
pub const fn phase(state: u8) -> u8 {
    match state {
        // SYN_SENT, SYN_RECV
        2 | 3 => SYN,
        // FIN_WAIT1, FIN_WAIT2, LAST_ACK, CLOSING
        4 | 5 | 9 | 11 => CLOSING,
        // ESTABLISHED, and CLOSE_WAIT, where this side may go on sending.
        _ => ESTABLISHED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_has_not_closed_is_established_whatever_the_other_did() {
        let check = |states: &[u8], expected| {
            for state in states {
                assert_eq!(phase(*state), expected, "TCP state {state}");
            }
        };
        check(&[2, 3], SYN);
        check(&[1, 8], ESTABLISHED);
        check(&[4, 5, 9, 11], CLOSING);
    }
}
