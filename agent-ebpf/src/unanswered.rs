//! Requests without an answer: judged where a connection begins to end, counted where it is closed.
//! The rules: [`agent_common::unanswered`].

use agent_common::edge::{ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER};
use agent_common::exchange;
use agent_common::socket::{STAGE_OPEN, SocketState};
use agent_common::unanswered::{self, DUE, End, NOTHING_DUE, Sent, UNDECIDED};

use crate::clock::monotonic_us;
use crate::edges::count;
use crate::maps::{config, socket};
use crate::sock::{CLOSE_WAIT, CLOSING, FIN_WAIT1, Sock, Tcp};
use crate::{atomic, idleness};

/// The connection is about to change to `new`, one of the states in which it ends. May be called
/// twice for one change.
#[inline(always)]
pub fn ending(sk: Sock, new: u8) {
    // Without request timing no hook notes what was received.
    if config!(requests) != 1 {
        return;
    }
    let (Some(state), Some(tcp)) = (socket(sk.0), sk.tcp()) else { return };
    // SAFETY: a valid value of this socket's storage; the stack holds the socket's lock.
    unsafe {
        if (*state).stage != STAGE_OPEN || (*state).role == ROLE_LISTENER {
            return;
        }
        let end = (*state).port_or_end;
        // Where FINs cross, the client closed without knowing of the server's.
        if end == UNDECIDED || (end == DUE && new == CLOSING) {
            let is_own = new == FIN_WAIT1;
            let due = judge(tcp, state, is_own, End::Server);
            (*state).port_or_end = due;
            if end == UNDECIDED && due != DUE {
                idleness::closes(tcp, state, is_own);
            }
        }
    }
}

/// The connection is closed: counts the request that it leaves without an answer, if any.
///
/// # Safety
/// `state` must be that of an open connection of `sk`, and the stack must hold the socket's lock.
#[inline(always)]
pub unsafe fn closed(sk: Sock, tcp: Tcp, state: *mut SocketState) {
    if config!(requests) != 1 {
        return;
    }
    // SAFETY: the caller's contract.
    unsafe {
        let errno = sk.error();
        let mut end = (*state).port_or_end;
        if end == UNDECIDED {
            // No FIN before: a reset, or the kernel gave up, which leave an error; else the program
            // of this side cut it.
            end = judge(tcp, state, errno == 0, End::Reset);
        }
        // A server that answers a client that is gone gets a reset: ECONNRESET, or EPIPE.
        let is_late = (*state).role == ROLE_SERVER && (errno == 104 || errno == 32);
        if end == DUE && (is_late || (is_open(tcp, state) && take(tcp, state))) {
            count!((*state).slot, unanswered, 1);
        }
    }
}

/// The socket iteration meets an open connection: a server may keep its side for ever, although the
/// client gave up.
///
/// # Safety
/// `state` must be a valid value of the socket's storage.
#[inline(always)]
pub unsafe fn visit(sk: Sock, tcp: Tcp, state: *mut SocketState) {
    // SAFETY: the caller's contract.
    unsafe {
        let end = &raw mut (*state).port_or_end;
        if (*state).role != ROLE_SERVER
            || core::ptr::read_volatile(end) != DUE
            || sk.state() != CLOSE_WAIT
            || monotonic_us().saturating_sub(tcp.now_us()) < unanswered::STUCK_US
            || !is_open(tcp, state)
        {
            return;
        }
        // Before it is counted, or it might be counted once more for a response that comes too late.
        core::ptr::write_volatile(end, NOTHING_DUE);
        if take(tcp, state) {
            count!((*state).slot, unanswered, 1);
        } else {
            core::ptr::write_volatile(end, DUE);
        }
    }
}

/// Ends the open exchange without an answer; false if somebody else just did. Of a client's socket
/// only its end does that.
///
/// # Safety
/// As [`visit`].
#[inline(always)]
unsafe fn take(tcp: Tcp, state: *mut SocketState) -> bool {
    // SAFETY: the caller's contract.
    unsafe {
        if (*state).role == ROLE_CLIENT {
            return true;
        }
        let at = &raw mut (*state).exchange;
        let old = core::ptr::read_volatile(at);
        exchange::began_us(old) != 0
            && atomic::compare_swap(at, old, exchange::idle(tcp.written())) == old
    }
}

/// What is due while the connection begins to end; `by_server`: how, if not by the client.
///
/// # Safety
/// As [`closed`].
#[inline(always)]
unsafe fn judge(tcp: Tcp, state: *mut SocketState, by_this_side: bool, by_server: End) -> u16 {
    // SAFETY: the caller's contract.
    unsafe {
        let is_client = (*state).role == ROLE_CLIENT;
        if !is_open(tcp, state) {
            // What a server receives from here on came with the FIN, and what a client sends after
            // the server's cannot be answered.
            return NOTHING_DUE;
        }
        let end = if is_client == by_this_side { End::Client } else { by_server };
        let (now_us, heard_us) = (monotonic_us(), (*state).last_received_us);
        if is_client {
            let unacknowledged = tcp.unacknowledged();
            let sent = Sent {
                acknowledged: unacknowledged.wrapping_sub((*state).answered_seq) as i32,
                in_flight: tcp.written().wrapping_sub(unacknowledged),
                delivered_us: tcp.delivered_sent_us(),
                first_us: tcp.sent_us(),
            };
            let is_silent = (*state).received_mark == 0;
            unanswered::client(now_us, sent, heard_us, is_silent, end)
        } else {
            let began_us = exchange::began_us((*state).exchange);
            let pauses = unanswered::pauses((*state).answered_seq, began_us);
            let is_silent = tcp.sent_bytes(false) == 0;
            unanswered::server(now_us, heard_us, is_silent, pauses, end)
        }
    }
}

/// Whether something was sent to this server, or by this client, and nothing came back since.
///
/// # Safety
/// As [`closed`].
#[inline(always)]
unsafe fn is_open(tcp: Tcp, state: *mut SocketState) -> bool {
    // SAFETY: the caller's contract.
    unsafe {
        if (*state).role == ROLE_CLIENT {
            // What no hook has noted is an answer, too: on some kernels not every socket passes one,
            // and the kernel may have skipped a run.
            tcp.written() != (*state).answered_seq
                && tcp.received_bytes() as u32 == (*state).received_mark
        } else {
            exchange::is_open((*state).exchange, tcp.written())
        }
    }
}
