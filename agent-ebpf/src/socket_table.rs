//! The table of sockets, the hooks' half: find a socket's entry, or take one. What an entry is and
//! who may take it: [`agent_common::socket_table`].

use core::arch::asm;
use core::ffi::c_void;

use agent_common::edge::ROLE_LISTENER;
use agent_common::socket::{STAGE_CLOSED, STAGE_CONNECTING, STAGE_OPEN, SocketState};
use agent_common::socket_table::{
    BUSY, Entry, WAYS, is_free, is_gone, is_of, ports, set_of, suspect,
};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_probe_read_kernel};

use crate::atomic;
use crate::edges::count;
use crate::maps::{self, config, configuration, stored_or_insert};
use crate::opaque::{forgotten, opaque};
use crate::sock::{CLOSE, Sock};

// What `forgotten` makes of an entry.
const _: () = assert!(WAYS < 8);

/// The state of a socket, if it has one in the table.
#[inline(always)]
pub fn find(sk: Sock) -> Option<*mut SocketState> {
    let state = at(key(sk.0))?;
    // SAFETY: a valid map value; volatile, because others write it.
    let stage = unsafe { core::ptr::read_volatile(&raw const (*state).stage) };
    // That of one that had the same address.
    if stage == STAGE_CLOSED && sk.state() != CLOSE { None } else { Some(state) }
}

/// The state of the socket that has this key, if it has one in the table.
#[inline(always)]
pub fn at(key: u64) -> Option<*mut SocketState> {
    let set = maps::socket_set(set_of(key))?;
    let mut way = 0;
    while way < WAYS {
        let entry = entry(set, opaque(way));
        // SAFETY: a valid map value; volatile, because others write it.
        unsafe {
            if is_of(core::ptr::read_volatile(&raw const (*entry).token), key) {
                // One way on from here, whichever it is, or the verifier walks the rest for each.
                let word = core::ptr::read_volatile(&raw const (*entry).state.start_us);
                return Some(&raw mut (*self::entry(set, forgotten(way, word))).state);
            }
        }
        way += 1;
    }
    None
}

/// Writes the state of a socket of which nothing happened before; `None` if its set is full.
#[inline(always)]
pub fn write(sk: Sock, initial: &SocketState) -> Option<*mut SocketState> {
    let key = key(sk.0);
    let set = maps::socket_set(set_of(key))?;
    let now = jiffies();
    // Twice: an entry that looks free may be taken by another CPU.
    let mut tries = 0;
    while tries < 2 {
        let way = place_for(set, key, now);
        if way >= WAYS {
            break;
        }
        let entry = entry(set, way);
        // SAFETY: a valid map value; volatile, because others write it; ours since its token was
        // swapped.
        unsafe {
            let token = core::ptr::read_volatile(&raw const (*entry).token);
            let state = &raw mut (*entry).state;
            let stage = core::ptr::read_volatile(&raw const (*state).stage);
            let ended = core::ptr::read_volatile(&raw const (*state).start_us);
            let is_own = token == key;
            if (is_own || is_free(token, stage, ended, now))
                && atomic::compare_swap(&raw mut (*entry).token, token, key | BUSY) == token
            {
                // The kernel skipped the end of the socket that had this address.
                if is_own && stage == STAGE_OPEN && (*state).role != ROLE_LISTENER {
                    count!((*state).slot, closed, 1);
                }
                *state = *initial;
                // An exchange, not a store: what was written before it is seen before it.
                atomic::compare_swap(&raw mut (*entry).token, key | BUSY, key);
                mark(set_of(key), way);
                return Some(state);
            }
        }
        tries += 1;
    }
    None
}

/// Where the socket with this key goes: its own entry, else a free one; [`WAYS`] if there is none.
#[inline(always)]
fn place_for(set: *mut Entry, key: u64, now: u64) -> usize {
    let (mut free, mut way) = (WAYS, 0);
    while way < WAYS {
        let entry = entry(set, opaque(way));
        // SAFETY: a valid map value; volatile, because others write it.
        let (token, stage, word) = unsafe {
            (
                core::ptr::read_volatile(&raw const (*entry).token),
                core::ptr::read_volatile(&raw const (*entry).state.stage),
                core::ptr::read_volatile(&raw const (*entry).state.start_us),
            )
        };
        let found = forgotten(way, word);
        if is_of(token, key) {
            return found;
        }
        if free >= WAYS && is_free(token, stage, word, now) {
            free = found;
        }
        way += 1;
    }
    free
}

/// Notes that an entry lives, after it was written.
#[inline(always)]
fn mark(set: u32, way: usize) {
    let (word, bit) = place_of(set, way);
    if let Some(word) = maps::sockets_live(word) {
        // SAFETY: a valid map value; volatile, because others write it. Mostly it is marked already.
        unsafe {
            if core::ptr::read_volatile(word) & bit == 0 {
                atomic::or(word, bit);
            }
        }
    }
}

/// Notes that an entry does not live, unless it does again. Only for the socket iteration.
#[inline(always)]
pub fn unmark(index: u32, set: *mut Entry, way: usize) {
    let (word, bit) = place_of(index, way);
    let Some(word) = maps::sockets_live(word) else { return };
    // SAFETY: valid map values. Who writes the entry looks at the bit after that.
    unsafe {
        atomic::and(word, !bit);
        if is_living(set, way) {
            atomic::or(word, bit);
        }
    }
}

