//! DNS lookups over UDP: noted when a program's query was sent, counted when they end. What a lookup is, and how
//! it ends: [`agent_common::lookup`].
//!
//! Sending and receiving run at once on two CPUs. A lookup belongs to who takes its word, by
//! compare-and-swap. A sender publishes the lookup and then looks for an early response; who has a
//! response without a lookup keeps it and then looks for the lookup once more. So one of the two
//! finds both.

mod counts;
mod query;

use core::ffi::c_void;

use agent_common::address::Address;
use agent_common::answer::{DNS_PORT, Front, Questions, is_same};
use agent_common::ledger::{CLOSED, DNS_LOOKUP, NO_STORAGE, OVERTAKEN, RECURSION};
use agent_common::lookup::{
    BUSY, EARLY, EARLY_WITHIN_US, GIVEN_UP_US, IS_OPEN, Lookups, OPEN, Open, SLOT_WITHIN_US,
    TIMEOUT_US, UNSURE, detail, is_of, is_open, number, word,
};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;

use self::counts::{UNKNOWN, answer, first, is_edge, lookup_edge, second, time_out};
use crate::binds::{ALLOW, IPPROTO_UDP, context};
use crate::clock::monotonic_us;
use crate::maps::{config, lost, questions, questions_or_insert, seen};
use crate::opaque::{forgotten, opaque};
use crate::raw_sock::RawSock;
use crate::sock::Sock;
use crate::{atomic, fallback, owners, user_memory};

/// A program is about to send a datagram to port 53 at an address. Process context.
///
/// # Safety
/// `questions` must be a valid value of the socket's storage.
#[inline(always)]
pub unsafe fn begins(questions: *mut Questions, server: Address, now_us: u64) {
    if config!(lookups) != 1 {
        return;
    }
    let thread = thread();
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        let lookups = &raw mut (*questions).lookups;
        let before = core::ptr::read_volatile(&raw const (*lookups).sender);
        if before != 0 && before != thread {
            // Another thread's send from this socket has not returned: where it went is overwritten.
            seen(DNS_LOOKUP);
            lost(DNS_LOOKUP, OVERTAKEN);
        }
        (*lookups).sender_to = server;
        (*lookups).sender_us = now_us;
        core::ptr::write_volatile(&raw mut (*lookups).sender, thread);
    }
}

/// A send of a socket that does not speak TCP returned: with the number of bytes, or an error.
/// Process context.
#[inline(always)]
pub fn sent(sk: Sock, sent: i32) {
    if asks(sk) {
        asked(sk, questions(sk.0), sent);
        fallback::handled();
    }
}

/// The same for a fallback program.
#[inline(always)]
pub fn skipped(sk: Sock, sent: i32) {
    if asks(sk) && !fallback::is_handled() && sent > 0 {
        seen(DNS_LOOKUP);
        lost(DNS_LOOKUP, RECURSION);
    }
}

/// Whether a socket is connected to a DNS server or has asked one without.
#[inline(always)]
fn asks(sk: Sock) -> bool {
    if config!(lookups) != 1 || !sk.is_udp() {
        return false;
    }
    let port = sk.remote_port();
    port == DNS_PORT || (port == 0 && questions(sk.0).is_some())
}

#[inline(always)]
fn asked(sk: Sock, known: Option<*mut Questions>, sent: i32) {
    let thread = thread();
    let mut to = None;
    if let Some(questions) = known {
        // SAFETY: a valid value of this socket's storage; volatile, because others write it.
        unsafe {
            let lookups = &raw mut (*questions).lookups;
            if core::ptr::read_volatile(&raw const (*lookups).sender) == thread {
                to = Some(((*lookups).sender_to, (*lookups).sender_us));
                core::ptr::write_volatile(&raw mut (*lookups).sender, 0);
            }
            if sent <= 0 {
                (*lookups).messages = 0;
            }
        }
    }
    if sent <= 0 {
        return;
    }
    let (server, began_us) = match to {
        Some((server, began_us)) => (server, began_us),
        // The program sent it elsewhere.
        None if sk.remote_port() != DNS_PORT => return,
        None => (sk.remote(), 0),
    };
    let Some(questions) = known.or_else(|| questions_or_insert(sk.0)) else {
        seen(DNS_LOOKUP);
        lost(DNS_LOOKUP, NO_STORAGE);
        return;
    };
    // SAFETY: a valid value of this socket's storage.
    let lookups = unsafe { &raw mut (*questions).lookups };
    // SAFETY: as above.
    let message = unsafe { user_memory::sent_message(lookups, thread as u32, sent as u32) };
    let query = match message {
        Ok(message) => query::read(message),
        Err(reason) => Err(reason),
    };
    let (id, question) = match query {
        Ok(Some(query)) => query,
        // No query: an update, or what somebody sends who tests the server.
        Ok(None) => return,
        Err(reason) => {
            seen(DNS_LOOKUP);
            lost(DNS_LOOKUP, reason);
            return;
        }
    };
    seen(DNS_LOOKUP);
    let owner = owners::current_apart(sk.netns(), sk.net());
    let local = sk.local();
    let slot = lookup_edge(owner, first(&server), second(&server), first(&local), second(&local));
    // SAFETY: as above.
    unsafe { note(lookups, &Query { server, began_us, id, question, owner, slot }) };
}

