//! Exchanges of a server connection, packed into one word that is changed atomically.
//!
//! On the server a request lasts from the first byte received to the first byte sent after it.
//! Two hooks see that: data-ready (softirq) and send (process context, after the send returned,
//! without the socket lock). On loopback the client can answer so fast that the next request
//! arrives before the send hook ran for the previous response. The word therefore carries what
//! is needed to decide: when the open request began, and how much had been written by then. Either
//! hook may close an exchange; the one that swaps the word counts it, so no exchange counts twice or never.
//!
//! Layout: the low 36 bits are microseconds (wraps after 19 h), the high 28 bits are
//! `tcp_sock.write_seq`. Time 0 means no request is open.

const TIME_BITS: u32 = 36;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// The word: no request open, `write_seq` bytes written so far.
#[inline(always)]
pub const fn idle(write_seq: u32) -> u64 {
    (write_seq as u64) << TIME_BITS
}

/// The word: a request open since `now_us`.
#[inline(always)]
const fn open(write_seq: u32, now_us: u64) -> u64 {
    let time = now_us & TIME_MASK;
    // 0 stands for "none": one microsecond early, once in 19 hours.
    ((write_seq as u64) << TIME_BITS) | if time == 0 { 1 } else { time }
}

/// Whether `exchange` was last changed when as much was written as now.
#[inline(always)]
const fn nothing_written_since(exchange: u64, write_seq: u32) -> bool {
    exchange >> TIME_BITS == idle(write_seq) >> TIME_BITS
}

/// Whether a request is open, and nothing has been written since.
#[inline(always)]
pub const fn is_open(exchange: u64, write_seq: u32) -> bool {
    began_us(exchange) != 0 && nothing_written_since(exchange, write_seq)
}

/// When the open request began (µs, 36 bits), or 0.
#[inline(always)]
pub const fn began_us(exchange: u64) -> u64 {
    exchange & TIME_MASK
}

/// Microseconds from `began` (36 bits, from [`began_us`]) to `now_us`.
#[inline(always)]
pub const fn elapsed_us(began: u64, now_us: u64) -> u64 {
    let elapsed = now_us.wrapping_sub(began) & TIME_MASK;
    // A clock that reads slightly earlier on another path is zero, not 19 hours.
    if elapsed > TIME_MASK / 2 { 0 } else { elapsed }
}

/// Data arrived. Returns the new word, and whether the old word's request was answered meanwhile
/// by a send whose hook has not run yet (then the caller counts it).
#[inline(always)]
pub const fn received(exchange: u64, write_seq: u32, now_us: u64) -> (u64, bool) {
    if began_us(exchange) == 0 {
        return (open(write_seq, now_us), false);
    }
    if nothing_written_since(exchange, write_seq) {
        return (exchange, false);
    }
    (open(write_seq, now_us), true)
}

/// A send returned. Returns the new word, and whether it answered the open request.
#[inline(always)]
pub const fn sent(exchange: u64, write_seq: u32) -> (u64, bool) {
    if nothing_written_since(exchange, write_seq) {
        return (exchange, false);
    }
    (idle(write_seq), began_us(exchange) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_and_its_response_are_one_exchange() {
        let exchange = idle(100);
        let (exchange, answered) = received(exchange, 100, 5_000);
        assert!(!answered);
        let (exchange, answered) = received(exchange, 100, 5_500); // second segment of the same request
        assert!(!answered);
        assert!(is_open(exchange, 100) && !is_open(exchange, 300));
        assert_eq!(elapsed_us(began_us(exchange), 6_000), 1_000);
        let (exchange, answered) = sent(exchange, 300);
        assert!(answered);
        let (_, answered) = sent(exchange, 500); // second part of the response
        assert!(!answered);
    }

    #[test]
    fn a_server_that_speaks_first_opens_no_exchange() {
        let (exchange, answered) = sent(idle(1), 50);
        assert!(!answered);
        assert_eq!(began_us(exchange), 0);
    }

    #[test]
    fn the_next_request_may_overtake_the_send_hook() {
        let (exchange, _) = received(idle(0), 0, 10);
        // The response was written (200 bytes), its send hook is late, request two arrives.
        let (exchange, answered) = received(exchange, 200, 40);
        assert!(answered);
        // Now the late hook runs: nothing new was written, it must not count.
        let (exchange, answered) = sent(exchange, 200);
        assert!(!answered);
        let (_, answered) = sent(exchange, 400);
        assert!(answered);
    }

    #[test]
    fn time_wraps_without_harm() {
        assert_eq!(elapsed_us(TIME_MASK - 4, (1u64 << 36) + 5), 10);
        assert_eq!(elapsed_us(100, 99), 0);
    }

    proptest! {
        /// In whatever order the hooks run, as many exchanges close as responses were written.
        #[test]
        fn every_response_counts_once(late in prop::collection::vec(any::<bool>(), 1..200)) {
            let (mut exchange, mut written, mut counted) = (idle(7), 7u32, 0);
            let mut pending = false;
            let mut now = 1;
            for late in &late {
                now += 10;
                let (next, answered) = received(exchange, written, now);
                exchange = next;
                counted += usize::from(answered);
                if pending { // the late hook of the response before
                    let (next, answered) = sent(exchange, written);
                    exchange = next;
                    counted += usize::from(answered);
                }
                written = written.wrapping_add(100);
                pending = *late;
                if !late {
                    let (next, answered) = sent(exchange, written);
                    exchange = next;
                    counted += usize::from(answered);
                }
            }
            if pending {
                let (_, answered) = sent(exchange, written);
                counted += usize::from(answered);
            }
            prop_assert_eq!(counted, late.len());
        }
    }
}
