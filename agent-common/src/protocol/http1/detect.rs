//! What the first line of a message says, and whether it is one (RFC 9112, sections 3 and 4).

use super::{Direction, Window, byte, through};

/// Methods, label values: those of RFC 9110 and RFC 5789, and all others.
pub const METHOD_NAMES: [&str; METHODS] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "_OTHER"];
/// How many there are.
pub const METHODS: usize = 10;

/// A response to it has no body.
pub const HEAD: u32 = 1;
/// With a 2xx the connection becomes a tunnel.
pub const CONNECT: u32 = 7;
const OTHER: u32 = 9;

/// Longer than any registered method.
const LONGEST: usize = 24;

/// What every status line begins with...
pub const VERSION: u64 = word(*b"HTTP/1.\0");
/// ...in so many bytes.
pub const VERSION_BYTES: u32 = 7;

/// No method, or no status.
pub const NONE: u32 = u32::MAX;

const fn word(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes)
}

/// The method of a request line; [`NONE`] if a line that begins like this is none of HTTP/1.
#[inline(always)]
pub fn method(direction: &mut Direction) -> u32 {
    let first = direction.window[0];
    let (four, five) = (first & 0xffff_ffff, first & 0xff_ffff_ffff);
    let (six, seven) = (first & 0xffff_ffff_ffff, first & 0xff_ffff_ffff_ffff);
    let (method, length) = if four == word(*b"GET \0\0\0\0") {
        (0, 4)
    } else if five == word(*b"POST \0\0\0") {
        (2, 5)
    } else if five == word(*b"HEAD \0\0\0") {
        (HEAD, 5)
    } else if four == word(*b"PUT \0\0\0\0") {
        (3, 4)
    } else if seven == word(*b"DELETE \0") {
        (4, 7)
    } else if six == word(*b"PATCH \0\0") {
        (5, 6)
    } else if first == word(*b"OPTIONS ") {
        (6, 8)
    } else if first == word(*b"CONNECT ") {
        (CONNECT, 8)
    } else if six == word(*b"TRACE \0\0") {
        (8, 6)
    } else {
        // HTTP/2 begins as if it were a request.
        if four == word(*b"PRI \0\0\0\0") {
            return NONE;
        }
        (OTHER, other(&direction.window))
    };
    let method = through(&mut direction.said, method);
    let length = through(&mut direction.part, length) as usize;
    if length != 0 && is_visible(byte(&direction.window, length)) { method } else { NONE }
}

/// How long another method is, with its space; 0 if it is none.
#[inline(always)]
fn other(window: &Window) -> u32 {
    let mut at = 0;
    while at < LONGEST {
        let byte = byte(window, at);
        if byte == b' ' {
            return if at == 0 { 0 } else { at as u32 + 1 };
        }
        if byte.wrapping_sub(b'A') >= 26 && byte != b'-' && byte != b'_' {
            return 0;
        }
        at += 1;
    }
    0
}

/// The status code of a status line, three digits; [`NONE`] if the line is none.
#[inline(always)]
pub fn status(window: &Window) -> u32 {
    let version = window[0] & 0xff_ffff_ffff_ffff;
    if version != VERSION || !is_digit(byte(window, 7)) || byte(window, 8) != b' ' {
        return NONE;
    }
    let (class, tens, ones) = (byte(window, 9), byte(window, 10), byte(window, 11));
    if class.wrapping_sub(b'1') >= 5 || !is_digit(tens) || !is_digit(ones) {
        return NONE;
    }
    let after = byte(window, 12);
    if after != b' ' && after != b'\r' && after != b'\n' {
        return NONE;
    }
    let digit = |byte: u8| u32::from(byte & 0xf);
    digit(class) * 100 + digit(tens) * 10 + digit(ones)
}

#[inline(always)]
const fn is_digit(byte: u8) -> bool {
    byte.wrapping_sub(b'0') < 10
}

#[inline(always)]
const fn is_visible(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}
