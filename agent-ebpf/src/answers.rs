//! Answers of DNS servers, copied where a program learns that one has arrived.
//!
//! `__udp_enqueue_schedule_skb` (net/ipv4/udp.c) queues a packet at the tail of
//! `sk_receive_queue`, lets go of the queue's lock, and calls `sk_data_ready`, from Linux 6.18 on
//! once for each of several packets that were queued together. Nobody but a program that happens
//! to read at this very moment has been faster. So the newest packet in the queue is the one; if
//! it is the same as the last time on this CPU, the one before it.
//!
//! The message is copied without the lock. Afterwards the packet must still be in a queue: a
//! packet that is taken out has no neighbours any more (`__skb_unlink`).

use agent_common::address::Address;
use agent_common::answer::{
    AnswerHeader, AnswerRoom, DNS_PORT, Front, LastAnswer, MAX_BATCH, MAX_MESSAGE,
};
use agent_common::ledger::{DNS_ANSWER, OVERTAKEN, PAGED, RECURSION};

use crate::clock::monotonic_us;
use crate::maps::{answer_room, config, lost, questions, seen};
use crate::sock::{Packet, Sock};
use crate::{emit, fallback, lookups};

/// A socket without state of ours has data.
#[inline(always)]
pub fn received(sk: Sock) {
    if let Some(is_certain) = asks(sk) {
        answered(sk, is_certain);
        fallback::handled();
    }
}

/// The same for a fallback program. To read the answer twice would be worse than not to read it: it
/// is lost if the first was skipped.
#[inline(always)]
pub fn skipped(sk: Sock) {
    if let Some(is_certain) = asks(sk)
        && !fallback::is_handled()
        && is_certain
    {
        lookups::missed(sk);
        if config!(dns) == 1 {
            seen(DNS_ANSWER);
            lost(DNS_ANSWER, RECURSION);
        }
    }
}

/// Whether a socket is connected to a DNS server (`true`) or has asked one without.
#[inline(always)]
fn asks(sk: Sock) -> Option<bool> {
    if config!(dns) | config!(lookups) == 0 || !sk.is_udp() {
        return None;
    }
    match sk.remote_port() {
        DNS_PORT => Some(true),
        0 if questions(sk.0).is_some() => Some(false),
        _ => None,
    }
}

/// A socket has data that is connected to a DNS server (`is_certain`) or has asked one.
#[inline(always)]
fn answered(sk: Sock, is_certain: bool) {
    let Some((newest, front)) = newest(sk) else {
        // At a socket that is not connected it may have been anything.
        if is_certain {
            lookups::missed(sk);
            if config!(dns) == 1 {
                seen(DNS_ANSWER);
                lost(DNS_ANSWER, OVERTAKEN);
            }
        }
        return;
    };
    let Some(room) = answer_room() else { return };
    // SAFETY: a valid map value of this CPU, on which this program runs once at a time.
    let depth = unsafe { depth(&raw mut (*room).last, newest, front, sk.waiting_packets()) };
    let packet = before(newest, depth);
    let Some(front) = packet.front() else { return };
    if front.source_port() != DNS_PORT {
        return;
    }
    // The stack lets only the peer send to a connected socket.
    let server = if is_certain { Some(sk.remote()) } else { awaited(sk, packet) };
    let Some(server) = server else { return };
    if packet.is_queued() {
        lookups::answered(sk, front, server);
    } else {
        // What was read may be of another packet.
        lookups::missed(sk);
    }
    if config!(dns) == 0 || !front.may_tell() {
        return;
    }
    seen(DNS_ANSWER);
    let origin = sk.net().origin();
    let Some(time_ns) = emit::admit_answer(origin) else { return };
    let length = front.message_length();
    let header = AnswerHeader { time_ns, origin, netns: sk.netns(), length, copied: 0, zero: 0 };
    // SAFETY: as above.
    unsafe { hand_over(room, packet, header) };
}

/// Who has sent a packet, if a socket without a peer has asked them.
#[inline(always)]
fn awaited(sk: Sock, packet: Packet) -> Option<Address> {
    let (questions, server) = (questions(sk.0)?, packet.source()?);
    // SAFETY: a valid value of this socket's storage.
    if unsafe { (*questions).awaits(&server, monotonic_us()) } { Some(server) } else { None }
}

/// The packet that was queued `depth` packets before, less than [`MAX_BATCH`].
#[inline(always)]
fn before(mut packet: Packet, depth: u32) -> Packet {
    // No loop: of one that the compiler makes of it the verifier finds no end.
    macro_rules! steps {
        ($($step:literal)*) => { $( if depth > $step { packet = packet.previous(); } )* };
    }
    steps!(0 1 2 3 4 5 6);
    packet
}

/// The packet in the queue that was queued last, and its beginning, if a DNS server has sent it.
#[inline(always)]
fn newest(sk: Sock) -> Option<(Packet, Front)> {
    let packet = sk.newest_packet()?;
    let front = packet.front()?;
    if front.source_port() == DNS_PORT { Some((packet, front)) } else { None }
}

/// How many packets before the newest the one is that was not handed over yet.
///
/// # Safety
/// `last` must be a valid map value of this CPU.
#[inline(always)]
unsafe fn depth(last: *mut LastAnswer, newest: Packet, front: Front, waiting: u32) -> u32 {
    let address = newest.0 as u64;
    // SAFETY: the caller's contract.
    unsafe {
        // Memory of packets is used again at once: only one with the same beginning is the same.
        let is_same = (*last).newest == address && front.is_same((*last).front);
        let depth = if is_same { (*last).depth + 1 } else { 0 };
        let depth = if depth < waiting && depth < MAX_BATCH { depth } else { 0 };
        (*last).newest = address;
        (*last).front = front;
        (*last).depth = depth;
        depth
    }
}

/// Copies a message and writes it into the ring.
///
/// # Safety
/// `room` must be a valid map value of this CPU.
#[inline(always)]
unsafe fn hand_over(room: *mut AnswerRoom, packet: Packet, header: AnswerHeader) {
    let mut length = header.length;
    if length > MAX_MESSAGE as u32 {
        length = MAX_MESSAGE as u32;
    }
    if packet.message_in_buffer() < length {
        lost(DNS_ANSWER, PAGED);
        return;
    }
    // SAFETY: the caller's contract; the room has place for so much.
    unsafe {
        (*room).header = AnswerHeader { copied: length, ..header };
        let copied = packet.copy_message((&raw mut (*room).message).cast(), length);
        if !copied || !packet.is_queued() {
            lost(DNS_ANSWER, OVERTAKEN);
            return;
        }
        emit::write_answer(&raw mut (*room).header, length);
    }
}
