//! Redis: a type of one byte, and a line (Redis' "serialization protocol specification", versions 2
//! and 3).

use super::{Head, REDIS_OK, byte, is_digit, is_upper};

const OK: Option<u32> = Some(REDIS_OK);
const ERROR: Option<u32> = Some(REDIS_OK + 1);
/// Numbers of more digits are not recognised.
const MAX_DIGITS: u32 = 13;
const MAX_LETTERS: u32 = 8;
/// The end of a line.
const END: u64 = u16::from_le_bytes(*b"\r\n") as u64;

/// Whether a response is an error, on a connection of Redis.
#[inline(always)]
pub const fn status(head: &Head, length: u32) -> Option<u32> {
    if length < 3 {
        return None;
    }
    match byte(head, 0) {
        b'-' | b'!' => ERROR,
        b'+' | b':' | b'$' | b'*' | b'%' | b'~' | b'_' | b'#' | b',' | b'(' | b'=' | b'>'
        | b'|' => OK,
        _ => None,
    }
}

/// The same of the first response that is looked at, if it is one of Redis.
#[inline(always)]
pub const fn first(head: &Head, length: u32) -> Option<u32> {
    if length < 4 {
        return None;
    }
    match byte(head, 0) {
        b':' | b'$' | b'*' | b'%' | b'~' if is_number(head) => OK,
        // `+OK`, `+PONG`, `+QUEUED`
        b'+' if is_upper(byte(head, 1)) && is_upper(byte(head, 2)) && is_line(head) => OK,
        // `-ERR unknown command`, `-NOAUTH Authentication required.`
        b'-' if is_upper(byte(head, 1)) && is_upper(byte(head, 2)) && is_upper(byte(head, 3)) => {
            ERROR
        }
        _ => None,
    }
}

/// Whether a number and the end of the line follow.
#[inline(always)]
const fn is_number(head: &Head) -> bool {
    let (mut low, mut high) = behind_type(head);
    if low as u8 == b'-' {
        (low, high) = next(low, high);
    }
    if !is_digit(low as u8) {
        return false;
    }
    let mut digits = 0;
    while digits < MAX_DIGITS && is_digit(low as u8) {
        (low, high) = next(low, high);
        digits += 1;
    }
    low & 0xffff == END
}

/// Whether a word of capitals and the end of the line follow.
#[inline(always)]
const fn is_line(head: &Head) -> bool {
    let (mut low, mut high) = behind_type(head);
    let mut letters = 0;
    while letters < MAX_LETTERS && is_upper(low as u8) {
        (low, high) = next(low, high);
        letters += 1;
    }
    low & 0xffff == END
}

/// The head without its first byte, in two words.
#[inline(always)]
const fn behind_type(head: &Head) -> (u64, u64) {
    (head[0] >> 8 | head[1] << 56, head[1] >> 8 | head[2] << 56)
}

#[inline(always)]
const fn next(low: u64, high: u64) -> (u64, u64) {
    (low >> 8 | high << 56, high >> 8)
}
