//! The only way into the ring. A record that cannot be written is counted, never waited for.

use agent_common::answer::{AnswerHeader, MAX_MESSAGE};
use agent_common::events::{CALL, EventHeader, RATE_PER_SECOND, RateWindow};
use agent_common::ledger::{DNS_ANSWER, EVENT, RATE_LIMITED, RING_FULL};
use agent_common::wire::Wire;
use aya_ebpf::bindings::{
    BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE,
};
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_ringbuf_output, bpf_ringbuf_query};

use crate::maps::{self, lost, seen};

const SECOND_NS: u64 = 1_000_000_000;
/// Answers to a tenant in a second while the ring is more than half full.
const RATE_OF_LATE: u64 = RATE_PER_SECOND / 16;

/// Whether a record of `kind` may be written now, and its header.
#[inline(always)]
pub fn admit(kind: u32, owner: u32) -> Option<EventHeader> {
    seen(EVENT);
    let (_, Some(window)) = maps::events(kind) else {
        lost(EVENT, RATE_LIMITED);
        return None;
    };
    // SAFETY: no arguments.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a valid map value of this CPU.
    if unsafe { !within_rate(window, time_ns, RATE_PER_SECOND) } {
        lost(EVENT, RATE_LIMITED);
        return None;
    }
    Some(EventHeader { kind, owner, time_ns })
}

/// Whether one more record may be written in this second, in which there may be so many.
///
/// # Safety
/// `window` must be a valid map value of this CPU. An interrupting program may make the limit a
/// little more or less generous; nothing is lost uncounted.
#[inline(always)]
unsafe fn within_rate(window: *mut RateWindow, time_ns: u64, most: u64) -> bool {
    // SAFETY: the caller's contract.
    unsafe {
        if time_ns.wrapping_sub((*window).since_ns) > SECOND_NS {
            (*window).since_ns = time_ns;
            (*window).written = 0;
        }
        (*window).written += 1;
        (*window).written <= most
    }
}

/// Writes a record. Nobody is woken: the daemon drains by timer, see [`call`].
#[inline(always)]
pub fn write<T: Wire>(record: &T) {
    let (ring, _) = maps::events(0);
    if ring.output_untyped::<T>(record, BPF_RB_NO_WAKEUP.into()).is_err() {
        lost(EVENT, RING_FULL);
    }
}

/// Calls the daemon: it should look before anything else happens. It comes by itself soon after,
/// so a call may be left out.
#[inline(always)]
pub fn call() {
    let (ring, Some(window)) = maps::events(CALL) else { return };
    // SAFETY: no arguments; a valid map value of this CPU.
    if unsafe { !within_rate(window, bpf_ktime_get_ns(), RATE_PER_SECOND) } {
        return;
    }
    // What is taken back is not read by anyone, but it does wake.
    if let Some(nothing) = ring.reserve_untyped::<u64>(0) {
        nothing.discard(BPF_RB_FORCE_WAKEUP.into());
    }
}

/// Whether an answer to a tenant's network namespace may be written now, and when that is.
#[inline(always)]
pub fn admit_answer(origin: u64) -> Option<u64> {
    // SAFETY: no arguments.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let (ring, window) = maps::answers(origin);
    // One tenant has half of the ring, so that what it leaves is for others.
    let ring = core::ptr::from_ref(ring).cast_mut().cast();
    // SAFETY: a valid map.
    let (waiting, size) = unsafe {
        (
            bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into()),
            bpf_ringbuf_query(ring, BPF_RB_RING_SIZE.into()),
        )
    };
    let most = if waiting > size / 2 { RATE_OF_LATE } else { RATE_PER_SECOND };
    // SAFETY: a valid map value of this CPU.
    if window.is_some_and(|window| unsafe { within_rate(window, time_ns, most) }) {
        return Some(time_ns);
    }
    lost(DNS_ANSWER, RATE_LIMITED);
    None
}

/// Writes a record of which the message has `length` bytes, at most [`MAX_MESSAGE`].
///
/// # Safety
/// `header` must be followed by room for a message.
#[inline(always)]
pub unsafe fn write_answer(header: *mut AnswerHeader, length: u32) {
    let (ring, _) = maps::answers(0);
    let size = u64::from(size_of::<AnswerHeader>() as u32 + length);
    if length > MAX_MESSAGE as u32 {
        return;
    }
    // SAFETY: the caller's contract; the verifier checks the size against the room.
    let result = unsafe {
        bpf_ringbuf_output(
            core::ptr::from_ref(ring).cast_mut().cast(),
            header.cast(),
            size,
            BPF_RB_NO_WAKEUP.into(),
        )
    };
    if result != 0 {
        lost(DNS_ANSWER, RING_FULL);
    }
}
