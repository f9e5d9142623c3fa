//! The only way into the ring. A record that cannot be written is counted, never waited for.

use agent_common::events::{EventHeader, RATE_PER_SECOND};
use agent_common::ledger::{EVENT, RATE_LIMITED, RING_FULL};
use agent_common::wire::Wire;
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;

use crate::maps::{self, lost, seen};

const SECOND_NS: u64 = 1_000_000_000;

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
    // SAFETY: a valid map value of this CPU. An interrupting program may make the limit a little
    // more or less generous; nothing is lost uncounted.
    unsafe {
        if time_ns.wrapping_sub((*window).since_ns) > SECOND_NS {
            (*window).since_ns = time_ns;
            (*window).written = 0;
        }
        (*window).written += 1;
        if (*window).written > RATE_PER_SECOND {
            lost(EVENT, RATE_LIMITED);
            return None;
        }
    }
    Some(EventHeader { kind, owner, time_ns })
}

/// Writes a record. Nobody is woken: the daemon drains by timer.
#[inline(always)]
pub fn write<T: Wire>(record: &T) {
    let (ring, _) = maps::events(0);
    if ring.output_untyped::<T>(record, BPF_RB_NO_WAKEUP.into()).is_err() {
        lost(EVENT, RING_FULL);
    }
}