/// Whether an entry has a socket that has not ended.
#[inline(always)]
pub fn is_living(set: *mut Entry, way: usize) -> bool {
    let entry = entry(set, way);
    // SAFETY: a valid map value; volatile, because others write it.
    unsafe {
        core::ptr::read_volatile(&raw const (*entry).token) != 0
            && core::ptr::read_volatile(&raw const (*entry).state.stage) != STAGE_CLOSED
    }
}

#[inline(always)]
fn place_of(set: u32, way: usize) -> (u32, u64) {
    let number = set * WAYS as u32 + way as u32;
    (number / 64, 1 << (number % 64))
}

/// Takes an entry of a set for as long as somebody works on it: its key, unless it is taken.
#[inline(always)]
pub fn take(set: *mut Entry, way: usize) -> Option<u64> {
    let entry = entry(set, way);
    // SAFETY: a valid map value; volatile, because others write it.
    unsafe {
        let token = core::ptr::read_volatile(&raw const (*entry).token);
        if token & BUSY != 0 {
            return None;
        }
        let found = atomic::compare_swap(&raw mut (*entry).token, token, token | BUSY);
        (found == token).then_some(token)
    }
}

/// Gives an entry back.
#[inline(always)]
pub fn give_back(set: *mut Entry, way: usize, key: u64) {
    // SAFETY: a valid map value, taken by the caller.
    unsafe { atomic::compare_swap(&raw mut (*entry(set, way)).token, key | BUSY, key) };
}

/// The state in an entry of a set.
#[inline(always)]
pub fn state(set: *mut Entry, way: usize) -> *mut SocketState {
    // SAFETY: a place within a map value.
    unsafe { &raw mut (*entry(set, way)).state }
}

/// The socket has ended: from now on the entry is free, after a moment.
///
/// # Safety
/// `state` must be a valid value.
#[inline(always)]
pub unsafe fn end(state: *mut SocketState) {
    // SAFETY: the caller's contract; the stage last.
    unsafe {
        core::ptr::write_volatile(&raw mut (*state).start_us, jiffies());
        core::ptr::write_volatile(&raw mut (*state).stage, STAGE_CLOSED);
    }
}

/// A listener's child is there, a copy of it up to now, with the same local port and nothing else that
/// is known. It inherits the listener's state, as it does by itself where that lies in the socket.
#[inline(always)]
pub fn born(sk: Sock) {
    // Pruned where its parent could not be found.
    if config!(socket_table) != 1 {
        return;
    }
    let Some(tcp) = sk.tcp() else { return };
    let Some(listener) = at(tcp.parents_key()) else { return };
    // SAFETY: a valid map value; the stack holds the child's lock.
    unsafe {
        if (*listener).role != ROLE_LISTENER || (*listener).stage != STAGE_OPEN {
            return;
        }
        if write(sk, &*listener).is_some() {
            return;
        }
        maps::spilled();
        if let Some(state) = stored_or_insert(sk.0, &*listener) {
            *state = *listener;
        }
    }
}

/// Whether the socket that an entry of the table is for is still there. Its memory may be of another
/// one, or of something else, if the kernel has skipped its end; that is made up for here. Only for
/// the socket iteration.
///
/// # Safety
/// `state` must be a valid value of the table.
#[inline(always)]
pub unsafe fn is_alive(sk: Sock, state: *mut SocketState) -> bool {
    // SAFETY: the caller's contract; volatile, because the hooks write meanwhile.
    unsafe {
        let stage = core::ptr::read_volatile(&raw const (*state).stage);
        let role = core::ptr::read_volatile(&raw const (*state).role);
        // What is known of its ports: a listener and its children before the end of their handshake
        // have the local one, a client chooses it late.
        let known = if role == ROLE_LISTENER {
            0xffff
        } else if stage == STAGE_CONNECTING {
            0xffff << 16
        } else {
            u32::MAX
        };
        let ports = ports(sk.remote_port(), sk.local_port());
        let is_it = sk.is_tcp()
            && sk.state() != CLOSE
            && (ports ^ core::ptr::read_volatile(&raw const (*state).ports)) & known == 0;
        let since = core::ptr::read_volatile(&raw const (*state).suspect);
        if is_it {
            if since != 0 {
                core::ptr::write_volatile(&raw mut (*state).suspect, 0);
            }
            return true;
        }
        // A socket about to connect, or to close, looks like that, too.
        let now = jiffies();
        if since == 0 {
            core::ptr::write_volatile(&raw mut (*state).suspect, suspect(now));
        } else if is_gone(since, now) {
            if stage == STAGE_OPEN && role != ROLE_LISTENER {
                count!((*state).slot, closed, 1);
            }
            end(state);
        }
        false
    }
}

/// The key of a socket: the difference of two pointers is a number, also to the verifier.
#[inline(always)]
pub fn key(sk: *const c_void) -> u64 {
    let key;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!(
            "{0} = {1}", "{0} -= {2}",
            out(reg) key, in(reg) sk.addr(), in(reg) core::ptr::from_ref(configuration()).addr(),
            options(pure, nomem, nostack)
        );
    }
    key
}

/// The address of the socket that has this key.
#[inline(always)]
pub fn address(key: u64) -> u64 {
    let own = core::ptr::from_ref(configuration());
    let mut base = 0u64;
    // SAFETY: copies the eight bytes of a local variable. Read back by a helper, the pointer is a
    // number.
    unsafe { bpf_probe_read_kernel((&raw mut base).cast(), 8, (&raw const own).cast()) };
    base.wrapping_add(key)
}

/// Jiffies since the boot, and some more.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_jiffies64() }
}

#[inline(always)]
fn entry(set: *mut Entry, way: usize) -> *mut Entry {
    // SAFETY: the number is below WAYS.
    unsafe { set.add(way & (WAYS - 1)) }
}
