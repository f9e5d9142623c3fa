//! What a program has just sent, read in its own memory while it is still in the system call.

use core::mem::MaybeUninit;

use agent_common::config::{SENDMMSG, SENDMSG, SENDTO, WRITE, WRITEV};
use agent_common::ledger::{NO_BUFFER, PAGED};
use agent_common::response::{HEAD, Head};
use aya_ebpf::helpers::generated::bpf_probe_read_user;

use crate::maps::config;
use crate::sock::SystemCall;

/// A message, or the first part of it.
pub struct Message {
    /// Where it begins.
    pub from: u64,
    /// How long it is.
    pub length: u32,
}

/// Where the parts of a message are in `struct user_msghdr` (include/linux/socket.h), on 64 bits.
const MESSAGE_PARTS: u64 = 16;
/// How long a `struct mmsghdr` is.
const MESSAGE_BYTES: u64 = 64;

/// What the running program has just sent, of which the kernel took `bytes`; else the reason why it is
/// not known. `sent_before` says how many messages of an array (`sendmmsg`) were sent before this one,
/// or nothing if arrays are left out.
#[inline(always)]
pub fn sent_message(
    bytes: u32,
    sent_before: impl FnOnce(&SystemCall) -> Option<u32>,
) -> Result<Message, usize> {
    let Some(call) = SystemCall::current() else { return Err(NO_BUFFER) };
    let mut from = call.argument;
    if call.number == config!(sending[WRITE]) || call.number == config!(sending[SENDTO]) {
        return Ok(Message { from, length: bytes });
    }
    if call.number == config!(sending[SENDMMSG]) {
        let Some(before) = sent_before(&call) else { return Err(NO_BUFFER) };
        from = from.wrapping_add(u64::from(before).wrapping_mul(MESSAGE_BYTES));
    } else if call.number != config!(sending[SENDMSG]) && call.number != config!(sending[WRITEV]) {
        return Err(NO_BUFFER);
    }
    if call.number != config!(sending[WRITEV]) {
        let Some([parts]) = long_words(from.wrapping_add(MESSAGE_PARTS)) else {
            return Err(PAGED);
        };
        from = parts;
    }
    let Some([from, size]) = long_words(from) else { return Err(PAGED) };
    let length = if size < u64::from(bytes) { size as u32 } else { bytes };
    Ok(Message { from, length })
}

/// The first `length` bytes at an address, at most as many as the head of a response has; zeros
/// behind them.
#[inline(always)]
pub fn head(from: u64, length: u32) -> Option<Head> {
    let mut head: Head = [0; HEAD / 8];
    // SAFETY: the helper checks the source at run time; there is room for so much.
    let result = unsafe {
        bpf_probe_read_user(
            head.as_mut_ptr().cast(),
            if length > HEAD as u32 { HEAD as u32 } else { length },
            from as *const core::ffi::c_void,
        )
    };
    if result == 0 { Some(head) } else { None }
}

/// Reads words of 32 bits.
#[inline(always)]
pub fn words<const N: usize>(from: u64) -> Option<[u32; N]> {
    read(from)
}

/// Reads words of 64 bits.
#[inline(always)]
fn long_words<const N: usize>(from: u64) -> Option<[u64; N]> {
    read(from)
}

/// Reads a byte.
#[inline(always)]
pub fn byte(from: u64) -> Option<u8> {
    read(from)
}

/// Reads bytes.
#[inline(always)]
pub fn bytes<const N: usize>(from: u64) -> Option<[u8; N]> {
    read(from)
}

/// Reads numbers of the running program's memory.
#[inline(always)]
fn read<T: Copy>(from: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the source at run time and fills the buffer or fails.
    let result = unsafe {
        bpf_probe_read_user(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            from as *const core::ffi::c_void,
        )
    };
    // SAFETY: filled just now; callers ask for numbers, of which every pattern of bits is valid.
    if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
}
