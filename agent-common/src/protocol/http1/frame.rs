//! Where messages begin and end. A direction is walked line by line, through a window of the bytes that
//! come next; bodies are skipped by their length.
//!
//! What one part has found goes to the next one through the memory of the direction ([`through`]): the
//! kernel's verifier knows nothing of what lies there, so it walks each part once and not once for each
//! outcome of those before.

use super::detect::{VERSION, VERSION_BYTES, method, status};
use super::parse::{CODING, CODING_CHUNKED, END, INVALID, LENGTH, chunk, field, is_empty};
use super::{Direction, WINDOW, through};

/// At the beginning of a message.
pub const START: u32 = 0;
/// In a first line that is longer than the window.
const LINE: u32 = 1;
/// At the beginning of a header line.
const HEADER: u32 = 2;
/// In a header line that is longer than the window.
const IN_HEADER: u32 = 3;
/// At the line of a chunk.
const CHUNK: u32 = 4;
/// In the line of a chunk that is longer than the window.
const IN_CHUNK: u32 = 5;
/// At the beginning of a line of the trailer.
const TRAILER: u32 = 6;
/// In a line of the trailer that is longer than the window.
const IN_TRAILER: u32 = 7;

/// In [`Direction::flags`]: the message has no body, whatever its head says.
pub const NO_BODY: u32 = 1;
/// After this head the connection speaks another protocol.
pub const LEAVES: u32 = 2;
const CHUNKED: u32 = 4;
const CODED: u32 = 8;

/// No `Content-Length` seen.
const NO_LENGTH: u64 = u64::MAX;
/// As [`Direction::skip`]: everything until the connection ends.
const ALL: u64 = u64::MAX;

/// In [`Direction::found`]: nothing of interest.
pub const NOTHING: u32 = 0;
/// More bytes have to come first.
pub const WAIT: u32 = 1;
/// The first line of a message: [`Direction::said`] is the method or the status code.
pub const FIRST: u32 = 2;
/// The end of a head behind which the connection speaks another protocol.
pub const LEFT: u32 = 3;
/// Not a message of HTTP/1.
pub const UNFRAMED: u32 = 4;

/// Takes the next piece of the window, of which `total` bytes are filled, at most [`WINDOW`]: how many
/// bytes it is is in [`Direction::taken`]. Returns what it is.
#[inline(always)]
pub fn step(direction: &mut Direction, is_request: bool, total: u32) -> u32 {
    let end = line_feed(direction);
    let end = through(&mut direction.end, if end < total { end } else { total });
    let is_whole = end < total;
    let place = direction.place;
    let is_inside = place & 1 == 1;
    direction.taken = if is_whole { end.wrapping_add(1) } else { total };
    let found = if place == START && !may_begin(direction, is_request, total) {
        UNFRAMED
    } else if !is_whole && !is_inside && total < WINDOW as u32 {
        WAIT
    } else if is_inside && !is_whole {
        NOTHING
    } else if place == START {
        first_line(direction, is_request, is_whole)
    } else if place == HEADER {
        header(direction, is_request, is_whole)
    } else if place == LINE || place == IN_HEADER {
        direction.place = HEADER;
        NOTHING
    } else if place == CHUNK {
        chunk_line(direction, is_whole)
    } else if place == IN_CHUNK {
        begin_chunk(direction);
        NOTHING
    } else if place == TRAILER && is_whole && is_empty(direction) {
        direction.place = START;
        NOTHING
    } else {
        direction.place = if is_whole { TRAILER } else { IN_TRAILER };
        NOTHING
    };
    through(&mut direction.found, found)
}

/// Whether a message may begin so: what is none is not waited for.
#[inline(always)]
fn may_begin(direction: &Direction, is_request: bool, total: u32) -> bool {
    let first = direction.window[0];
    if is_request {
        let first = first as u8;
        return first.wrapping_sub(b'A') < 26 || first == b'\r' || first == b'\n';
    }
    let known = if total < VERSION_BYTES { total } else { VERSION_BYTES };
    (first ^ VERSION) << ((64 - known * 8) & 63) == 0
}

#[inline(always)]
fn first_line(direction: &mut Direction, is_request: bool, is_whole: bool) -> u32 {
    if is_request && is_whole && is_empty(direction) {
        // Servers ignore empty lines before a request (RFC 9112, 2.2).
        return NOTHING;
    }
    let said = if is_request { method(direction) } else { status(&direction.window) };
    let said = through(&mut direction.said, said);
    if said == super::detect::NONE {
        return UNFRAMED;
    }
    direction.place = if is_whole { HEADER } else { LINE };
    direction.length = NO_LENGTH;
    direction.flags = 0;
    FIRST
}

#[inline(always)]
fn header(direction: &mut Direction, is_request: bool, is_whole: bool) -> u32 {
    direction.place = if is_whole { HEADER } else { IN_HEADER };
    let field = field(direction, is_whole);
    let field = through(&mut direction.part, field);
    if field == END {
        return end_of_head(direction, is_request);
    }
    if field == LENGTH {
        if direction.length != NO_LENGTH && direction.length != direction.value {
            return UNFRAMED;
        }
        direction.length = direction.value;
    } else if field == CODING {
        direction.flags = direction.flags & !CHUNKED | CODED;
    } else if field == CODING_CHUNKED {
        direction.flags = direction.flags & !CODED | CHUNKED;
    } else if field == INVALID {
        return UNFRAMED;
    }
    NOTHING
}

#[inline(always)]
fn end_of_head(direction: &mut Direction, is_request: bool) -> u32 {
    let flags = direction.flags;
    direction.place = START;
    if flags & LEAVES != 0 {
        return LEFT;
    }
    if flags & NO_BODY != 0 {
        return NOTHING;
    }
    if flags & CHUNKED != 0 {
        direction.place = CHUNK;
    } else if flags & CODED != 0 {
        if is_request {
            return UNFRAMED;
        }
        direction.skip = ALL;
    } else if direction.length != NO_LENGTH {
        direction.skip = direction.length;
    } else if !is_request {
        direction.skip = ALL;
    }
    NOTHING
}

#[inline(always)]
fn chunk_line(direction: &mut Direction, is_whole: bool) -> u32 {
    let is_size = chunk(direction);
    if through(&mut direction.part, is_size.into()) == 0 {
        return UNFRAMED;
    }
    if is_whole {
        begin_chunk(direction);
    } else {
        direction.place = IN_CHUNK;
    }
    NOTHING
}

#[inline(always)]
fn begin_chunk(direction: &mut Direction) {
    if direction.value == 0 {
        direction.place = TRAILER;
    } else {
        // The line feed behind it, too.
        direction.skip = direction.value.wrapping_add(2);
        direction.place = CHUNK;
    }
}

/// Where the first line feed of the window is; [`WINDOW`] if it has none.
#[inline(always)]
fn line_feed(direction: &Direction) -> u32 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut at = 0;
    while at < WINDOW / 8 {
        let word = direction.window[at] ^ (ONES * 10);
        // The lowest of these bits is that of the first byte that is zero.
        let zeros = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if zeros != 0 {
            let below = (zeros & zeros.wrapping_neg()).wrapping_sub(1) & ONES;
            return (at * 8) as u32 + (below.wrapping_mul(ONES) >> 56) as u32 - 1;
        }
        at += 1;
    }
    WINDOW as u32
}
