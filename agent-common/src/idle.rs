//! How long connections are idle: between two requests, and before somebody closes them. What a
//! server closes after, and a client uses again after, show a keep-alive mismatch before the first
//! reset.
//!
//! A word for each socket, [`crate::socket::SocketState::idle`]: in the low half when something last
//! arrived or was sent, in the high half the pause that ended then, as long as it is not known what
//! ended it. A request ends it, once it has its response; or a last message, if the connection closes
//! right behind it: TLS `close_notify`, PostgreSQL's Terminate, `QUIT`. Times are 32 bits of 1024 µs
//! each, which wrap after fifty days. 0 is not known: the connection was there before the agent.
//!
//! Pauses below half a second count nothing: they are not what timeouts are about, and what a busy
//! connection does must cost nothing. Nor is there a branch in what every request does: the verifier
//! would walk all that follows once for each.

/// The shortest pause that counts, in units of 1024 µs: half a second.
pub const SHORTEST: u32 = 488;
/// What comes at most this long before the end belongs to it, in the same units: 50 ms.
const LAST_MESSAGE: u32 = 48;

/// The time in units of 1024 µs.
#[inline(always)]
const fn units(us: u64) -> u32 {
    (us >> 10) as u32
}

/// Units as milliseconds, which the histograms of idle times count: the grid then reaches from a
/// millisecond to a day.
#[inline(always)]
pub const fn ms(units: u32) -> u64 {
    units as u64 * 1024 / 1000
}

/// From one time to another, 0 if it is the earlier one.
#[inline(always)]
const fn between(from: u32, to: u32) -> u32 {
    let pause = to.wrapping_sub(from);
    pause & !((pause as i32 >> 31) as u32)
}

/// The word: the connection was established, or a response was given, now.
#[inline(always)]
pub const fn since(now_us: u64) -> u64 {
    // 0 stands for "not known".
    (units(now_us) | 1) as u64
}

/// How long the connection was idle until now; 0 if not for long, or not known.
#[inline(always)]
const fn pause(word: u64, now: u32) -> u32 {
    let pause = between(word as u32, now);
    // Each is 1 or 0.
    let is_long = (SHORTEST as u64 - 1).wrapping_sub(pause as u64) >> 63;
    let is_known = (word | word.wrapping_neg()) >> 63;
    pause * (is_long & is_known) as u32
}

/// The word after a request began, on the server's side.
#[inline(always)]
pub const fn requested(word: u64, now_us: u64) -> u64 {
    since(now_us) | (pause(word, units(now_us)) as u64) << 32
}

/// The word after more of a request.
#[inline(always)]
pub const fn went_on(word: u64, now_us: u64) -> u64 {
    since(now_us) | word >> 32 << 32
}

/// The word after something that is neither a request nor the begin of a response: more of that, or
/// a last message.
#[inline(always)]
pub const fn moved(word: u64, now_us: u64) -> u64 {
    let pause = pause(word, units(now_us));
    // All ones if there is none.
    let kept = (pause as u64).wrapping_sub(1) >> 63 << 63;
    let kept = (kept as i64 >> 63) as u64;
    since(now_us) | (pause as u64) << 32 | (word >> 32 << 32) & kept
}

/// How long a connection was idle before the request that now has a response, on the server's side;
/// 0 if not for long.
#[inline(always)]
pub const fn before_request(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The same on the client's side, where nothing has moved the word since the request was sent.
#[inline(always)]
pub const fn before_sending(word: u64, sent_us: u64) -> u32 {
    pause(word, units(sent_us))
}

/// Whether a pause is known that nobody has counted.
#[inline(always)]
pub const fn has_paused(word: u64) -> bool {
    word >> 32 != 0
}

/// How long a connection was idle that begins to close; 0 if not for long.
#[inline(always)]
pub const fn at_close(word: u64, now_us: u64) -> u32 {
    let now = units(now_us);
    if between(word as u32, now) <= LAST_MESSAGE { (word >> 32) as u32 } else { pause(word, now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn seconds(units: u32) -> u64 {
        (ms(units) + 500) / 1000
    }

    #[test]
    fn a_request_after_a_pause_and_its_response() {
        let word = since(10 * SECOND);
        let word = requested(word, 25 * SECOND);
        let word = went_on(word, 27 * SECOND); // more of the same request
        assert_eq!(seconds(before_request(word)), 15);
        let word = since(25 * SECOND + 9_000);
        assert_eq!(before_request(word), 0);
        assert_eq!(before_request(requested(word, 25 * SECOND + 100_000)), 0, "a busy connection");
        let word = requested(moved(word, 28 * SECOND), 28 * SECOND + 100_000);
        assert_eq!(before_request(word), 0, "a pause within the response");
        let word = since(25 * SECOND + 9_000);
        assert_eq!(seconds(before_sending(word, 40 * SECOND)), 15);
        assert_eq!(before_sending(word, 25 * SECOND), 0, "sent before the response was there");
    }

    #[test]
    fn a_close_after_a_pause_with_or_without_a_last_message() {
        let word = since(10 * SECOND);
        assert_eq!(seconds(at_close(word, 85 * SECOND)), 75);
        assert_eq!(at_close(word, 10 * SECOND + 400_000), 0);
        let word = moved(word, 85 * SECOND);
        assert_eq!(seconds(at_close(word, 85 * SECOND + 20_000)), 75);
        assert_eq!(at_close(word, 85 * SECOND + 200_000), 0, "it was more than a last message");
    }

    #[test]
    fn what_is_not_known_is_not_counted() {
        assert_eq!(at_close(0, 85 * SECOND), 0);
        assert_eq!(before_sending(0, 85 * SECOND), 0);
        assert_eq!(before_request(requested(0, 85 * SECOND)), 0);
    }

    #[test]
    fn times_may_wrap() {
        let wrap = 1u64 << 42;
        assert_eq!(seconds(at_close(since(wrap - 5 * SECOND), wrap + 5 * SECOND)), 10);
        assert_ne!(since(wrap), 0);
        assert_eq!(seconds(at_close(since(wrap), wrap + 5 * SECOND)), 5);
        let earlier = moved(since(wrap + 9 * SECOND), wrap + 2 * SECOND);
        assert_eq!(before_request(earlier), 0, "a clock of another CPU");
    }
}