/// A query that was sent.
struct Query {
    server: Address,
    /// When its send began; 0 if that is not known.
    began_us: u64,
    id: u16,
    question: u32,
    owner: u32,
    slot: u32,
}

/// Notes a lookup in its socket, in the place of one that has timed out if there is any: the one with the
/// same number before others.
///
/// # Safety
/// `lookups` must be in a valid value of the socket's storage.
#[inline(always)]
unsafe fn note(lookups: *mut Lookups, query: &Query) {
    let now_us = monotonic_us();
    let mine = word(IS_OPEN, query.id, query.question);
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        let (mut free, mut old) = (OPEN, OPEN);
        let mut i = 0;
        while i < OPEN {
            let place = place(lookups, opaque(i));
            let found = core::ptr::read_volatile(&raw const (*place).word);
            if found == 0 {
                free = i;
            } else if is_open(found) {
                if is_of(found, IS_OPEN, query.id) && is_same(&(*place).server, &query.server) {
                    old = i;
                    break;
                }
                if now_us.wrapping_sub((*place).time_us) >= TIMEOUT_US {
                    old = i;
                }
            }
            i += 1;
        }
        if old < OPEN {
            let place = place(lookups, forgotten(old, now_us));
            let found = core::ptr::read_volatile(&raw const (*place).word);
            // If somebody else has ended it, its place is free as well.
            if is_open(found) {
                end(place, found, now_us.wrapping_sub((*place).time_us), || query.owner);
            }
            free = old;
        }
        if free >= OPEN {
            lost(DNS_LOOKUP, NO_STORAGE);
            return;
        }
        let place = place(lookups, forgotten(free, now_us));
        let at = &raw mut (*place).word;
        if atomic::compare_swap(at, 0, BUSY) != 0 {
            // Another thread was faster.
            lost(DNS_LOOKUP, NO_STORAGE);
            return;
        }
        (*place).time_us = if query.began_us == 0 { now_us } else { query.began_us };
        (*place).server = query.server;
        (*place).slot = query.slot;
        (*place).owner = query.owner;
        // Not a store: whoever sees the word sees what was written before.
        atomic::compare_swap(at, BUSY, mine);

        let early = &raw mut (*lookups).early;
        let response = core::ptr::read_volatile(&raw const (*early).word);
        if is_of(response, EARLY, query.id)
            && atomic::compare_swap(&raw mut (*early).word, response, BUSY) == response
        {
            let (came_us, from) = ((*early).time_us, (*early).server);
            core::ptr::write_volatile(&raw mut (*early).word, 0);
            let is_mine = now_us.wrapping_sub(came_us) < EARLY_WITHIN_US
                && came_us >= query.began_us
                && is_same(&from, &query.server);
            if is_mine && atomic::compare_swap(at, mine, 0) == mine {
                let took_us = if query.began_us == 0 {
                    UNKNOWN
                } else {
                    came_us.wrapping_sub(query.began_us)
                };
                answer(query.slot, number(query.question, detail(response)), took_us);
            }
        }
    }
}

/// Ends a lookup without a response; `found` is its word. `owner` is who uses the socket now: a process
/// that ends has no arguments any more by which it could be told from others.
///
/// # Safety
/// `place` must be one of the lookups in a valid value of a socket's storage.
#[inline(always)]
unsafe fn end(place: *mut Open, found: u64, waited_us: u64, owner: impl FnOnce() -> u32) {
    // SAFETY: the caller's contract.
    unsafe {
        let Open { server, slot, owner: asker, .. } = *place;
        if atomic::compare_swap(&raw mut (*place).word, found, 0) != found {
            return;
        }
        if found & UNSURE != 0 {
            lost(DNS_LOOKUP, OVERTAKEN);
            return;
        }
        let (a, b) = (first(&server), second(&server));
        let mut slot = slot;
        if waited_us >= SLOT_WITHIN_US || is_edge(slot, asker, a, b) == 0 {
            slot = lookup_edge(owner(), a, b, 0, 0);
        }
        time_out(slot, detail(found));
    }
}

