//! What responses say: the beginning of what a server sends, looked at in the program's own buffer
//! while it is still in the system call. What can be said: [`agent_common::response`].
//!
//! A response may be counted before its send returns ([`agent_common::exchange`]); then its beginning is
//! due, and looked at when that does.

use core::mem::MaybeUninit;

use agent_common::config::{SENDMSG, SENDTO, WRITE, WRITEV};
use agent_common::durations;
use agent_common::edge::ROLE_SERVER;
use agent_common::ledger::{NO_BUFFER, OVERTAKEN, PAGED, RESPONSE, UNFRAMED};
use agent_common::response::{self, DUE, HEAD, Head, MET, Outcome};
use agent_common::socket::SocketState;
use aya_ebpf::helpers::generated::bpf_probe_read_user;

use crate::maps::{config, lost, seen};
use crate::sock::{SystemCall, Tcp};
use crate::{atomic, histograms};

/// A response was counted, and its send has not returned yet.
///
/// # Safety
/// `state` must be a valid value of the socket's storage.
#[inline(always)]
pub unsafe fn is_due(state: *mut SocketState) {
    if config!(responses) != 1 {
        return;
    }
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        let word = core::ptr::read_volatile(&raw const (*state).protocol);
        if response::is_final(word) {
            return;
        }
        if word & DUE == 0 {
            atomic::or(&raw mut (*state).protocol, DUE);
        } else {
            seen(RESPONSE);
            lost(RESPONSE, OVERTAKEN);
        }
    }
}

/// The connection ends: what is due now will not be looked at.
///
/// # Safety
/// As [`is_due`].
#[inline(always)]
pub unsafe fn ended(state: *mut SocketState) {
    if config!(responses) != 1 {
        return;
    }
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        let word = core::ptr::read_volatile(&raw const (*state).protocol);
        if word & DUE != 0
            && atomic::compare_swap(&raw mut (*state).protocol, word, word & !DUE) == word
        {
            seen(RESPONSE);
            lost(RESPONSE, OVERTAKEN);
        }
    }
}

/// A send returned. `is_new`: of what was written nothing had been noted before; `is_response`: it
/// was the first since a request.
///
/// # Safety
/// As [`is_due`].
#[inline(always)]
pub unsafe fn returned(
    tcp: Tcp,
    state: *mut SocketState,
    bytes: u32,
    is_new: bool,
    is_response: bool,
) {
    if config!(responses) != 1 {
        return;
    }
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        let word = core::ptr::read_volatile(&raw const (*state).protocol);
        if response::is_final(word) {
            return;
        }
        let is_due = word & DUE != 0;
        if is_due && is_response {
            // What was due was sent before this.
            seen(RESPONSE);
            lost(RESPONSE, OVERTAKEN);
        }
        let is_response = is_response || is_due;
        // Who speaks before it was asked says by that what it is.
        let is_greeting = !is_response
            && is_new
            && word & MET == 0
            && response::protocol(word) == response::UNDECIDED;
        if is_response || is_greeting {
            look(tcp, state, word, bytes, is_response);
        }
    }
}

/// Looks at the head of what was sent.
///
/// # Safety
/// As [`is_due`].
#[inline(always)]
unsafe fn look(tcp: Tcp, state: *mut SocketState, word: u64, bytes: u32, is_response: bool) {
    let before = response::protocol(word);
    let read = head(bytes);
    let mut outcome = Outcome(before);
    if let Ok(([a, b, c], length)) = read {
        outcome = Outcome(classify(a, b, c, length << 8 | before << 1 | u32::from(is_response)));
        if outcome.identified(before).is_some() && tcp.encrypts() {
            outcome = Outcome(response::TLS);
        }
    }
    let identified = outcome.identified(before);
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        let after = u64::from(outcome.protocol());
        let new = (word & !(DUE | response::PROTOCOL)) | after;
        if new != word && atomic::compare_swap(&raw mut (*state).protocol, word, new) != word {
            // Another response has become due meanwhile.
            let word = core::ptr::read_volatile(&raw const (*state).protocol);
            let new = (word & !response::PROTOCOL) | after;
            atomic::compare_swap(&raw mut (*state).protocol, word, new);
        }
        if is_response || identified.is_some() {
            seen(RESPONSE);
        }
        match read {
            Err(reason) if is_response => lost(RESPONSE, reason),
            Ok(_) if outcome.is_unframed() => lost(RESPONSE, UNFRAMED),
            _ => {}
        }
        let slot = (*state).slot;
        if let Some(at) = outcome.counted() {
            histograms::count(slot, ROLE_SERVER, durations::RESPONSE, at);
        }
        if let Some(at) = identified {
            histograms::count(slot, ROLE_SERVER, durations::RESPONSE, at);
        }
    }
}

/// The head of what the running program sends, of which the kernel took `bytes`, and how long it
/// is; else the reason why it is not known.
#[inline(always)]
fn head(bytes: u32) -> Result<(Head, u32), usize> {
    let Some(call) = SystemCall::current() else { return Err(NO_BUFFER) };
    let (mut from, mut length) = (call.argument, bytes);
    if call.number == config!(sending[SENDMSG]) || call.number == config!(sending[WRITEV]) {
        if call.number == config!(sending[SENDMSG]) {
            let Some([parts]) = read_user(from.wrapping_add(MESSAGE_PARTS)) else {
                return Err(PAGED);
            };
            from = parts;
        }
        let Some([start, size]) = read_user(from) else { return Err(PAGED) };
        from = start;
        if size < u64::from(length) {
            length = size as u32;
        }
    } else if call.number != config!(sending[WRITE]) && call.number != config!(sending[SENDTO]) {
        return Err(NO_BUFFER);
    }
    if length == 0 {
        return Err(NO_BUFFER);
    }
    if length > HEAD as u32 {
        length = HEAD as u32;
    }
    let mut head: Head = [0; HEAD / 8];
    // SAFETY: the helper checks the source at run time; there is room for so much.
    let result = unsafe {
        bpf_probe_read_user(head.as_mut_ptr().cast(), length, from as *const core::ffi::c_void)
    };
    if result == 0 { Ok((head, length)) } else { Err(PAGED) }
}

/// Where the parts of a message are in `struct user_msghdr` (include/linux/socket.h), on 64 bits.
const MESSAGE_PARTS: u64 = 16;

/// Reads words of the running program's memory.
#[inline(always)]
fn read_user<const N: usize>(from: u64) -> Option<[u64; N]> {
    let mut words = MaybeUninit::<[u64; N]>::uninit();
    // SAFETY: the helper checks the source at run time and fills the buffer or fails.
    let result = unsafe {
        bpf_probe_read_user(
            words.as_mut_ptr().cast(),
            size_of::<[u64; N]>() as u32,
            from as *const core::ffi::c_void,
        )
    };
    // SAFETY: filled just now.
    if result == 0 { Some(unsafe { words.assume_init() }) } else { None }
}

/// [`response::look`], of numbers: three words of the head, and what else it takes.
///
/// A global function: the verifier walks it once per program, whatever its caller knows.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn classify(a: u64, b: u64, c: u64, rest: u32) -> u32 {
    let head: Head = [a, b, c];
    response::look(rest >> 1 & 0xf, &head, rest >> 8, rest & 1 == 1).0
}
