//! What responses say: the beginning of what a server sends, looked at in the program's own buffer
//! while it is still in the system call. What can be said: [`agent_common::response`].
//!
//! A response may be counted before its send returns ([`agent_common::exchange`]); then its beginning is
//! due, and looked at when that does.

use agent_common::durations;
use agent_common::edge::ROLE_SERVER;
use agent_common::ledger::{NO_BUFFER, OVERTAKEN, PAGED, RESPONSE, UNFRAMED};
use agent_common::response::{self, DUE, HEAD, Head, MET, Outcome};
use agent_common::socket::SocketState;

use crate::maps::{config, lost, seen};
use crate::sock::Tcp;
use crate::{atomic, histograms, user_memory};

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
    if let Ok((head, length)) = read {
        outcome = if before == response::HTTP && is_response {
            // The most frequent one, without a call.
            response::of_http(&head, length)
        } else {
            let [a, b, c] = head;
            Outcome(classify(a, b, c, length << 8 | before << 1 | u32::from(is_response)))
        };
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
    let message = user_memory::sent_message(bytes, |_| None)?;
    let length = if message.length > HEAD as u32 { HEAD as u32 } else { message.length };
    if length == 0 {
        return Err(NO_BUFFER);
    }
    user_memory::head(message.from, length).map(|head| (head, length)).ok_or(PAGED)
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
