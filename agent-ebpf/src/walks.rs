//! The walk through what a chosen service receives and sends, message by message. What is a message, and
//! what it is counted as: [`agent_common::protocol`].

use core::ffi::c_void;
use core::mem::MaybeUninit;

use agent_common::edge::ROLE_SERVER;
use agent_common::exchange;
use agent_common::ledger::{GAP, OPERATION, OVERFLOW, UNFRAMED};
use agent_common::protocol::http1::{
    self, Effect, LEFT, NEW, Place, UNANSWERED, WALKED, WINDOW, Walk, Window,
};
use agent_common::socket::STAGE_OPEN;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes, bpf_skc_to_tcp_sock};

use crate::atomic;
use crate::binds::{ALLOW, IPPROTO_TCP, context};
use crate::clock::monotonic_us;
use crate::histograms::{NO_RESPONSE, count_operations};
use crate::maps::{self, lost_times, seen};
use crate::opaque::opaque;
use crate::sock::{LISTEN, Sock, Tcp};

/// More lines, chunks and pieces of long lines are not walked of one packet.
const MAX_STEPS: u32 = 2048;

/// Flags of a segment.
const FIN: u8 = 1;
const RST: u8 = 4;

/// A segment's part of a packet.
struct Segment {
    seq: u32,
    /// Where the payload begins.
    offset: u32,
    /// How long it is.
    length: u32,
    flags: u8,
}

/// A packet that is walked.
#[repr(C)]
struct Packet {
    skb: *mut __sk_buff,
    walk: *mut Walk,
    now_us: u64,
}

/// The server receives a packet.
#[inline(always)]
pub fn received(skb: *mut __sk_buff) -> i32 {
    let Some(segment) = segment(skb) else { return ALLOW };
    if segment.length == 0 && segment.flags & RST == 0 {
        return ALLOW;
    }
    let Some((walk, is_fresh)) = walk(skb, &segment) else { return ALLOW };
    // SAFETY: a valid value of the socket's storage; what others write is read volatile there.
    unsafe {
        if segment.length != 0 && is_mine(&raw mut (*walk).requests.busy) {
            let Segment { seq, offset, length, .. } = segment;
            if http1::request_arrived(walk, seq, offset, length, is_fresh) {
                steps(skb, walk, request_step);
                http1::request_walked(walk);
            }
            give_back(&raw mut (*walk).requests.busy);
        }
        if segment.flags & RST != 0 && http1::is_believed(walk, segment.seq) {
            ended(walk);
        }
    }
    ALLOW
}

/// The server sends a packet.
#[inline(always)]
pub fn sent(skb: *mut __sk_buff) -> i32 {
    let Some(segment) = segment(skb) else { return ALLOW };
    if segment.length == 0 && segment.flags & (FIN | RST) == 0 {
        return ALLOW;
    }
    let Some((walk, _)) = walk(skb, &segment) else { return ALLOW };
    // SAFETY: as in `received`.
    unsafe {
        if segment.length != 0 && is_mine(&raw mut (*walk).responses.busy) {
            let Segment { seq, offset, length, .. } = segment;
            let packet = Packet { skb, walk, now_us: 0 };
            let (goes_on, effect) = http1::response_sent(walk, seq, offset, length, &packet);
            count(walk, effect);
            if goes_on {
                steps(skb, walk, response_step);
                count(walk, http1::response_walked(walk, &packet));
            }
            give_back(&raw mut (*walk).responses.busy);
        }
        if segment.flags & (FIN | RST) != 0 {
            ended(walk);
        }
    }
    ALLOW
}

