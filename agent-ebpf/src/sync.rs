//! Brings a slot up to date with a connection: what the kernel counts in the socket, what waits in
//! it. Run by the socket iteration and when the state of a connection changes.

use agent_common::durations::RTT;
use agent_common::edge::ROLE_CLIENT;
use agent_common::limit::{RECEIVE_WINDOW, SEND_BUFFER};
use agent_common::queues::CLOSE_WAIT_US;
use agent_common::retransmit::phase;
use agent_common::socket::SocketState;

use crate::clock::monotonic_us;
use crate::edges::{self, count};
use crate::maps::{self, config};
use crate::sock::{CLOSE, CLOSE_WAIT, Sock, Tcp};
use crate::{atomic, histograms, listeners};

/// Two words as one.
#[inline(always)]
pub fn halves(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Brings the slot up to date with the connection: bytes, round trip time.
///
/// May run at any moment, also twice at once and with values of different age: each caller adds
/// only what lies above the highest value so far, so a slot never counts twice and never goes
/// back. `received`: payload received, `None` if it is not known now.
///
/// # Safety
/// `state` must be a valid value of the socket's storage.
#[inline(always)]
pub unsafe fn sync(tcp: Tcp, state: *mut SocketState, received: Option<u64>) {
    // SAFETY: the caller's contract.
    unsafe {
        let Some(counters) = edges::counters((*state).slot) else { return };
        let sent = tcp.sent_bytes((*state).role == ROLE_CLIENT);
        let growth = atomic::raise(&raw mut (*state).sent_bytes, sent);
        if growth != 0 {
            atomic::add(&raw mut (*counters).sent_bytes, growth);
        }
        if let Some(received) = received {
            let growth = atomic::raise(&raw mut (*state).received_bytes, received);
            if growth != 0 {
                atomic::add(&raw mut (*counters).received_bytes, growth);
            }
        }
        let (rtt_us, mark) = tcp.round_trip();
        if mark != (*state).rtt_mark && rtt_us != 0 {
            (*state).rtt_mark = mark;
            let (slot, role) = ((*state).slot, (*state).role);
            histograms::observe_in(counters, slot, role, RTT, u64::from(rtt_us));
        }
    }
}

/// As [`sync`], for a listener's drops.
///
/// # Safety
/// As [`sync`].
#[inline(always)]
pub unsafe fn sync_listener(sk: Sock, state: *mut SocketState) {
    // SAFETY: the caller's contract.
    unsafe {
        let growth = atomic::raise(&raw mut (*state).retransmits, u64::from(sk.drops()));
        if growth != 0 {
            listeners::count!((*state).slot, drops, growth);
        }
    }
}

/// As [`sync`], for retransmits and what comes with them. They belong to the phase that the socket
/// is in.
///
/// # Safety
/// As [`sync`].
#[inline(always)]
pub unsafe fn sync_retransmits(tcp: Tcp, state: *mut SocketState) {
    // SAFETY: the caller's contract.
    unsafe {
        let total = tcp.retransmits();
        // After the total: see `phase`.
        let phase = phase(tcp.state());
        let growth = atomic::raise(&raw mut (*state).retransmits, u64::from(total));
        if growth != 0 {
            count!((*state).slot, retransmits[phase], growth);
        }
        let (timeouts, dsacks) = (tcp.timeouts(), tcp.dsacks());
        if halves(timeouts, dsacks) != (*state).recoveries {
            count_recoveries(state, timeouts, dsacks);
        }
    }
}

/// Adds what was not counted yet of timeouts and DSACKs.
///
/// A function of its own, as the next one: both are rarely needed, and what calls them is verified
/// with each of their outcomes otherwise.
#[inline(never)]
unsafe fn count_recoveries(state: *mut SocketState, timeouts: u32, dsacks: u32) {
    // SAFETY: the caller's contract.
    unsafe {
        let (timeouts, dsacks) =
            atomic::raise_halves(&raw mut (*state).recoveries, timeouts, dsacks);
        count!((*state).slot, timeouts, u64::from(timeouts >> 16));
        count!((*state).slot, dsacks, u64::from(dsacks));
    }
}

/// As [`sync`], for the jiffies in which the receive window and the send buffer have kept data from
/// being sent.
///
/// # Safety
/// As [`sync`].
#[inline(always)]
pub unsafe fn sync_limited(state: *mut SocketState, (window, buffer): (u32, u32)) {
    // SAFETY: the caller's contract.
    unsafe {
        if halves(window, buffer) != (*state).limited {
            count_limited(state, window, buffer);
        }
    }
}

/// Adds what was not counted yet.
#[inline(never)]
unsafe fn count_limited(state: *mut SocketState, window: u32, buffer: u32) {
    let jiffy_us = u64::from(config!(jiffy_us));
    // SAFETY: the caller's contract.
    unsafe {
        let (window, buffer) = atomic::raise_halves(&raw mut (*state).limited, window, buffer);
        count!((*state).slot, limited_us[RECEIVE_WINDOW], u64::from(window) * jiffy_us);
        count!((*state).slot, limited_us[SEND_BUFFER], u64::from(buffer) * jiffy_us);
    }
}

/// Adds a connection whose SYN has no answer yet to its slot's row. Only for the socket iteration.
///
/// # Safety
/// As [`sync`].
#[inline(always)]
pub unsafe fn add_connecting(state: *mut SocketState) {
    // SAFETY: the caller's contract; a valid map value.
    unsafe {
        if let Some(queues) = maps::queues((*state).slot) {
            atomic::add(&raw mut (*queues).connecting, 1);
        }
    }
}

/// Adds an open connection and what waits in it to its slot's row, and notes since when its peer has closed it.
/// Only for the socket iteration.
///
/// # Safety
/// As [`sync`].
#[inline(always)]
pub unsafe fn add_queues(tcp: Tcp, state: *mut SocketState) {
    let (unread, unsent) = (tcp.unread(), tcp.unsent_or_in_flight());
    let is_close_wait = tcp.state() == CLOSE_WAIT;
    // SAFETY: the caller's contract; a valid map value.
    unsafe {
        let Some(queues) = maps::queues((*state).slot) else { return };
        // Of one that has ended, the hook was perhaps skipped.
        if tcp.state() != CLOSE {
            atomic::add(&raw mut (*queues).open, 1);
        }
        if unread | unsent == 0 && !is_close_wait {
            return;
        }
        atomic::add(&raw mut (*queues).receive_bytes, u64::from(unread));
        atomic::add(&raw mut (*queues).send_bytes, u64::from(unsent));
        if is_close_wait {
            let now_us = monotonic_us();
            if (*state).start_us == 0 {
                (*state).start_us = now_us;
            } else if now_us.saturating_sub((*state).start_us) >= CLOSE_WAIT_US {
                atomic::add(&raw mut (*queues).close_wait, 1);
            }
        }
    }
}
