//! Requests without an answer: whose turn it was when a connection began to end.
//!
//! An exchange is open while one side has sent and the other has not responded. If the connection
//! ends then, the request was not answered, unless none was expected: programs also send a last
//! message and close (`QUIT`, Terminate of PostgreSQL, a TLS alert, GOAWAY), or send and never
//! read. What such a program does not do is wait. So the judgement is about time:
//!
//! * the *client* ends the connection after it has waited [`PATIENCE_US`]: unanswered, it gave up. A
//!   last message that it sends right before it closes takes nothing away from the wait;
//! * the client ends it earlier: nothing was expected;
//! * the *server* closes it after that time, or before it ever answered: unanswered. A server may
//!   also close because of the last message, before the client gets around to it;
//! * a reset of the server, its host or the network ends it: unanswered;
//! * the client goes on sending although nothing comes back: it only sends.
//!
//! It is made once, where the connection begins to end (the first FIN, or a reset), and counted
//! where it is closed, for a request may be answered after its client has closed its half; of a
//! server that does not close its side, [`STUCK_US`] later.

/// A client that closes this soon after its last message did not wait for a response (µs). Between
/// the two are some system calls, and on a busy machine some time slices of other programs; most
/// timeouts of programs are longer.
pub const PATIENCE_US: u64 = 50_000;
/// A server notices that a client goes on sending after this much silence (µs): longer than the
/// round trips between the parts of one large request.
pub const PAUSE_US: u64 = 100_000;
/// A client that was never answered and still sends this long after the handshake only sends (µs).
pub const ONLY_SENDS_US: u64 = 1_000_000;
/// Up to this many bytes that are not acknowledged when the client closes are a last message; more
/// is data that it is still sending.
pub const LAST_MESSAGE_BYTES: u32 = 256;
/// After this many pauses in an exchange the client only sends. After one there may be a last message.
pub const ONLY_SENDS_PAUSES: u8 = 2;

/// A server that still has not answered this long after the client gave up is not waited for (µs): it
/// may keep its side of the connection for ever.
pub const STUCK_US: u64 = 5_000_000;

/// The connection has not begun to end.
pub const UNDECIDED: u16 = 0;
/// It began to end while a response was due: unanswered unless one comes yet.
pub const DUE: u16 = 1;
/// It began to end while none was due, or what was due is counted.
pub const NOTHING_DUE: u16 = 2;

/// How a connection begins to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a FIN or a reset of the client.
    Client,
    /// By the server's FIN.
    Server,
    /// By the server's reset, or because a kernel gave up.
    Reset,
}

/// What a client's socket says about the time of its request.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Bytes of the open exchange that the server has acknowledged; not positive if none.
    pub acknowledged: i32,
    /// Bytes that are not acknowledged, sent or not.
    pub in_flight: u32,
    /// When the youngest acknowledged segment was sent (µs); 0 if not known.
    pub delivered_us: u64,
    /// When the most recently acknowledged segment was sent, or the first one in flight if there
    /// was none in flight before (µs); 0 if not known.
    pub first_us: u64,
}

// === impl End ===

impl End {
    /// Whether a response was due only if the client had waited for it. `is_silent`: the server
    /// never sent anything on this connection.
    #[inline(always)]
    const fn needs_wait(self, is_silent: bool) -> bool {
        match self {
            Self::Client => true,
            // A last message is never the first.
            Self::Server => !is_silent,
            Self::Reset => false,
        }
    }
}

// === impl Sent ===

impl Sent {
    /// When the request was sent, a last message left out; `now_us` while data is being sent.
    #[inline(always)]
    const fn at_us(self, now_us: u64) -> u64 {
        let Self { acknowledged, in_flight, delivered_us, first_us } = self;
        if acknowledged > 0 && in_flight > LAST_MESSAGE_BYTES {
            return now_us;
        }
        let sent_us = if acknowledged > 0 && delivered_us != 0 { delivered_us } else { first_us };
        if sent_us == 0 { now_us } else { sent_us }
    }
}

/// The judgement at a client, of which an exchange is open. `heard_us`: when data last arrived, or the
/// connection was established; `is_silent`: nothing ever arrived.
#[inline(always)]
pub const fn client(now_us: u64, sent: Sent, heard_us: u64, is_silent: bool, end: End) -> u16 {
    let sent_us = sent.at_us(now_us);
    if is_silent && sent_us.saturating_sub(heard_us) >= ONLY_SENDS_US {
        return NOTHING_DUE;
    }
    let waited = now_us.saturating_sub(sent_us) >= PATIENCE_US;
    if end.needs_wait(is_silent) && !waited { NOTHING_DUE } else { DUE }
}

/// The judgement at a server, of which an exchange is open. `heard_us`: when data last arrived;
/// `is_silent`: it never sent anything; `pauses`: of the exchange, see [`paused`].
#[inline(always)]
pub const fn server(now_us: u64, heard_us: u64, is_silent: bool, pauses: u8, end: End) -> u16 {
    if pauses >= ONLY_SENDS_PAUSES {
        return NOTHING_DUE;
    }
    let waited = pauses > 0 || now_us.saturating_sub(heard_us) >= PATIENCE_US;
    if end.needs_wait(is_silent) && !waited { NOTHING_DUE } else { DUE }
}