/// The segment in a packet, if it is one of TCP right behind the header of IP.
#[inline(always)]
fn segment(skb: *mut __sk_buff) -> Option<Segment> {
    let ip = load::<[u8; 20]>(skb, 0)?;
    let (protocol, transport) = match ip[0] >> 4 {
        4 => (ip[9], u32::from(ip[0] & 0xf) * 4),
        6 => (ip[6], 40),
        _ => return None,
    };
    if u32::from(protocol) != IPPROTO_TCP {
        return None;
    }
    let tcp = load::<[u8; 16]>(skb, transport)?;
    let seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    let offset = transport + u32::from(tcp[12] >> 4) * 4;
    let length = context!(skb, len).saturating_sub(offset);
    Some(Segment { seq, offset, length, flags: tcp[13] })
}

/// The walk of a packet's connection if it is a server's, and whether no request was open before its first
/// packet. What is not walked is known by its stage.
#[inline(always)]
fn walk(skb: *mut __sk_buff, segment: &Segment) -> Option<(*mut Walk, bool)> {
    // SAFETY: the kernel passes a valid context; the verifier checks the load.
    let sk = unsafe { core::ptr::read_volatile(&raw const (*skb).__bindgen_anon_2.sk) };
    if sk.is_null() {
        return None;
    }
    let mut is_fresh = true;
    let walk = match maps::walk(sk.cast()) {
        Some(walk) => walk,
        // Nothing came before the end.
        None if segment.length == 0 => return None,
        None => {
            let (walk, is_idle) = begin(sk.cast())?;
            is_fresh = is_idle;
            walk
        }
    };
    // SAFETY: a valid value of the socket's storage; volatile, because others write it.
    let stage = unsafe { core::ptr::read_volatile(&raw const (*walk).stage) };
    if stage == LEFT || stage == NEW { None } else { Some((walk, is_fresh)) }
}

/// Begins the walk of a connection; whether no request was open before.
#[inline(always)]
fn begin(sk: *mut c_void) -> Option<(*mut Walk, bool)> {
    // SAFETY: the verifier checks the pointer; the helper checks what it points to.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
    if tcp.is_null() {
        return None;
    }
    let sock = Sock(tcp.cast_const().cast());
    // What comes with the end of a handshake passes at the listener.
    if sock.state() == LISTEN {
        return None;
    }
    let state = maps::socket(sock.0)?;
    let walk = maps::walk_or_insert(sock.0)?;
    // SAFETY: valid values of the socket's storages; volatile, because others write them.
    unsafe {
        let is_server = (*state).role == ROLE_SERVER && (*state).stage == STAGE_OPEN;
        (*walk).slot = (*state).slot;
        let stage = if is_server { WALKED } else { LEFT };
        core::ptr::write_volatile(&raw mut (*walk).stage, stage);
        let exchange = core::ptr::read_volatile(&raw const (*state).exchange);
        let is_open = exchange::is_open(exchange, Tcp(sock.0).written());
        Some((walk, !is_open))
    }
}

/// Takes steps until the packet has nothing more.
#[inline(always)]
fn steps(
    skb: *mut __sk_buff,
    walk: *mut Walk,
    step: unsafe extern "C" fn(u64, *mut Packet) -> i64,
) {
    let mut packet = Packet { skb, walk, now_us: monotonic_us() };
    // SAFETY: the verifier checks the function and what it does with the packet.
    unsafe { bpf_loop(MAX_STEPS, step as *mut c_void, (&raw mut packet).cast(), 0) };
}

unsafe extern "C" fn request_step(_number: u64, packet: *mut Packet) -> i64 {
    // SAFETY: called by `steps` alone, whose caller has the walk's requests.
    unsafe {
        let effect = http1::request_step((*packet).walk, &*packet, (*packet).now_us);
        count((*packet).walk, effect);
        i64::from(effect.is_done)
    }
}

unsafe extern "C" fn response_step(_number: u64, packet: *mut Packet) -> i64 {
    // SAFETY: called by `steps` alone, whose caller has the walk's responses.
    unsafe {
        let effect = http1::response_step((*packet).walk, &*packet, (*packet).now_us);
        count((*packet).walk, effect);
        i64::from(effect.is_done)
    }
}

