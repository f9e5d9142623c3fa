//! After how long a client gives up on a request, as far as its requests show that.
//!
//! The timeout itself is not visible: the program closes the connection. But a request that was
//! answered was waited for, and one that the server answered after the client had gone was not. Both
//! sides of an edge together bound the client's timeout.

use agent_common::histogram::{BOUNDS_US, BUCKETS, Histogram};

/// Fewer late responses may be chance: a client that is killed leaves one behind.
pub const ENOUGH: u64 = 3;

/// What the requests of an edge show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientTimeout {
    /// It waits at least so long: for one request it did. `None` without a response.
    pub at_least_us: Option<u64>,
    /// It waits at most so long: it did not wait for at least [`ENOUGH`] that the server answered
    /// within this time. `None` if there are fewer.
    pub at_most_us: Option<u64>,
    /// Every response that it received came within this time: 0 without a response; `None` beyond the
    /// longest time that is measured.
    pub answered_within_us: Option<u64>,
    /// Requests that the server answered when the client was gone.
    pub late: u64,
}

impl ClientTimeout {
    /// From the durations of answered requests on the client's side, and on the server's side if the
    /// agent sees that too. There they include those that were answered too late; they are never
    /// longer than on the client's side otherwise. `unanswered`: requests of the client without an
    /// answer.
    pub fn new(client: &Histogram, server: Option<&Histogram>, unanswered: u64) -> Self {
        let longest = (0..BUCKETS).rev().find(|bucket| of(client, *bucket) > 0);
        let at_least_us = longest.map(lower);
        let answered_within_us = longest.map_or(Some(0), upper);
        let one_side = Self { at_least_us, answered_within_us, ..Self::default() };
        let Some(server) = server else { return one_side };
        // What is a little above the bound on one side may be below it on the other.
        let first = longest.map_or(0, |longest| longest + 2);
        let late: u64 = (first..BUCKETS).map(|bucket| of(server, bucket)).sum();
        // The rows are not of the same requests.
        if late > unanswered {
            return one_side;
        }
        let mut sum = 0;
        let reached = (first..BUCKETS).find(|bucket| {
            sum += of(server, *bucket);
            sum >= ENOUGH
        });
        Self { at_most_us: reached.and_then(upper), late, ..one_side }
    }
}

/// How many requests took longer than this, for certain: those in buckets above it.
pub fn longer_than(requests: &Histogram, us: u64) -> u64 {
    (0..BUCKETS).filter(|bucket| lower(*bucket) >= us).map(|bucket| of(requests, bucket)).sum()
}

fn of(requests: &Histogram, bucket: usize) -> u64 {
    requests.buckets.get(bucket).copied().unwrap_or_default()
}

/// The lower bound of a bucket.
fn lower(bucket: usize) -> u64 {
    bucket.checked_sub(1).and_then(upper).unwrap_or_default()
}

/// The upper bound of a bucket; the last has none.
fn upper(bucket: usize) -> Option<u64> {
    BOUNDS_US.get(bucket).map(|bound| u64::from(*bound))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    fn histogram(durations_ms: &[u64]) -> Histogram {
        let mut requests = Histogram::EMPTY;
        for ms in durations_ms {
            requests.observe(ms * MS);
        }
        requests
    }

    #[test]
    fn both_sides_bound_the_timeout_of_a_client() {
        let check = |client: &[u64], server: Option<&[u64]>, unanswered, expected| {
            let server = server.map(histogram);
            let ClientTimeout { at_least_us, at_most_us, late, answered_within_us: _ } =
                ClientTimeout::new(&histogram(client), server.as_ref(), unanswered);
            let ms = |us: Option<u64>| us.map(|us| us / MS);
            let found = (ms(at_least_us), ms(at_most_us), late);
            assert_eq!(found, expected, "{client:?} {server:?} {unanswered}");
        };
        // A client waits for two seconds; three responses took three seconds, one five.
        let all = [10, 1_400, 2_900, 2_950, 2_800, 5_000];
        check(&[10, 1_400], Some(&all), 9, (Some(1_200), Some(3_000), 4));
        // The server's side is not seen, or nothing was late.
        check(&[10, 1_400], None, 9, (Some(1_200), None, 0));
        check(&[10, 1_400], Some(&[9, 1_399]), 9, (Some(1_200), None, 0));
        // Two may be clients that were killed.
        check(&[10], Some(&[10, 900, 950]), 9, (Some(8), None, 2));
        // One was killed early, the timeout is what three reached.
        check(&[10], Some(&[10, 90, 5_500, 5_900, 5_800]), 9, (Some(8), Some(6_000), 4));
        // In the next bucket is what the two sides measured differently.
        check(&[1_000], Some(&[1_001, 1_100, 1_150]), 9, (Some(800), None, 0));
        // Nothing was ever answered in time.
        check(&[], Some(&[500, 500, 500]), 3, (None, Some(500), 3));
        check(&[], None, 3, (None, None, 0));
        // More than the client gave up: the sides are of different requests.
        check(&[10], Some(&[900, 900, 900]), 2, (Some(8), None, 0));
        // Longer than the grid: unbounded.
        let long = [200_000; 3];
        check(&[10], Some(&long), 3, (Some(8), None, 3));
    }

    #[test]
    fn responses_came_within_the_bound_above_the_longest() {
        let check = |client: &[u64], expected_ms: Option<u64>| {
            let found = ClientTimeout::new(&histogram(client), None, 0).answered_within_us;
            assert_eq!(found.map(|us| us / MS), expected_ms, "{client:?}");
        };
        check(&[], Some(0));
        check(&[10, 1_400], Some(1_500));
        check(&[10, 200_000], None);
    }

    #[test]
    fn what_is_longer_than_a_bound_is_in_the_buckets_above_it() {
        let requests = histogram(&[100, 1_000, 1_100, 4_000, 200_000]);
        let check = |ms: u64, expected| assert_eq!(longer_than(&requests, ms * MS), expected);
        check(0, 5);
        check(1_000, 3);
        // Within a bucket nothing is certain.
        check(1_050, 2);
        check(100_000, 1);
        check(150_000, 0);
    }
}
