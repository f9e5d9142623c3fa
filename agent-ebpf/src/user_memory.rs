//! What a program has just sent, in its own memory.

use core::mem::MaybeUninit;

use agent_common::config::{SENDMMSG, SENDMSG, SENDTO, WRITE, WRITEV};
use agent_common::ledger::{NO_BUFFER, PAGED};
use agent_common::lookup::Lookups;
use aya_ebpf::helpers::generated::bpf_probe_read_user;

use crate::maps::config;
use crate::sock::SystemCall;

/// A datagram's message, or the first part of it.
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

/// The datagram of `bytes` that the running program has just sent; else the reason why it is not known.
///
/// # Safety
/// `lookups` must be in a valid value of the socket's storage.
#[inline(always)]
pub unsafe fn sent_message(
    lookups: *mut Lookups,
    thread: u32,
    bytes: u32,
) -> Result<Message, usize> {
    let Some(call) = SystemCall::current() else { return Err(NO_BUFFER) };
    let mut from = call.argument;
    if call.number == config!(sending[WRITE]) || call.number == config!(sending[SENDTO]) {
        return Ok(Message { from, length: bytes });
    }
    if call.number == config!(sending[SENDMMSG]) {
        // SAFETY: the caller's contract.
        let before = unsafe { sent_before(lookups, thread, &call) };
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

/// How many messages of the array that a thread is sending in one system call were sent before. The
/// hook runs once for each, and for the one that fails.
///
/// # Safety
/// As [`sent_message`].
#[inline(always)]
unsafe fn sent_before(lookups: *mut Lookups, thread: u32, call: &SystemCall) -> u32 {
    // SAFETY: the caller's contract. Two threads that do this with one socket at once may take
    // the messages of one for those of the other.
    unsafe {
        let state = (*lookups).messages_sent;
        let is_same = (*lookups).messages == call.argument && (state >> 32) as u32 == thread;
        let sent = state as u32;
        let before = if is_same && sent < call.third { sent } else { 0 };
        (*lookups).messages = call.argument;
        (*lookups).messages_sent = u64::from(thread) << 32 | u64::from(before.wrapping_add(1));
        before
    }
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
