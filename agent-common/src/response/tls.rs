//! TLS: the header of a record (RFC 8446, section 5.1).

use super::{Head, byte};

/// The longest record: 2^14 bytes and 2048 of encryption (RFC 5246, section 6.2.3).
const MAX_RECORD: u32 = (1 << 14) + 2048;

/// Whether a head is that of a record.
#[inline(always)]
pub const fn is_record(head: &Head, length: u32) -> bool {
    // Change of cipher, alert, handshake, data.
    let kind = byte(head, 0).wrapping_sub(20);
    let size = (byte(head, 3) as u32) << 8 | byte(head, 4) as u32;
    length >= 5
        && kind < 4
        && byte(head, 1) == 3
        && byte(head, 2) <= 4
        && size != 0
        && size <= MAX_RECORD
}
