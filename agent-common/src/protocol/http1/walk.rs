//! The steps through a connection: what arrives and what is sent, packet by packet and line by line.

use super::detect::{CONNECT, HEAD};
use super::frame::{self, FIRST, LEAVES, NO_BODY, START, WAIT};
use super::{
    DONE, Direction, ENDED, Effect, GO_ON, LEFT, Place, QUIETLY, UNANSWERED, WINDOW, Walk, number,
    pair, through, through_long,
};
use crate::ledger::{GAP, OVERFLOW, UNFRAMED};
use crate::protocol::order::{Arrival, take};

/// Takes all open requests; how many they were.
///
/// # Safety
/// `walk` must be valid, and nobody else take one.
#[inline(always)]
pub unsafe fn drain(walk: *mut Walk, place: &impl Place) -> u32 {
    // SAFETY: the caller's contract.
    unsafe { pair::drain(walk, place) }
}

/// A packet of `length` bytes, from 1, arrived, whose first byte is at `offset`: whether to take steps
/// ([`request_step`]). `is_fresh`: of the connection nothing came before, or no request is open.
///
/// # Safety
/// `walk` must be valid and its requests busy.
#[inline(always)]
pub unsafe fn request_arrived(
    walk: *mut Walk,
    seq: u32,
    offset: u32,
    length: u32,
    is_fresh: bool,
) -> bool {
    // SAFETY: the caller's contract; volatile what others write.
    unsafe {
        let direction = &mut (*walk).requests;
        let sent = core::ptr::read_volatile(&raw const (*walk).sent_packets);
        let has_turned = sent != direction.sent_before;
        direction.sent_before = sent;
        if direction.is_started == 0 {
            direction.is_started = 1;
            direction.order.restart(seq);
            if !is_fresh {
                direction.lost = QUIETLY;
            }
        }
        let is_sending_lost = core::ptr::read_volatile(&raw const (*walk).responses.lost) != 0;
        if direction.lost != 0 || is_sending_lost {
            let is_new = seq.wrapping_sub(direction.order.next) as i32 >= 0;
            if is_new && has_turned && pair::is_empty(walk) {
                restart(direction, seq);
                direction.lost = 0;
                if is_sending_lost {
                    core::ptr::write_volatile(&raw mut (*walk).is_resumed, 1);
                }
            } else if direction.lost != 0 {
                direction.order.pass(seq, length);
                return false;
            }
        }
        arrived(direction, seq, offset, length)
    }
}

/// As [`request_arrived`], for what is sent.
///
/// # Safety
/// `walk` must be valid and its responses busy.
#[inline(always)]
pub unsafe fn response_sent(
    walk: *mut Walk,
    seq: u32,
    offset: u32,
    length: u32,
    place: &impl Place,
) -> (bool, Effect) {
    // SAFETY: the caller's contract; volatile what others write.
    unsafe {
        let direction = &mut (*walk).responses;
        if direction.is_started == 0 {
            direction.is_started = 1;
            direction.order.restart(seq);
        }
        let end = seq.wrapping_add(length);
        if end.wrapping_sub(direction.order.next) as i32 <= 0 {
            return (false, GO_ON);
        }
        let sent = core::ptr::read_volatile(&raw const (*walk).sent_packets);
        core::ptr::write_volatile(&raw mut (*walk).sent_packets, sent.wrapping_add(1));
        if direction.lost != 0 {
            if core::ptr::read_volatile(&raw const (*walk).is_resumed) == 0 {
                direction.order.pass(seq, length);
                return (false, GO_ON);
            }
            core::ptr::write_volatile(&raw mut (*walk).is_resumed, 0);
            let from = direction.order.next;
            restart(direction, if seq.wrapping_sub(from) as i32 > 0 { seq } else { from });
            core::ptr::write_volatile(&raw mut direction.lost, 0);
        }
        // What is sent passes in order.
        if !arrived(direction, seq, offset, length) {
            direction.order.pass(seq, length);
            return (false, lose_responses(walk, GAP, place));
        }
        (true, GO_ON)
    }
}

