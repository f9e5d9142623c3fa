//! Fallback programs, where the kernel preempts programs.
//!
//! The kernel does not run a program on a processor where it is running already. Since Linux 7.0 a
//! program on a tracepoint can be preempted, and what happens at that hook until it goes on is
//! skipped. So a fallback program is attached behind the first one, and does what the first had to
//! do unless that was done. Most see that in the socket's state; for the others the first leaves a
//! *handled* marker here. Both programs of an event run in the same thread, or in the same
//! interrupt of it.

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id};

use crate::atomic;
use crate::maps::{self, config};

/// Marks the event as handled: the first program did its work. Call it last.
#[inline(always)]
pub fn handled() {
    if config!(fallback) == 1
        && let Some(events) = maps::handled(thread())
    {
        // SAFETY: a valid map value.
        unsafe { atomic::add(events, 1) };
    }
}

/// Whether the first program handled what the fallback is about to handle; takes the mark away.
#[inline(always)]
pub fn is_handled() -> bool {
    let Some(events) = maps::handled(thread()) else { return true };
    let mut tries = 0;
    while tries < 4 {
        // SAFETY: a valid map value.
        unsafe {
            let before = core::ptr::read_volatile(events);
            if before == 0 {
                return false;
            }
            if atomic::compare_swap(events, before, before - 1) == before {
                return true;
            }
        }
        tries += 1;
    }
    true
}

/// The running thread; an idle processor is one, too.
#[inline(always)]
fn thread() -> u32 {
    // SAFETY: no arguments.
    match unsafe { bpf_get_current_pid_tgid() } as u32 {
        // SAFETY: no arguments.
        0 => unsafe { bpf_get_smp_processor_id() },
        thread => thread,
    }
}
