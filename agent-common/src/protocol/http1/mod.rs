//! HTTP/1 as a server speaks it: every request with its method, the class of its status, and the time from
//! its first byte to the first byte of its final response.
//!
//! Two programs walk a connection, one what it receives (requests) and one what it sends (responses). They
//! run at once on two CPUs, so each writes its own [`Direction`], and what both share is single words.
//!
//! *Lost direction.* What cannot be framed is not guessed. Where a direction loses its place, requests
//! that are known to be open and cannot be paired any more are lost, with the reason, and so is each response
//! to a request that was not seen. The walk goes on at the next exchange: when no request is open, the server
//! has sent something since the last request, and what arrives begins as a request does.

pub mod detect;
mod frame;
mod pair;
mod parse;
#[cfg(any(feature = "user", test))]
pub mod replay;
mod walk;

#[cfg(test)]
mod tests;

pub use detect::METHOD_NAMES;
use detect::METHODS;
pub use walk::{
    drain, is_believed, request_arrived, request_step, request_walked, response_sent,
    response_step, response_walked,
};

use super::order::Order;

/// How many bytes a step looks at.
pub const WINDOW: usize = 64;
/// The window: its first half is what is looked at, the second one is room that keeps offsets in bounds.
pub type Window = [u64; WINDOW / 4];

/// Requests that one connection may have open; a power of two.
pub const OPEN: usize = 32;

/// Classes of status, label values.
pub const CLASS_NAMES: [&str; CLASSES] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// How many there are.
pub const CLASSES: usize = 5;
/// How many numbers are counted: of each method, by class of status, then requests without a response.
pub const NUMBERS: usize = METHODS * CLASSES + 1;
/// The last of them.
pub const UNANSWERED: u32 = NUMBERS as u32 - 1;

crate::wire! {
    /// How far what one side sends was walked. Changed by one program at a time: who has made it busy.
    pub struct Direction: 240 {
        /// Bytes that come next and were loaded already.
        pub window: Window,
        /// How many bytes to pass over.
        pub skip: u64,
        /// The length that the head has told so far, or the size of a chunk.
        pub length: u64,
        /// When the first byte of the message came, CLOCK_MONOTONIC microseconds.
        pub began_us: u64,
        /// Somebody walks.
        pub busy: u64,
        /// Sequence numbers.
        pub order: Order,
        /// How many bytes of the window are kept from the packet before.
        pub have: u32,
        /// Where in a message.
        pub place: u32,
        /// What the head has said.
        pub flags: u32,
        /// The reason why the place in the stream is not known, of the ledger's, plus one; 0 = it is known.
        pub lost: u32,
        /// Where in the packet the next byte is...
        pub offset: u32,
        /// ...and how many there are from there on.
        pub left: u32,
        /// Whether a packet came.
        pub is_started: u32,
        /// Of requests: [`Walk::sent_packets`] when the last packet came.
        pub sent_before: u32,
        /// Of the line that is looked at: a number in it...
        pub value: u64,
        /// ...where its line feed is...
        pub end: u32,
        /// ...how many bytes were taken...
        pub taken: u32,
        /// ...what it is...
        pub found: u32,
        /// ...the method or the status...
        pub said: u32,
        /// ...and what is known on the way.
        pub part: u32,
        /// Always zero.
        pub zero: u32,
    }

    /// The walk of a connection; lives in its socket and dies with it.
    pub struct Walk: 776 {
        /// What the server receives.
        pub requests: Direction,
        /// What it sends.
        pub responses: Direction,
        /// Requests without a response, as a ring; 0 = no request.
        pub open: [u64; OPEN],
        /// How many were noted.
        pub pushed: u32,
        /// How many were taken.
        pub popped: u32,
        /// The slot of the edge.
        pub slot: u32,
        /// [`NEW`] and its kin.
        pub stage: u32,
        /// Packets with something new that were sent.
        pub sent_packets: u32,
        /// The next packet that is sent begins a response.
        pub is_resumed: u32,
        /// A request came.
        pub has_request: u32,
        /// A response came.
        pub has_response: u32,
        /// How many open requests were taken at once.
        pub drained: u32,
        /// Always zero.
        pub zero: u32,
    }
}

/// In [`Walk::stage`]: nothing known yet.
pub const NEW: u32 = 0;
/// The server's side of a connection.
pub const WALKED: u32 = 1;
/// Nothing is to be learnt from it: another side, or another protocol.
pub const LEFT: u32 = 2;
/// The server has sent all that it will.
pub const ENDED: u32 = 3;

/// A direction that was lost before anything of it was counted.
const QUIETLY: u32 = u32::MAX;

/// What the walk needs of where it runs.
pub trait Place {
    /// Copies `length` bytes, from 1 to [`WINDOW`], that are `offset` bytes into the packet, to `have` bytes
    /// behind the beginning of `window`. They end within [`WINDOW`].
    ///
    /// # Safety
    /// `window` must be valid.
    unsafe fn load(&self, window: *mut Window, have: usize, offset: u32, length: usize) -> bool;

    /// Makes a word zero if it is `word`.
    ///
    /// # Safety
    /// `at` must be valid.
    unsafe fn empty(&self, at: *mut u64, word: u64) -> bool;

    /// [`drain`], as a function of its own where that is needed.
    ///
    /// # Safety
    /// As [`drain`].
    unsafe fn drain(&self, walk: *mut Walk) -> u32;
}

/// What a step is to be counted as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// A request began.
    pub seen: u32,
    /// So many requests were lost...
    pub lost: u32,
    /// ...for this reason of the ledger.
    pub reason: u32,
    /// A request has ended: which number it adds to, plus one; 0 = none.
    pub number: u32,
    /// How long it took, if it was answered.
    pub elapsed_us: u64,
    /// The packet has nothing more.
    pub is_done: bool,
}

const GO_ON: Effect =
    Effect { seen: 0, lost: 0, reason: 0, number: 0, elapsed_us: 0, is_done: false };
const DONE: Effect = Effect { is_done: true, ..GO_ON };

/// The number of a method and a class of status, 1 to 5.
#[inline(always)]
pub const fn number(method: u32, class: u32) -> u32 {
    method * CLASSES as u32 + class - 1
}

/// The method of a number.
#[inline(always)]
pub const fn method_of(number: u32) -> u32 {
    number / CLASSES as u32
}

/// Puts a number into memory and reads it back; see [`frame`].
#[inline(always)]
fn through(place: &mut u32, number: u32) -> u32 {
    // SAFETY: a valid place.
    unsafe {
        core::ptr::write_volatile(place, number);
        core::ptr::read_volatile(place)
    }
}

/// As [`through`], of 64 bits.
#[inline(always)]
fn through_long(place: &mut u64, number: u64) -> u64 {
    // SAFETY: a valid place.
    unsafe {
        core::ptr::write_volatile(place, number);
        core::ptr::read_volatile(place)
    }
}

/// A byte of the window.
#[inline(always)]
const fn byte(window: &Window, at: usize) -> u8 {
    (window[(at / 8) & (WINDOW / 8 - 1)] >> (at % 8 * 8)) as u8
}