/// The packet was walked, or as much of it as there were steps.
///
/// # Safety
/// As [`request_arrived`].
#[inline(always)]
pub unsafe fn request_walked(walk: *mut Walk) {
    // SAFETY: the caller's contract.
    let direction = unsafe { &mut (*walk).requests };
    if direction.lost == 0 && direction.left != 0 {
        direction.lost = OVERFLOW as u32 + 1;
    }
    if direction.lost == 0 && direction.order.walked(&mut direction.skip) == Arrival::Lost {
        direction.lost = GAP as u32 + 1;
    }
}

/// Whether a reset with this sequence number is one that TCP believes (RFC 5961, 3.2): that of the next
/// byte, or of what follows the client's FIN.
///
/// # Safety
/// `walk` must be valid.
#[inline(always)]
pub unsafe fn is_believed(walk: *mut Walk, seq: u32) -> bool {
    // SAFETY: the caller's contract; volatile, because others write it.
    let next = unsafe { core::ptr::read_volatile(&raw const (*walk).requests.order.next) };
    seq.wrapping_sub(next) <= 1
}

/// As [`request_walked`], for what is sent.
///
/// # Safety
/// As [`response_sent`].
#[inline(always)]
pub unsafe fn response_walked(walk: *mut Walk, place: &impl Place) -> Effect {
    // SAFETY: the caller's contract.
    unsafe {
        if (*walk).responses.lost == 0 && (*walk).responses.left != 0 {
            return lose_responses(walk, OVERFLOW, place);
        }
    }
    DONE
}

#[inline(always)]
fn restart(direction: &mut Direction, seq: u32) {
    direction.order.restart(seq);
    direction.place = START;
    direction.have = 0;
    direction.skip = 0;
}

#[inline(always)]
fn arrived(direction: &mut Direction, seq: u32, offset: u32, length: u32) -> bool {
    // Bytes that wait in the window are followed by no gap.
    let mut none = 0;
    let skip = if direction.have == 0 { &mut direction.skip } else { &mut none };
    match direction.order.arrived(seq, length, skip) {
        Arrival::Walk(known) => {
            direction.offset = offset.wrapping_add(known);
            direction.left = length.wrapping_sub(known);
            true
        }
        _ => false,
    }
}

/// Takes the next step through a packet that the server received.
///
/// # Safety
/// As [`request_arrived`].
#[inline(always)]
pub unsafe fn request_step(walk: *mut Walk, place: &impl Place, now_us: u64) -> Effect {
    // SAFETY: the caller's contract; volatile what others write.
    unsafe {
        let direction = &mut (*walk).requests;
        if direction.place == START && direction.have == 0 {
            direction.began_us = now_us;
        }
        match advance(direction, true, place) {
            WAIT => DONE,
            FIRST => {
                let method = direction.said;
                core::ptr::write_volatile(&raw mut (*walk).has_request, 1);
                let stage = core::ptr::read_volatile(&raw const (*walk).stage);
                if stage == ENDED {
                    // The server has closed before it came.
                    return Effect { seen: 1, number: UNANSWERED + 1, ..GO_ON };
                }
                let sending = core::ptr::read_volatile(&raw const (*walk).responses.lost);
                if sending != 0 && core::ptr::read_volatile(&raw const (*walk).is_resumed) == 0 {
                    let reason = if sending == QUIETLY { UNFRAMED as u32 } else { sending - 1 };
                    return Effect { seen: 1, lost: 1, reason, ..GO_ON };
                }
                if pair::push(walk, method, direction.began_us) {
                    return Effect { seen: 1, ..GO_ON };
                }
                direction.lost = OVERFLOW as u32 + 1;
                Effect { seen: 1, lost: 1, reason: OVERFLOW as u32, ..DONE }
            }
            frame::UNFRAMED => {
                if (*walk).has_request != 0 {
                    direction.lost = UNFRAMED as u32 + 1;
                } else if core::ptr::read_volatile(&raw const (*walk).sent_packets) == 0 {
                    core::ptr::write_volatile(&raw mut (*walk).stage, LEFT);
                } else {
                    // The walk may have begun in the middle of something.
                    direction.lost = QUIETLY;
                }
                DONE
            }
            _ => GO_ON,
        }
    }
}

