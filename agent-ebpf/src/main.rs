//! Portolan's kernel programs: facts are counted where they happen.
//!
//! [`hooks`] has one file per hook. A hook reads what it needs through [`sock`], finds the
//! socket's state and slot through [`maps`] and [`edges`], and adds to the slot. [`emit`] is the
//! only way into the ring. Nothing here blocks, allocates per packet, or changes a verdict.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(clippy::needless_pass_by_value, reason = "the macros hand contexts over by value")]

mod answers;
mod atomic;
mod attempts;
mod binds;
mod clock;
mod connection;
mod connects;
mod edges;
mod emit;
mod enforcement;
mod fallback;
mod histograms;
mod hooks;
mod idleness;
mod listeners;
mod lookups;
mod maps;
mod net;
mod notes;
mod opaque;
mod owners;
mod questions;
mod raw_sock;
mod requests;
mod responses;
mod shares;
mod slot_table;
mod sock;
mod socket_storage;
mod socket_table;
mod sync;
mod unanswered;
mod user_memory;
mod walks;
mod words;

/// The verifier rejects a program in which this loop can be reached.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// Tracing helpers (probe reads, current task) are only open to programs under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
