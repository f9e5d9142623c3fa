//! The header lines that say how long a body is (RFC 9112, section 6), and sizes of chunks (7.1). Numbers
//! are left in [`Direction::value`].

use super::{Direction, WINDOW, byte, through, through_long};

/// What a line says of the body: nothing.
pub const OTHER: u32 = 0;
/// The head ends.
pub const END: u32 = 1;
/// `Content-Length`.
pub const LENGTH: u32 = 2;
/// `Transfer-Encoding`, and the last one is not `chunked`.
pub const CODING: u32 = 3;
/// It is.
pub const CODING_CHUNKED: u32 = 4;
/// One of these, and not as it should be.
pub const INVALID: u32 = 5;

/// Bodies and chunks are shorter than this; what says otherwise is taken for invalid.
const LONGEST: u64 = 1 << 60;

/// `Content-Length:`.
const LENGTH_BYTES: usize = 15;

/// The header line that ends at [`Direction::end`], or is longer than the window.
#[inline(always)]
pub fn field(direction: &mut Direction, is_whole: bool) -> u32 {
    if is_whole && is_empty(direction) {
        return END;
    }
    let window = &direction.window;
    let letters = |word: u64, mask: u64| word | mask & 0x2020_2020_2020_2020;
    let first = letters(window[0], 0x00ff_ffff_ffff_ffff);
    let second = letters(window[1], 0x0000_ffff_ffff_ffff) & 0x00ff_ffff_ffff_ffff;
    if first == u64::from_le_bytes(*b"content-") && second == u64::from_le_bytes(*b"length:\0") {
        return if is_whole && length(direction) { LENGTH } else { INVALID };
    }
    let first = letters(window[0], u64::MAX);
    let second = letters(window[1], 0xffff_ffff_ffff_ff00);
    let third = window[2] & 0xffff | 0x0020;
    if first == u64::from_le_bytes(*b"transfer")
        && second == u64::from_le_bytes(*b"-encodin")
        && third == u64::from_le_bytes(*b"g:\0\0\0\0\0\0")
    {
        return if !is_whole {
            INVALID
        } else if ends_chunked(direction) {
            CODING_CHUNKED
        } else {
            CODING
        };
    }
    OTHER
}

/// Whether a line has nothing before its line feed.
#[inline(always)]
pub fn is_empty(direction: &Direction) -> bool {
    direction.end == 0 || (direction.end == 1 && byte(&direction.window, 0) == b'\r')
}

/// Reads the number behind `Content-Length:`.
#[inline(always)]
fn length(direction: &mut Direction) -> bool {
    const BEFORE: u32 = 0;
    const INSIDE: u32 = 1;
    const BEHIND: u32 = 2;
    direction.value = 0;
    let mut part = through(&mut direction.part, BEFORE);
    let mut at = LENGTH_BYTES;
    while at < WINDOW {
        if at as u32 >= direction.end {
            break;
        }
        let byte = byte(&direction.window, at);
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            let value = direction.value.wrapping_mul(10).wrapping_add(u64::from(digit));
            if part == BEHIND || through_long(&mut direction.value, value) >= LONGEST {
                return false;
            }
            part = INSIDE;
        } else if byte == b' ' || byte == b'\t' || byte == b'\r' {
            if part == INSIDE {
                part = BEHIND;
            }
        } else {
            return false;
        }
        part = through(&mut direction.part, part);
        at += 1;
    }
    part != BEFORE
}

/// Whether a line ends with `chunked`.
#[inline(always)]
fn ends_chunked(direction: &mut Direction) -> bool {
    const CHUNKED: u64 = u64::from_le_bytes(*b"\0chunked");
    let end = direction.end as usize;
    let window = &direction.window;
    let end = if byte(window, end.wrapping_sub(1)) == b'\r' { end.wrapping_sub(1) } else { end };
    let from = end.wrapping_sub(8);
    let mut word = 0u64;
    let mut at = 0;
    while at < 8 {
        word |= u64::from(byte(window, from.wrapping_add(at))) << (at * 8);
        at += 1;
    }
    let before = word as u8;
    (word & !0xff) | 0x2020_2020_2020_2000 == CHUNKED
        && (before == b' ' || before == b',' || before == b':' || before == b'\t')
}

/// Reads the size of a chunk from its line, of which all before [`Direction::end`] is known.
#[inline(always)]
pub fn chunk(direction: &mut Direction) -> bool {
    const DIGITS: usize = 16;
    direction.value = 0;
    let mut at = 0;
    while at < DIGITS {
        if at as u32 >= direction.end {
            return at > 0;
        }
        let byte = byte(&direction.window, at);
        let digit = byte.wrapping_sub(b'0');
        let letter = (byte | 0x20).wrapping_sub(b'a');
        let value = if digit < 10 {
            digit
        } else if letter < 6 {
            letter + 10
        } else {
            return at > 0 && (byte == b';' || byte == b' ' || byte == b'\t' || byte == b'\r');
        };
        let value = u64::from(through(&mut direction.part, value.into()));
        let size = direction.value << 4 | value;
        if through_long(&mut direction.value, size) >= LONGEST {
            return false;
        }
        at += 1;
    }
    false
}
