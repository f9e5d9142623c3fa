//! Exchanges: from the last byte sent to the first byte back, on either side.
//!
//! Client: data arrives that acknowledges something written since the last answer; the request
//! began when the stack sent that segment. No hook on the send path is needed, and none could
//! give a better time: the stack stamped the packet itself.
//!
//! Server: from the first data of a request to the first send after it; see
//! [`agent_common::exchange`] for the race this resolves.

use agent_common::durations;
use agent_common::edge::{ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER};
use agent_common::exchange;
use agent_common::ledger::REQUEST;
use agent_common::socket::{STAGE_OPEN, SocketState};
use agent_common::{idle, unanswered, wait};

use crate::edges::count;
use crate::maps::seen;
use crate::sock::{Sock, Tcp};
use crate::{atomic, histograms, idleness, responses};

/// Data arrived on the socket.
///
/// # Safety
/// `state` must be a valid value of `sk`'s storage, and the stack must hold the socket's lock.
#[inline(always)]
pub unsafe fn received(sk: Sock, state: *mut SocketState) {
    // SAFETY: the caller's contract.
    unsafe {
        if (*state).stage != STAGE_OPEN || (*state).role == ROLE_LISTENER {
            return;
        }
        // Full, for it has a state.
        let Some(tcp) = sk.tcp() else { return };
        let received = tcp.received_bytes() as u32;
        if received == (*state).received_mark {
            return; // A FIN alone is no answer.
        }
        (*state).received_mark = received;
        let now_us = tcp.now_us();
        if (*state).role == ROLE_CLIENT {
            // A FIN of ours may be acknowledged as well: what was written is the limit.
            let written = tcp.written();
            let acknowledged = tcp.unacknowledged().wrapping_sub((*state).answered_seq);
            let asked = written.wrapping_sub((*state).answered_seq);
            if asked != 0 && acknowledged != 0 && acknowledged < 1 << 31 {
                let resent = (*state).first_sent_us;
                let sent_us = if resent == 0 { tcp.sent_us() } else { resent };
                (*state).answered_seq = written;
                if resent != 0 {
                    (*state).first_sent_us = 0;
                }
                answered(state, ROLE_CLIENT, now_us, now_us.saturating_sub(sent_us));
            } else {
                (*state).idle = idle::moved((*state).idle, now_us);
            }
        } else if (*state).role == ROLE_SERVER {
            request_received(tcp, state, now_us);
        }
        (*state).last_received_us = now_us;
    }
}

/// A send of at least one byte returned. The socket's lock is not held.
///
/// # Safety
/// `state` must be a valid value of `sk`'s storage.
#[inline(always)]
pub unsafe fn sent(sk: Sock, state: *mut SocketState, bytes: u32) {
    // SAFETY: the caller's contract.
    unsafe {
        if (*state).role != ROLE_SERVER || (*state).stage != STAGE_OPEN {
            return;
        }
        // Full, for it has a state.
        let Some(tcp) = sk.tcp() else { return };
        let old = core::ptr::read_volatile(&raw const (*state).exchange);
        let (new, is_answer) = exchange::sent(old, tcp.written());
        // If another CPU changes the word first, it closes this exchange: see `request_received`.
        if new == old || atomic::compare_swap(&raw mut (*state).exchange, old, new) != old {
            return responses::returned(tcp, state, bytes, false, false);
        }
        let now_us = tcp.now_us();
        if is_answer {
            let elapsed = exchange::elapsed_us(exchange::began_us(old), now_us);
            answered(state, ROLE_SERVER, now_us, elapsed);
        } else {
            (*state).idle = idle::moved((*state).idle, now_us);
        }
        responses::returned(tcp, state, bytes, true, is_answer);
    }
}

/// The connection ends. The peer's reset may come back before the send of the response returned.
///
/// # Safety
/// As [`received`].
#[inline(always)]
pub unsafe fn ended(tcp: Tcp, state: *mut SocketState) {
    // SAFETY: the caller's contract.
    unsafe {
        if (*state).role != ROLE_SERVER {
            return;
        }
        let old = core::ptr::read_volatile(&raw const (*state).exchange);
        let (new, is_answer) = exchange::sent(old, tcp.written());
        if is_answer && atomic::compare_swap(&raw mut (*state).exchange, old, new) == old {
            answered_before(tcp, state, exchange::began_us(old), tcp.now_us());
        }
        responses::ended(state);
    }
}

#[inline(always)]
unsafe fn request_received(tcp: Tcp, state: *mut SocketState, now_us: u64) {
    // SAFETY: the caller's contract.
    unsafe {
        let at = &raw mut (*state).exchange;
        let mut old = core::ptr::read_volatile(at);
        // At most one send hook can be in flight beside us: the second try cannot fail.
        let mut tries = 0;
        while tries < 2 {
            let (new, is_answered) = exchange::received(old, tcp.written(), now_us);
            if new == old {
                // More of a request that is open, or a last message behind one.
                (*state).idle = idle::went_on((*state).idle, now_us);
                if now_us.saturating_sub((*state).last_received_us) >= unanswered::PAUSE_US {
                    (*state).answered_seq =
                        unanswered::paused((*state).answered_seq, exchange::began_us(old));
                }
                return;
            }
            let found = atomic::compare_swap(at, old, new);
            if found == old {
                if is_answered {
                    answered_before(tcp, state, exchange::began_us(old), now_us);
                }
                (*state).idle = idle::requested((*state).idle, now_us);
                return;
            }
            old = found;
            tries += 1;
        }
    }
}

/// A response left before its send returned. The stack knows when, unless nothing of it is
/// acknowledged yet (a client that does not wait).
#[inline(always)]
unsafe fn answered_before(tcp: Tcp, state: *mut SocketState, began_us: u64, now_us: u64) {
    let elapsed = exchange::elapsed_us(began_us, tcp.sent_us());
    let elapsed = if elapsed == 0 { exchange::elapsed_us(began_us, now_us) } else { elapsed };
    // SAFETY: the caller's contract: `state` is valid.
    unsafe {
        responses::is_due(state);
        answered(state, ROLE_SERVER, now_us, elapsed);
    }
}

#[inline(always)]
unsafe fn answered(state: *mut SocketState, role: u8, now_us: u64, elapsed_us: u64) {
    seen(REQUEST);
    // SAFETY: the caller's contract: `state` is valid.
    unsafe {
        histograms::observe((*state).slot, role, durations::REQUEST, elapsed_us);
        let before = (*state).idle;
        (*state).idle = idle::since(now_us);
        let pause = if role == ROLE_CLIENT {
            idle::before_sending(before, now_us.saturating_sub(elapsed_us))
        } else {
            idle::before_request(before)
        };
        if pause != 0 {
            let kind = durations::IDLE_REUSE as u32;
            idleness::count_idle((*state).slot, role.into(), kind, pause);
        }
        // A word that only the other role has another use for.
        let chain = if role == ROLE_CLIENT {
            &raw mut (*state).exchange
        } else {
            &raw mut (*state).first_sent_us
        };
        if elapsed_us >= wait::LONG_US || *chain != 0 {
            let (next, waits) = wait::ended(*chain, now_us, elapsed_us);
            *chain = next;
            if waits != 0 {
                count!((*state).slot, waits, waits);
            }
        }
    }
}