/// Notes a pause in the exchange that began at `began_us`: more of it arrived after silence. The word
/// says by its high 30 bits which exchange it is about, so a new one need not clear it.
#[inline(always)]
pub const fn paused(pauses: u32, began_us: u64) -> u32 {
    let so_far = self::pauses(pauses, began_us);
    let more = if so_far < ONLY_SENDS_PAUSES { so_far + 1 } else { so_far };
    (began_us as u32) << 2 | more as u32
}

/// How many pauses the exchange had that began at `began_us`.
#[inline(always)]
pub const fn pauses(pauses: u32, began_us: u64) -> u8 {
    if pauses >> 2 == (began_us as u32) << 2 >> 2 { (pauses & 3) as u8 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;
    /// The client sent its request at 1 s, on a connection that was established shortly before.
    const BEGAN: u64 = 1_000_000;

    /// A request that was acknowledged.
    const ACKNOWLEDGED: Sent =
        Sent { acknowledged: 100, in_flight: 0, delivered_us: BEGAN, first_us: BEGAN };
    /// A last message that was just written behind it.
    const WITH_LAST_MESSAGE: Sent =
        Sent { in_flight: 31, first_us: BEGAN + 500 * MS, ..ACKNOWLEDGED };
    /// A request that nobody acknowledged.
    const LOST: Sent = Sent { acknowledged: 0, in_flight: 100, delivered_us: 3, first_us: BEGAN };

    const ENDS: [End; 3] = [End::Client, End::Server, End::Reset];

    fn at_client(after: u64, sent: Sent, end: End) -> u16 {
        client(BEGAN + after, sent, BEGAN - MS, true, end)
    }

    #[test]
    fn a_client_that_waits_and_closes_gave_up() {
        for sent in [ACKNOWLEDGED, WITH_LAST_MESSAGE, LOST] {
            assert_eq!(at_client(500 * MS, sent, End::Client), DUE, "{sent:?}");
        }
    }

    #[test]
    fn a_client_that_closes_at_once_expected_nothing() {
        for sent in [
            ACKNOWLEDGED,
            LOST,
            // The stack does not know (no SACK, an old kernel).
            Sent { delivered_us: 0, first_us: 0, ..ACKNOWLEDGED },
        ] {
            assert_eq!(at_client(49 * MS, sent, End::Client), NOTHING_DUE, "{sent:?}");
        }
        // It still sends: what is in flight is not a last message.
        let sending = Sent { in_flight: 4000, ..ACKNOWLEDGED };
        assert_eq!(at_client(500 * MS, sending, End::Client), NOTHING_DUE);
    }

    #[test]
    fn a_server_that_closes_at_once_after_earlier_answers_was_told_goodbye() {
        let check = |after, is_silent, end, expected| {
            let at_client = client(BEGAN + after, ACKNOWLEDGED, BEGAN - MS, is_silent, end);
            let at_server = server(BEGAN + after, BEGAN, is_silent, 0, end);
            assert_eq!((at_client, at_server), (expected, expected), "{after} {is_silent} {end:?}");
        };
        check(0, false, End::Server, NOTHING_DUE);
        check(0, true, End::Server, DUE);
        for is_silent in [true, false] {
            check(500 * MS, is_silent, End::Server, DUE);
            check(0, is_silent, End::Reset, DUE);
        }
    }

    #[test]
    fn a_client_that_goes_on_without_an_answer_only_sends() {
        let later = BEGAN + 60_000 * MS;
        let line = Sent { delivered_us: later, first_us: later, ..ACKNOWLEDGED };
        for end in ENDS {
            assert_eq!(client(later + 500 * MS, line, BEGAN, true, end), NOTHING_DUE);
            // It was answered before: a pooled connection.
            assert_eq!(client(later + 500 * MS, line, BEGAN, false, end), DUE);
            assert_eq!(server(later, BEGAN, true, 2, end), NOTHING_DUE);
        }
    }

    #[test]
    fn a_server_sees_a_wait_before_the_end_and_before_a_last_message() {
        assert_eq!(server(BEGAN + 500 * MS, BEGAN, true, 0, End::Client), DUE);
        assert_eq!(server(BEGAN + 49 * MS, BEGAN, true, 0, End::Client), NOTHING_DUE);
        assert_eq!(server(BEGAN + 49 * MS, BEGAN, true, 1, End::Client), DUE);
    }

    #[test]
    fn pauses_are_those_of_one_exchange() {
        let (first, second) = (BEGAN, BEGAN + 1);
        let once = paused(0, first);
        assert_eq!((pauses(0, first), pauses(once, first)), (0, 1));
        assert_eq!(pauses(once, second), 0);
        let thrice = paused(paused(once, first), first);
        assert_eq!(pauses(thrice, first), ONLY_SENDS_PAUSES);
        assert_eq!(pauses(paused(thrice, second), second), 1);
        // The times have 36 bits.
        let late = (1 << 36) - 1;
        assert_eq!(pauses(paused(0, late), late), 1);
    }
}
