//! Who is at the other end of a connection that stays in one network namespace.
//!
//! Its clients share one address, so the address names nobody. The client's side is established
//! first; it leaves a note in the row of its port, and the server's side reads it a few
//! microseconds later. A note is one word, written and read at once, so it needs no lock; it is
//! never removed, because every connection writes its own before it is read. Two namespaces may
//! use the same row in the same microseconds: the server then finds a note that is not for it,
//! and knows only an address.
//!
//! Layout: network namespace inode (32 bits), server's port (16), row of the client's owner (16).

/// One row for each port a client can have.
pub const ROWS: usize = 1 << 16;

/// The note of a client; `None` if the row of its owner is too high to be written down.
#[inline(always)]
pub const fn note(netns: u32, server_port: u16, owner: u32) -> Option<u64> {
    if owner > 0xffff {
        return None;
    }
    Some((netns as u64) << 32 | (server_port as u64) << 16 | owner as u64)
}

/// The owner in a note, if it is about a connection to this port in this namespace.
#[inline(always)]
pub const fn owner(note: u64, netns: u32, server_port: u16) -> Option<u32> {
    if note >> 16 != (netns as u64) << 16 | server_port as u64 {
        return None;
    }
    Some((note & 0xffff) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_for_one_server_only() {
        let check = |netns, port, expected| {
            let written = note(4_026_531_840, 8080, 77).unwrap();
            assert_eq!(owner(written, netns, port), expected, "{netns} {port}");
        };
        check(4_026_531_840, 8080, Some(77));
        check(4_026_531_841, 8080, None);
        check(4_026_531_840, 8081, None);
    }

    #[test]
    fn an_empty_row_and_a_high_owner_say_nothing() {
        assert_eq!(owner(0, 4_026_531_840, 8080), None);
        assert_eq!(note(1, 1, 0x1_0000), None);
        assert_eq!(owner(note(1, 1, 0xffff).unwrap(), 1, 1), Some(0xffff));
    }
}
