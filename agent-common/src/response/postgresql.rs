//! PostgreSQL: a message has a type of one byte and a length that counts itself
//! (PostgreSQL's "Message Formats").

use super::{Head, POSTGRESQL_OK, big_endian, byte, is_upper};

const OK: Option<u32> = Some(POSTGRESQL_OK);
const ERROR: Option<u32> = Some(POSTGRESQL_OK + 1);
/// A message longer than this is none that a response begins with, but for rows.
const MAX_FIRST: u32 = 1 << 16;

/// Whether a head is the answer to the question for TLS or GSSAPI: one byte.
#[inline(always)]
pub const fn is_answer_to_tls(head: &Head, length: u32) -> bool {
    length == 1 && matches!(byte(head, 0), b'S' | b'N' | b'G')
}

/// The head without its first message, if that has no contents and says only that something
/// was done which comes before the result: ParseComplete, BindComplete, CloseComplete.
#[inline(always)]
const fn behind_completion(head: &Head) -> Head {
    if matches!(byte(head, 0), b'1' | b'2' | b'3') && big_endian(head, 1) == 4 {
        [head[0] >> 40 | head[1] << 24, head[1] >> 40 | head[2] << 24, head[2] >> 40]
    } else {
        *head
    }
}

/// What an authentication message asks for.
#[inline(always)]
const fn code(head: &Head) -> u32 {
    ((head[0] >> 40 | head[1] << 24) as u32).swap_bytes()
}

/// Whether a response is an error, on a connection of PostgreSQL.
#[inline(always)]
pub const fn status(head: &Head, length: u32) -> Option<u32> {
    if length == 0 || !is_type(byte(head, 0)) {
        return None;
    }
    let head = &behind_completion(&behind_completion(&behind_completion(head)));
    if byte(head, 0) == b'E' { ERROR } else { OK }
}

/// The types of the messages that a server sends.
#[inline(always)]
const fn is_type(kind: u8) -> bool {
    matches!(
        kind,
        b'1' | b'2'
            | b'3'
            | b'A'
            | b'C'
            | b'D'
            | b'E'
            | b'G'
            | b'H'
            | b'I'
            | b'K'
            | b'N'
            | b'R'
            | b'S'
            | b'T'
            | b'V'
            | b'W'
            | b'Z'
            | b'c'
            | b'd'
            | b'n'
            | b's'
            | b't'
            | b'v'
    )
}

/// The same of the first response that is looked at, if it is one of PostgreSQL.
#[inline(always)]
pub const fn first(head: &Head, length: u32) -> Option<u32> {
    let (kind, size) = (byte(head, 0), big_endian(head, 1));
    if length < 6 || size < 4 || size > MAX_FIRST {
        return None;
    }
    match kind {
        // How to authenticate, a small number.
        b'R' if size >= 8 && code(head) <= 12 => OK,
        // Severity first: `SFATAL`, `SERROR`.
        b'E' if byte(head, 5) == b'S' && is_upper(byte(head, 6)) && is_upper(byte(head, 7)) => {
            ERROR
        }
        // What follows a completion is a message, too.
        b'1' | b'2' | b'3' if size == 4 && is_type(byte(head, 5)) && byte(head, 6) == 0 => {
            status(head, length)
        }
        // The command that was done: `SELECT 1`, `BEGIN`.
        b'C' if size < 64 && is_upper(byte(head, 5)) && is_upper(byte(head, 6)) => OK,
        // Columns: how many, and the first name.
        b'T' if size > 6 && byte(head, 5) <= 6 && byte(head, 7) >= b' ' => OK,
        _ => None,
    }
}
