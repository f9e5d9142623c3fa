//! Idle connections: used again, or closed. The rules: [`agent_common::idle`].

use agent_common::durations::{IDLE_CLOSED_BY_CLIENT, IDLE_CLOSED_BY_SERVER, KINDS};
use agent_common::edge::ROLE_CLIENT;
use agent_common::idle;
use agent_common::socket::SocketState;

use crate::clock::monotonic_us;
use crate::histograms;
use crate::sock::Tcp;

/// A connection on which nothing is due begins to close, by this side or by the other.
///
/// # Safety
/// `state` must be a valid value of the socket's storage.
#[inline(always)]
pub unsafe fn closes(tcp: Tcp, state: *mut SocketState, by_this_side: bool) {
    // SAFETY: the caller's contract.
    unsafe {
        // As for most connections: something has just arrived, and so the clock need not be read.
        if !idle::has_paused((*state).idle) && tcp.has_just_received() {
            return;
        }
        // Not the socket's own clock, which stands still while it is idle.
        let pause = idle::at_close((*state).idle, monotonic_us());
        if pause != 0 {
            let by_client = ((*state).role == ROLE_CLIENT) == by_this_side;
            let kind = if by_client { IDLE_CLOSED_BY_CLIENT } else { IDLE_CLOSED_BY_SERVER };
            count_idle((*state).slot, (*state).role.into(), kind as u32, pause);
        }
    }
}

/// Counts a pause, in the units of [`idle`].
///
/// A global function of numbers: the verifier walks it once per program, not with each outcome of
/// what calls it. Returns 0: some kernels allow no global function without a value.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn count_idle(slot: u32, role: u32, kind: u32, pause: u32) -> u32 {
    let kind = kind as usize;
    if kind < KINDS {
        histograms::observe_rare(slot, role as u8, kind, idle::ms(pause));
    }
    0
}
