//! After how long idle connections are closed, and after how long they are still used: whether a
//! keep-alive mismatch will reset requests, before it does.
//!
//! A server that closes a connection after T seconds and a client that sends a request after about T
//! seconds do so at the same moment sooner or later: the request meets a closed connection and is
//! reset. A client that closes its idle connections earlier than the server never does that, and one
//! that uses them again only after far shorter pauses hardly ever.

use agent_common::counters::EdgeCounters;
use agent_common::histogram::{BOUNDS_US, BUCKETS, Histogram};

/// So many connections have to be closed alike before that is taken for a timeout.
pub const ENOUGH: u64 = 3;
/// Of the connections that an end closes, this part at least has to be closed alike.
const ALIKE: f64 = 0.5;
/// A pause of this part of the server's timeout comes near enough to it.
const NEAR: f64 = 0.5;

/// Idle times, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleTimes {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum_ms: u64,
    /// The most frequent one: the mean, as far as it lies in the two buckets beside each other that
    /// have most of them; two, because a timer that is late reaches the next. 0 without any.
    pub typical_ms: u64,
    /// How many these buckets have.
    pub typical_count: u64,
    /// The longest is above this.
    pub longest_ms: u64,
}

/// What idle connections of an edge are in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Neither side closed enough connections alike.
    Unknown,
    /// The client closes them first.
    ClientFirst,
    /// The server closes them first, but the client uses none that was idle for nearly as long.
    ServerFirst,
    /// The server closes them first, and the client uses some that were idle for nearly as long.
    Mismatch,
}

/// The idle times of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Of connections that the server closed.
    pub closed_by_server: IdleTimes,
    /// Of connections that the client closed.
    pub closed_by_client: IdleTimes,
    /// Of connections before their next request.
    pub reuse: IdleTimes,
}

// === impl IdleTimes ===

impl IdleTimes {
    fn new(histogram_ms: &Histogram) -> Self {
        let Histogram { sum_us: sum_ms, buckets } = histogram_ms;
        let count = histogram_ms.count();
        let of = |i: usize| buckets.get(i).copied().unwrap_or_default();
        let pair = |i: usize| of(i).wrapping_add(of(i + 1));
        let fullest = (0..BUCKETS).max_by_key(|i| pair(*i)).unwrap_or_default();
        let longest = (0..BUCKETS).rev().find(|i| of(*i) > 0).unwrap_or_default();
        let mean = sum_ms.checked_div(count).unwrap_or_default();
        Self {
            count,
            sum_ms: *sum_ms,
            typical_ms: mean.max(lower(fullest)).min(lower(fullest + 2)),
            typical_count: pair(fullest),
            longest_ms: lower(longest),
        }
    }

    /// The timeout behind these times, if there is one.
    fn timeout_ms(&self) -> Option<u64> {
        let is_timeout =
            self.typical_count >= ENOUGH && self.typical_count as f64 >= ALIKE * self.count as f64;
        is_timeout.then_some(self.typical_ms)
    }
}

/// The lower bound of a bucket; of those behind the last one its own.
fn lower(bucket: usize) -> u64 {
    let below = bucket.min(BOUNDS_US.len()).checked_sub(1);
    below.and_then(|below| BOUNDS_US.get(below)).map_or(0, |bound| u64::from(*bound))
}

// === impl Timeouts ===

impl Timeouts {
    /// What an edge has counted; `None` if it has no idle times.
    pub fn new(counters: &EdgeCounters) -> Option<Self> {
        let of = |times: &Histogram| IdleTimes::new(times);
        let timeouts = Self {
            closed_by_server: of(&counters.idle_closed_by_server_ms),
            closed_by_client: of(&counters.idle_closed_by_client_ms),
            reuse: of(&counters.idle_reuse_ms),
        };
        let Self { closed_by_server, closed_by_client, reuse } = &timeouts;
        let has_some = [closed_by_server, closed_by_client, reuse].iter().any(|one| one.count > 0);
        has_some.then_some(timeouts)
    }

    /// After how long the server closes idle connections, if that is known.
    pub fn server_ms(&self) -> Option<u64> {
        self.closed_by_server.timeout_ms()
    }

    /// After how long the client closes them, if that is known.
    pub fn client_ms(&self) -> Option<u64> {
        self.closed_by_client.timeout_ms()
    }

    /// What that means.
    pub fn verdict(&self) -> Verdict {
        match self.server_ms() {
            Some(server) if self.reuse.longest_ms as f64 >= NEAR * server as f64 => {
                Verdict::Mismatch
            }
            Some(_) => Verdict::ServerFirst,
            None if self.client_ms().is_some() => Verdict::ClientFirst,
            None => Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts(server: &[u64], client: &[u64], reuse: &[u64]) -> Timeouts {
        let mut counters = EdgeCounters::ZERO;
        for ms in server {
            counters.idle_closed_by_server_ms.observe(*ms);
        }
        for ms in client {
            counters.idle_closed_by_client_ms.observe(*ms);
        }
        for ms in reuse {
            counters.idle_reuse_ms.observe(*ms);
        }
        Timeouts::new(&counters).expect("some")
    }

    #[test]
    fn a_timeout_is_what_most_connections_are_closed_after() {
        let exact = timeouts(&[5_003, 5_004, 5_008], &[], &[]);
        assert_eq!(exact.server_ms(), Some(5_005));
        // The server ended once, with connections that had just been used.
        let ended = timeouts(&[5_003, 5_004, 5_008, 5_009, 700, 2_000], &[], &[]);
        assert_eq!(ended.server_ms(), Some(5_000));
        // A timer that is late by up to a second.
        let late = timeouts(&[59_950, 60_100, 60_900], &[], &[]);
        assert_eq!(late.server_ms().map(|ms| ms / 1000), Some(60));
        assert_eq!(timeouts(&[5_000, 5_000], &[], &[]).server_ms(), None, "too few");
        assert_eq!(timeouts(&[1_000, 3_000, 9_000, 20_000], &[], &[]).server_ms(), None);
    }

    #[test]
    fn a_mismatch_needs_both_a_server_that_closes_first_and_pauses_that_come_near() {
        let check = |timeouts: Timeouts, expected| assert_eq!(timeouts.verdict(), expected);
        let five = [5_003, 5_004, 5_008];
        check(timeouts(&five, &[], &[4_100]), Verdict::Mismatch);
        check(timeouts(&five, &[], &[1_100]), Verdict::ServerFirst);
        check(timeouts(&five, &[], &[]), Verdict::ServerFirst);
        check(timeouts(&[], &[4_001, 4_002, 4_002], &[3_900]), Verdict::ClientFirst);
        check(timeouts(&[5_003], &[], &[4_900]), Verdict::Unknown);
        assert_eq!(Timeouts::new(&EdgeCounters::ZERO), None);
    }
}
