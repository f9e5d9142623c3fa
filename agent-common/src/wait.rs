//! Requests that wait on purpose: long polling.
//!
//! A client that asks for the next event (`BRPOP`, `XREAD BLOCK`, a blocking query) gets its response
//! when there is one, or after a timeout, and asks again at once: its connection does nothing but wait.
//! To TCP that is the same as a slow server and a client that is always busy; what tells the two apart
//! is whether the server answers others meanwhile, and that is judged where all connections of a
//! service are known (`health` in the crate `model`). Here is counted what one connection shows: long
//! exchanges one right after the other.
//!
//! The first of them is counted with the second. One that stands alone, as each does where every poll
//! makes a connection of its own, is not counted.

/// An exchange of at least this duration is long (µs).
pub const LONG_US: u64 = 500_000;

/// Whether a client asks again at once: within this part of the wait that follows, one over it.
const PART: u64 = 8;

/// An exchange ended at `now_us`, after `elapsed_us`. `chain` is what the last call for this connection
/// returned, or 0. Returns the new value, and how many waits that makes.
///
/// The chain is 0 after a short exchange, else when the long one ended, and in the lowest bit whether
/// that is counted.
#[inline(always)]
pub const fn ended(chain: u64, now_us: u64, elapsed_us: u64) -> (u64, u64) {
    if elapsed_us < LONG_US {
        return (0, 0);
    }
    let now = now_us << 1;
    if chain == 0 {
        return (now, 0);
    }
    let pause_us = now_us.saturating_sub(elapsed_us).saturating_sub(chain >> 1);
    if pause_us.saturating_mul(PART) > elapsed_us {
        return (now, 0);
    }
    (now | 1, 1 + (!chain & 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    /// Waits of exchanges that begin so long after the one before, and take so long.
    fn waits(exchanges: &[(u64, u64)]) -> u64 {
        let (mut now, mut chain, mut sum) = (77 * S, 0, 0);
        for (pause, elapsed) in exchanges {
            now += pause + elapsed;
            let (next, more) = ended(chain, now, *elapsed);
            chain = next;
            sum += more;
        }
        sum
    }

    #[test]
    fn polls_one_after_the_other_all_count_and_one_alone_does_not() {
        assert_eq!(waits(&[(0, 5 * S)]), 0);
        assert_eq!(waits(&[(0, 5 * S), (100, 5 * S)]), 2);
        assert_eq!(waits(&[(0, 5 * S), (100, S), (100, 30 * S)]), 3);
        // An event that was there already.
        assert_eq!(waits(&[(0, 5 * S), (100, 300), (100, 5 * S)]), 0);
        assert_eq!(waits(&[(0, S), (9, S), (9, 300), (9, S), (9, S)]), 4);
    }

    #[test]
    fn who_does_something_else_in_between_was_not_waiting() {
        assert_eq!(waits(&[(0, S), (S / 7, S), (S / 7, S)]), 0);
        assert_eq!(waits(&[(0, S), (S / 8, S)]), 2);
        assert_eq!(waits(&[(0, 9 * S), (S, 9 * S), (60 * S, 9 * S)]), 2);
    }

    #[test]
    fn short_exchanges_never_wait() {
        assert_eq!(waits(&[(0, LONG_US - 1); 9]), 0);
        assert_eq!(waits(&[(0, LONG_US); 9]), 9);
    }
}
