//! MySQL and MariaDB: a packet has a length of three bytes, the least first, a number, and then what
//! it says (MySQL's "Protocol Basics", "Generic Response Packets").

use super::{Head, MYSQL_OK, byte, is_digit};

const ERROR: u8 = 0xff;
/// The version of the protocol since MySQL 3.21.
const PROTOCOL_VERSION: u8 = 10;
/// A greeting is shorter.
const MAX_GREETING: u32 = 512;

#[inline(always)]
const fn packet(head: &Head) -> u32 {
    (head[0] & 0x00ff_ffff) as u32
}

/// Whether a server greets with its version: `5.5.5-10.11.3-MariaDB`, `8.0.36`.
#[inline(always)]
pub const fn is_greeting(head: &Head, length: u32) -> bool {
    length >= HEAD_OF_GREETING
        && packet(head) <= MAX_GREETING
        && byte(head, 3) == 0
        && byte(head, 4) == PROTOCOL_VERSION
        && is_digit(byte(head, 5))
        && (byte(head, 6) == b'.' || (is_digit(byte(head, 6)) && byte(head, 7) == b'.'))
}

/// Length, number, version of the protocol, and the beginning of the server's.
const HEAD_OF_GREETING: u32 = 8;

/// Whether a response is an error; what else it can be is a success, or the number of columns of one.
#[inline(always)]
pub const fn status(head: &Head, length: u32) -> Option<u32> {
    // A response is the second packet of a command, or a later one of the handshake.
    if length < 5 || packet(head) == 0 || byte(head, 3) == 0 {
        return None;
    }
    Some(if byte(head, 4) == ERROR { MYSQL_OK + 1 } else { MYSQL_OK })
}
