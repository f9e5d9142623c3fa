//! Durations of an edge: which kinds there are, and in which rows of the table of histograms each is
//! counted.
//!
//! A histogram is large (664 bytes) and many edges need none: connects that fail, edges without
//! requests. So a row of the table counts one kind of duration of one edge on one shard, and an edge
//! takes it when it first observes one there. The number of the row lies among the edge's counters
//! ([`HotCounters::histograms`]), so that counting takes two look-ups by index and none by a key:
//!
//! 1. **take** (hook): a number that is 0 is replaced by one from the stack of free rows, by
//!    compare-and-swap. Of two CPUs the second gives its row back and uses that of the first.
//! 2. **none free**, or none for this tenant, who has its [share](crate::share) (hook): the number becomes that of a [`reserved`] row, which counts for the
//!    edge `other` of the role. Sums stay exact. When rows are free again, user space puts 0 in the
//!    place of such numbers, and the next observation tries once more.
//! 3. **free** (user space): with the edge's slot, after forget and wait
//!    ([`crate::slot_table`]). First the numbers are taken out of the counters, so that no hook
//!    finds the rows any more; then the rows are cleared and offered again.
//!
//! A hook that has read a number just before it is taken out would add to a row that another edge
//! may have by then. For that it has to observe a duration of an edge in which nothing has moved for
//! minutes and which has no open connection, of whose key there is no trace in the index since the
//! collection before: sockets that hold the slot's number have ended, and a program that began before
//! is over in microseconds. It is the race of the counters themselves, and the same wait rules it
//! out.

use crate::edge::{FIRST_FREE_SLOT, HotCounters};
use crate::histogram::BUCKETS;
use crate::protocol::http1::NUMBERS;
use crate::protocol::http1::detect::METHODS;

/// A row has room for both.
const _: () = assert!(OPERATION_DURATIONS + METHODS <= BUCKETS);

/// Time from SYN to established.
pub const CONNECT: usize = 0;
/// Round trip time.
pub const RTT: usize = 1;
/// Request latency.
pub const REQUEST: usize = 2;
/// How long a connection was idle before a request; milliseconds, as the next two ([`crate::idle`]).
pub const IDLE_REUSE: usize = 3;
/// How long a connection was idle that the client closed.
pub const IDLE_CLOSED_BY_CLIENT: usize = 4;
/// How long a connection was idle that the server closed.
pub const IDLE_CLOSED_BY_SERVER: usize = 5;
/// How long DNS lookups took that got a response ([`crate::lookup`]).
pub const LOOKUP: usize = 6;
/// No duration, but numbers in place of the buckets: how DNS lookups ended ([`crate::lookup`]). Few edges
/// have any.
pub const LOOKUP_RESULT: usize = 7;
/// How many kinds there are of which user space keeps a histogram.
pub const DURATIONS: usize = 8;
/// No duration, but numbers in place of the buckets: what responses said ([`crate::response`]). Few edges
/// need them, and on their own shard, as histograms.
pub const RESPONSE: usize = DURATIONS;
/// No duration, but numbers in place of the buckets: how operations ended ([`crate::protocol::http1`]), and
/// from [`OPERATION_DURATIONS`] on the rows that count how long they took, by method. Few edges have any.
pub const OPERATION: usize = DURATIONS + 1;
/// How many kinds of rows an edge's counters have.
pub const KINDS: usize = DURATIONS + 2;
/// Where a row of [`OPERATION`] has the number of another row for each method.
pub const OPERATION_DURATIONS: usize = NUMBERS;

/// The number of no row.
pub const NO_HISTOGRAM: u64 = 0;
/// The most shards that counters can have.
pub const MAX_SHARDS: u32 = 4;
/// Rows below this one are reserved for the edges `other`.
pub const FIRST_FREE_HISTOGRAM: u32 = FIRST_FREE_SLOT * ROLE_ROWS;

/// Kinds of which rows are kept for the edges `other`: behind the others, durations of operations by method.
const RESERVED_KINDS: usize = KINDS + METHODS;

/// Rows kept for a role; those of no kind are not used, so that no number is 0.
const ROLE_ROWS: u32 = (RESERVED_KINDS as u32 + 1) * MAX_SHARDS;

/// The row that counts a kind of duration of the edge `other` of a role; [`KINDS`] and above are operations'
/// by method.
#[inline(always)]
pub const fn reserved(role: u32, kind: usize, shard: u32) -> u64 {
    let role = role & (FIRST_FREE_SLOT - 1);
    let shard = shard & (MAX_SHARDS - 1);
    (role * ROLE_ROWS + (kind as u32 + 1) * MAX_SHARDS + shard) as u64
}

/// Whether a number in an edge's counters is that of a row of its own.
pub const fn is_own(number: u64) -> bool {
    number >= FIRST_FREE_HISTOGRAM as u64
}

/// Where the number of a kind's row lies in an edge's counters.
pub const fn offset_of(kind: usize) -> usize {
    core::mem::offset_of!(HotCounters, histograms) + kind * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reserved_row_has_one_meaning_and_none_is_free_or_nothing() {
        let mut numbers = Vec::new();
        for role in 0..FIRST_FREE_SLOT {
            for kind in 0..RESERVED_KINDS {
                numbers.extend((0..MAX_SHARDS).map(|shard| reserved(role, kind, shard)));
            }
        }
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
        assert!(numbers.iter().all(|number| *number != NO_HISTOGRAM && !is_own(*number)));
    }
}