/// A socket that has asked a DNS server got a datagram of one; if that is not certain, one that it has
/// asked. `server` is who sent it.
#[inline(always)]
pub fn answered(sk: Sock, front: Front, server: Address) {
    if config!(lookups) != 1 {
        return;
    }
    let (Some(result), Some(questions)) = (front.result(), questions(sk.0)) else { return };
    let now_us = monotonic_us();
    let id = front.id();
    // SAFETY: a valid value of this socket's storage; volatile, because others write it.
    unsafe {
        let lookups = &raw mut (*questions).lookups;
        if take(lookups, id, &server, result, now_us) {
            return;
        }
        let early = &raw mut (*lookups).early;
        let at = &raw mut (*early).word;
        let before = core::ptr::read_volatile(at);
        if before == BUSY || atomic::compare_swap(at, before, BUSY) != before {
            return;
        }
        (*early).time_us = now_us;
        (*early).server = server;
        let kept = word(EARLY, id, result);
        atomic::compare_swap(at, BUSY, kept);
        if take(lookups, id, &server, result, now_us) {
            atomic::compare_swap(at, kept, 0);
        }
    }
}

/// Ends the lookup that a response answers, if there is one.
///
/// # Safety
/// `lookups` must be in a valid value of the socket's storage.
#[inline(always)]
unsafe fn take(lookups: *mut Lookups, id: u16, server: &Address, result: u32, now_us: u64) -> bool {
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        let mut found = OPEN;
        let mut i = 0;
        while i < OPEN {
            let place = place(lookups, opaque(i));
            let word = core::ptr::read_volatile(&raw const (*place).word);
            if is_of(word, IS_OPEN, id) && is_same(&(*place).server, server) {
                found = i;
            }
            i += 1;
        }
        if found >= OPEN {
            return false;
        }
        let place = place(lookups, forgotten(found, now_us));
        let word = core::ptr::read_volatile(&raw const (*place).word);
        let (sent_us, slot) = ((*place).time_us, (*place).slot);
        let took_us = now_us.wrapping_sub(sent_us);
        // Too late: it has timed out, which is found later. The edge may not be there any more.
        if took_us >= TIMEOUT_US {
            return true;
        }
        if !is_of(word, IS_OPEN, id)
            || atomic::compare_swap(&raw mut (*place).word, word, 0) != word
        {
            return true;
        }
        answer(slot, number(detail(word), result), took_us);
    }
    true
}

/// A response of a DNS server was not seen: it may have been that to any lookup.
#[inline(always)]
pub fn missed(sk: Sock) {
    if config!(lookups) != 1 {
        return;
    }
    let Some(questions) = questions(sk.0) else { return };
    // SAFETY: a valid value of this socket's storage; volatile, because others write it.
    unsafe {
        let lookups = &raw mut (*questions).lookups;
        let mut i = 0;
        while i < OPEN {
            let place = place(lookups, opaque(i));
            let found = core::ptr::read_volatile(&raw const (*place).word);
            if is_open(found) {
                atomic::compare_swap(&raw mut (*place).word, found, found | UNSURE);
            }
            i += 1;
        }
    }
}

/// A program closes a socket. Process context; the verdict is not looked at.
#[inline(always)]
pub fn released(ctx: *mut bpf_sock) -> i32 {
    if config!(lookups) != 1 || context!(ctx, protocol) != IPPROTO_UDP {
        return ALLOW;
    }
    let Some(questions) = questions(ctx as *const c_void) else { return ALLOW };
    let now_us = monotonic_us();
    // SAFETY: a valid value of this socket's storage; volatile, because others write it.
    unsafe {
        let lookups = &raw mut (*questions).lookups;
        let mut i = 0;
        while i < OPEN {
            let place = place(lookups, opaque(i));
            let found = core::ptr::read_volatile(&raw const (*place).word);
            i += 1;
            if !is_open(found) {
                continue;
            }
            let waited_us = now_us.wrapping_sub((*place).time_us);
            if waited_us >= GIVEN_UP_US {
                let net = RawSock::of(ctx as *const c_void).net();
                end(place, found, waited_us, || owners::current_apart(net.inode(), net));
            } else if atomic::compare_swap(&raw mut (*place).word, found, 0) == found {
                lost(DNS_LOOKUP, if found & UNSURE == 0 { CLOSED } else { OVERTAKEN });
            }
        }
    }
    ALLOW
}

/// The place of a lookup.
#[inline(always)]
unsafe fn place(lookups: *mut Lookups, at: usize) -> *mut Open {
    // SAFETY: the caller's `at` is below OPEN.
    unsafe { (&raw mut (*lookups).open).cast::<Open>().add(at) }
}

/// The running thread.
#[inline(always)]
fn thread() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_pid_tgid() & 0xffff_ffff }
}
