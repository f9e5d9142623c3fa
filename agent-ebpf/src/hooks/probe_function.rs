//! Runs for every call of one function of one program file, and does nothing: what is attached to
//! see whether this host lets programs be attached to functions after the start.
//!
//! A uprobe (`perf_uprobe`, kernel/events/core.c, since 4.17): at an offset of an inode, in every
//! process that executes it, in the thread that calls.

use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;

#[uprobe]
fn probe_function(_ctx: ProbeContext) -> u32 {
    0
}