/// Counts what a step has found.
///
/// # Safety
/// `walk` must be a valid value of the socket's storage.
#[inline(always)]
unsafe fn count(walk: *mut Walk, effect: Effect) {
    if effect.seen != 0 {
        seen(OPERATION);
    }
    if effect.lost != 0 {
        if effect.reason == GAP as u32 {
            lost_times(OPERATION, GAP, effect.lost);
        } else if effect.reason == OVERFLOW as u32 {
            lost_times(OPERATION, OVERFLOW, effect.lost);
        } else {
            lost_times(OPERATION, UNFRAMED, effect.lost);
        }
    }
    if let Some(number) = effect.number.checked_sub(1) {
        let elapsed_us = if number == UNANSWERED { NO_RESPONSE } else { effect.elapsed_us };
        // SAFETY: the caller's contract.
        count_operations(unsafe { (*walk).slot }, number, 1, elapsed_us);
    }
}

/// The server has sent all that it will, or the client has reset the connection.
///
/// # Safety
/// As [`count`].
#[inline(always)]
unsafe fn ended(walk: *mut Walk) {
    // SAFETY: the caller's contract; volatile, because others write it.
    unsafe {
        core::ptr::write_volatile(&raw mut (*walk).stage, http1::ENDED);
        let unanswered = drain(walk);
        if unanswered != 0 {
            count_operations((*walk).slot, UNANSWERED, unanswered, NO_RESPONSE);
        }
    }
}

/// Takes all open requests of a connection; how many they were.
///
/// A function of its own, so that what calls it is not verified with each of them.
///
/// # Safety
/// As [`count`].
#[inline(never)]
unsafe fn drain(walk: *mut Walk) -> u32 {
    let packet = Packet { skb: core::ptr::null_mut(), walk, now_us: 0 };
    // SAFETY: the caller's contract.
    unsafe { http1::drain(walk, &packet) }
}

/// Whether nobody else walks this direction; then nobody will until it is given back.
///
/// # Safety
/// `busy` must be in a valid map value.
#[inline(always)]
unsafe fn is_mine(busy: *mut u64) -> bool {
    // SAFETY: the caller's contract.
    unsafe { atomic::compare_swap(busy, 0, 1) == 0 }
}

/// # Safety
/// As [`is_mine`], which must have been true.
#[inline(always)]
unsafe fn give_back(busy: *mut u64) {
    // An exchange, not a store: what was written before it is seen before it.
    // SAFETY: the caller's contract.
    unsafe { atomic::compare_swap(busy, 1, 0) };
}

/// Reads from the beginning of a packet.
#[inline(always)]
fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills the value or fails.
    let result = unsafe {
        bpf_skb_load_bytes(skb.cast(), offset, value.as_mut_ptr().cast(), size_of::<T>() as u32)
    };
    // SAFETY: filled just now, with bytes of a type of bytes.
    if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
}

impl Place for Packet {
    #[inline(always)]
    unsafe fn load(&self, window: *mut Window, have: usize, offset: u32, length: usize) -> bool {
        // The compiler knows that both are within the window and leaves the masks out, which the
        // verifier needs.
        let have = opaque(have) & (WINDOW - 1);
        let length = (opaque(length).wrapping_sub(1) & (WINDOW - 1)) + 1;
        // SAFETY: there is room for a window behind each byte of the window.
        unsafe {
            let to = window.cast::<u8>().add(have);
            bpf_skb_load_bytes(self.skb.cast(), offset, to.cast(), length as u32) == 0
        }
    }

    #[inline(always)]
    unsafe fn empty(&self, at: *mut u64, word: u64) -> bool {
        // SAFETY: the caller's contract.
        unsafe { atomic::compare_swap(at, word, 0) == word }
    }

    #[inline(always)]
    unsafe fn drain(&self, walk: *mut Walk) -> u32 {
        // SAFETY: the caller's contract.
        unsafe { drain(walk) }
    }
}