/// Takes the next step through a packet that the server sends.
///
/// # Safety
/// As [`response_sent`].
#[inline(always)]
pub unsafe fn response_step(walk: *mut Walk, place: &impl Place, now_us: u64) -> Effect {
    // SAFETY: the caller's contract; volatile what others write.
    unsafe {
        let direction = &mut (*walk).responses;
        match advance(direction, false, place) {
            WAIT => DONE,
            FIRST => {
                (*walk).has_response = 1;
                begins(walk, direction.said, place, now_us)
            }
            frame::LEFT => {
                core::ptr::write_volatile(&raw mut (*walk).stage, LEFT);
                lose_responses(walk, UNFRAMED, place)
            }
            frame::UNFRAMED => {
                if core::ptr::read_volatile(&raw const (*walk).has_request) == 0 {
                    direction.lost = QUIETLY;
                    return DONE;
                }
                if (*walk).has_response == 0 {
                    core::ptr::write_volatile(&raw mut (*walk).stage, LEFT);
                }
                lose_responses(walk, UNFRAMED, place)
            }
            _ => GO_ON,
        }
    }
}

/// A response begins.
#[inline(always)]
unsafe fn begins(walk: *mut Walk, status: u32, place: &impl Place, now_us: u64) -> Effect {
    // SAFETY: the caller's contract; volatile what others write.
    unsafe {
        let direction = &mut (*walk).responses;
        if status < 200 && status != 101 {
            // The final one is yet to come.
            direction.flags = NO_BODY;
            return GO_ON;
        }
        if let Some((method, began_us)) = pair::pop(walk, place) {
            let class = status / 100;
            if status == 101 || (method == CONNECT && class == 2) {
                direction.flags = LEAVES;
            } else if method == HEAD || status == 204 || status == 304 {
                direction.flags = NO_BODY;
            }
            let number = through(&mut direction.said, number(method, class) + 1);
            let elapsed_us = through_long(&mut direction.value, now_us.saturating_sub(began_us));
            return Effect { number, elapsed_us, ..GO_ON };
        }
        let lost = core::ptr::read_volatile(&raw const (*walk).requests.lost);
        let is_early = core::ptr::read_volatile(&raw const (*walk).requests.order.has_early) != 0;
        let has_none = core::ptr::read_volatile(&raw const (*walk).requests.is_started) == 0;
        if lost != 0 || is_early || has_none {
            // A request that was not seen. Without its method the response cannot be framed.
            let reason = if lost == 0 || lost == QUIETLY { GAP as u32 } else { lost - 1 };
            direction.lost = reason + 1;
            return Effect { seen: 1, lost: 1, reason, ..DONE };
        }
        // Nobody has asked: a server that waited too long for a request (408).
        GO_ON
    }
}

/// The place in what is sent is not known any more.
#[inline(always)]
unsafe fn lose_responses(walk: *mut Walk, reason: usize, place: &impl Place) -> Effect {
    // SAFETY: the caller's contract.
    unsafe {
        core::ptr::write_volatile(&raw mut (*walk).responses.lost, reason as u32 + 1);
        Effect { lost: place.drain(walk), reason: reason as u32, ..DONE }
    }
}

/// Skips what is to be skipped and looks at what follows: [`WAIT`] if the packet has nothing more.
#[inline(always)]
fn advance(direction: &mut Direction, is_request: bool, place: &impl Place) -> u32 {
    if direction.skip != 0 {
        let skipped = direction.skip.min(u64::from(direction.left)) as u32;
        take(&mut direction.skip, skipped);
        pass(direction, skipped);
    }
    if direction.left == 0 {
        return WAIT;
    }
    let have = direction.have as usize & (WINDOW - 1);
    let length = (WINDOW - have).min(direction.left as usize);
    // SAFETY: the window is valid; `have` and `length` are within it.
    let is_loaded =
        unsafe { place.load(&raw mut direction.window, have, direction.offset, length) };
    if !is_loaded {
        return frame::UNFRAMED;
    }
    let found = frame::step(direction, is_request, (have + length) as u32);
    if found == WAIT {
        direction.have = direction.have.wrapping_add(length as u32);
        direction.left = 0;
        return WAIT;
    }
    // What was kept from the packet before is a part of what was taken.
    let kept = core::mem::take(&mut direction.have);
    pass(direction, direction.taken.wrapping_sub(kept));
    found
}

#[inline(always)]
fn pass(direction: &mut Direction, bytes: u32) {
    direction.offset = direction.offset.wrapping_add(bytes);
    direction.left = direction.left.wrapping_sub(bytes);
}
