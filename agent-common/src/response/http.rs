//! HTTP/1: the status line (RFC 9112, section 4). HTTP/2: its first frame (RFC 9113, section 3.4).

use super::{HTTP_1XX, Head, big_endian, byte, is_digit};

/// What [`status`] returns for 101: from here on the connection speaks another protocol.
pub const SWITCHING: u32 = u32::MAX - 1;

/// `HTTP/1.`, the first seven bytes of a status line.
const VERSION: u64 = u64::from_le_bytes(*b"HTTP/1.\0");
const VERSION_MASK: u64 = (1 << 56) - 1;

/// The status of a response, by class.
#[inline(always)]
pub const fn status(head: &Head, length: u32) -> Option<u32> {
    // `HTTP/1.1 200`
    if length < 12 || head[0] & VERSION_MASK != VERSION || byte(head, 8) != b' ' {
        return None;
    }
    let class = byte(head, 9).wrapping_sub(b'1');
    if class > 4 || !is_digit(byte(head, 10)) || !is_digit(byte(head, 11)) {
        return None;
    }
    if class == 0 && byte(head, 10) == b'0' && byte(head, 11) == b'1' {
        return Some(SWITCHING);
    }
    Some(HTTP_1XX + class as u32)
}

/// Whether a head is the SETTINGS frame with which either side of HTTP/2 begins: a length of some
/// settings of six bytes, type 4, no flags, stream 0.
#[inline(always)]
pub const fn is_settings(head: &Head, length: u32) -> bool {
    let frame = big_endian(head, 0) >> 8;
    length >= 9
        && frame <= 96
        && frame.is_multiple_of(6)
        && byte(head, 3) == 4
        && big_endian(head, 4) == 0
        && byte(head, 8) == 0
}
