//! Everything counted about an edge, as user space has it: what the tables of the kernel half say,
//! put together and completed.

mod numbers;

use crate::abort::ABORT_CAUSES;
use crate::edge::{CONNECT_RESULTS, HotCounters};
use crate::limit::LIMITS;
use crate::on_demand::OnDemand;
use crate::operations::Operations;
use crate::reset::{CAUSES, is_of_connection};
use crate::response::RESPONSES;
use crate::retransmit::PHASES;

/// Everything counted about an edge. All fields only grow while it is the same edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeCounters {
    /// Ended connection attempts by `CONNECT_*`; for a server, accepted connections are `ok`.
    pub connects: [u64; CONNECT_RESULTS],
    /// Connections that became established.
    pub opened: u64,
    /// Established connections that ended.
    pub closed: u64,
    /// Connections that were there before the agent; also counted in `opened`.
    pub preexisting: u64,
    /// Payload bytes handed to the network for the first time.
    pub sent_bytes: u64,
    /// Payload bytes received in order.
    pub received_bytes: u64,
    /// Retransmitted segments by phase ([`crate::retransmit`]).
    pub retransmits: [u64; PHASES],
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Segments that the peer has received twice.
    pub dsacks: u64,
    /// For how long something kept data from being sent, microseconds ([`crate::limit`]).
    pub limited_us: [u64; LIMITS],
    /// Resets sent, by cause.
    pub resets_sent: [u64; CAUSES],
    /// Resets received, by cause.
    pub resets_received: [u64; CAUSES],
    /// Established connections that the kernel gave up, by cause ([`crate::abort`]).
    pub aborts: [u64; ABORT_CAUSES],
    /// Requests that ended without an answer ([`crate::unanswered`]).
    pub unanswered: u64,
    /// Likewise, while the server was stopping; not counted in `unanswered`.
    pub unanswered_stopping: u64,
    /// Requests that took long, one after the other on a connection ([`crate::wait`]).
    pub waits: u64,
    /// What this server's responses said, by status and protocol ([`crate::response`]).
    pub responses: [u64; RESPONSES],
    /// Connection requests that a listener dropped, mostly because its accept queue was full.
    pub listen_drops: u64,
    /// SYN-ACKs that a listener retransmitted.
    pub synack_retransmits: u64,
    /// Time from SYN to established.
    pub connect: OnDemand,
    /// Smoothed round trip time, sampled through a connection's life.
    pub rtt: OnDemand,
    /// Request latency at the socket; see docs/metrics.md.
    pub request: OnDemand,
    /// How long connections were idle before a request. Milliseconds, unlike the above: idle times
    /// are as long as hours ([`crate::idle`]).
    pub idle_reuse_ms: OnDemand,
    /// How long connections were idle that the client closed.
    pub idle_closed_by_client_ms: OnDemand,
    /// How long connections were idle that the server closed.
    pub idle_closed_by_server_ms: OnDemand,
    /// How long DNS lookups of this client took that got a response.
    pub lookup: OnDemand,
    /// How they ended: numbers in place of the buckets ([`crate::lookup`]).
    pub lookup_results: OnDemand,
    /// Requests to this server, if its protocols are walked ([`crate::protocol`]).
    pub operations: Operations,
}

// === impl EdgeCounters ===

impl EdgeCounters {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        connects: [0; CONNECT_RESULTS],
        opened: 0,
        closed: 0,
        preexisting: 0,
        sent_bytes: 0,
        received_bytes: 0,
        retransmits: [0; PHASES],
        timeouts: 0,
        dsacks: 0,
        limited_us: [0; LIMITS],
        resets_sent: [0; CAUSES],
        resets_received: [0; CAUSES],
        aborts: [0; ABORT_CAUSES],
        unanswered: 0,
        unanswered_stopping: 0,
        waits: 0,
        responses: [0; RESPONSES],
        listen_drops: 0,
        synack_retransmits: 0,
        connect: OnDemand::EMPTY,
        rtt: OnDemand::EMPTY,
        request: OnDemand::EMPTY,
        idle_reuse_ms: OnDemand::EMPTY,
        idle_closed_by_client_ms: OnDemand::EMPTY,
        idle_closed_by_server_ms: OnDemand::EMPTY,
        lookup: OnDemand::EMPTY,
        lookup_results: OnDemand::EMPTY,
        operations: Operations::EMPTY,
    };

    /// Adds `other` to these counters.
    pub fn merge(&mut self, other: &Self) {
        self.combine(other, u64::wrapping_add, OnDemand::merge);
        self.operations.merge(&other.operations);
    }

    /// Takes `other` away again, which had been added to these counters.
    pub fn separate(&mut self, other: &Self) {
        self.combine(other, u64::wrapping_sub, OnDemand::separate);
        self.operations.separate(&other.operations);
    }

    /// Adds what hooks counted on one shard; durations are counted elsewhere.
    pub fn add_hot(&mut self, hot: &HotCounters) {
        let HotCounters {
            connects,
            opened,
            closed,
            preexisting,
            sent_bytes,
            received_bytes,
            retransmits,
            timeouts,
            dsacks,
            limited_us,
            resets_sent,
            resets_received,
            aborts,
            unanswered,
            waits,
            histograms: _,
        } = *hot;
        let connects = widened(&connects);
        let (resets_sent, resets_received) = (widened(&resets_sent), widened(&resets_received));
        self.merge(&Self {
            connects,
            opened,
            closed,
            preexisting,
            sent_bytes,
            received_bytes,
            retransmits,
            timeouts,
            dsacks,
            limited_us,
            resets_sent,
            resets_received,
            aborts,
            unanswered,
            waits,
            ..Self::ZERO
        });
    }

    fn combine(
        &mut self,
        other: &Self,
        with: fn(u64, u64) -> u64,
        durations: fn(&mut OnDemand, &OnDemand),
    ) {
        let Self {
            connects,
            opened,
            closed,
            preexisting,
            sent_bytes,
            received_bytes,
            retransmits,
            timeouts,
            dsacks,
            limited_us,
            resets_sent,
            resets_received,
            aborts,
            unanswered,
            unanswered_stopping,
            waits,
            responses,
            listen_drops,
            synack_retransmits,
            connect,
            rtt,
            request,
            idle_reuse_ms,
            idle_closed_by_client_ms,
            idle_closed_by_server_ms,
            lookup,
            lookup_results,
            // Not only numbers: `merge` and `separate` do it.
            operations: _,
        } = self;
        let both = |mine: &mut u64, theirs: u64| *mine = with(*mine, theirs);
        for (mine, theirs) in [
            (&mut connects[..], &other.connects[..]),
            (&mut retransmits[..], &other.retransmits[..]),
            (&mut limited_us[..], &other.limited_us[..]),
            (&mut resets_sent[..], &other.resets_sent[..]),
            (&mut resets_received[..], &other.resets_received[..]),
            (&mut aborts[..], &other.aborts[..]),
            (&mut responses[..], &other.responses[..]),
        ] {
            mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| both(mine, *theirs));
        }
        both(opened, other.opened);
        both(closed, other.closed);
        both(preexisting, other.preexisting);
        both(sent_bytes, other.sent_bytes);
        both(received_bytes, other.received_bytes);
        both(timeouts, other.timeouts);
        both(dsacks, other.dsacks);
        both(unanswered, other.unanswered);
        both(unanswered_stopping, other.unanswered_stopping);
        both(waits, other.waits);
        both(listen_drops, other.listen_drops);
        both(synack_retransmits, other.synack_retransmits);
        durations(connect, &other.connect);
        durations(rtt, &other.rtt);
        durations(request, &other.request);
        durations(idle_reuse_ms, &other.idle_reuse_ms);
        durations(idle_closed_by_client_ms, &other.idle_closed_by_client_ms);
        durations(idle_closed_by_server_ms, &other.idle_closed_by_server_ms);
        durations(lookup, &other.lookup);
        durations(lookup_results, &other.lookup_results);
    }

    /// Resets of connections in both directions: without those that answered a connect, which are
    /// failed connects, and without checks ([`crate::reset::UNUSED`]).
    pub fn resets(&self) -> u64 {
        let both = [&self.resets_received, &self.resets_sent].into_iter();
        let counted = both.flat_map(|resets| resets.iter().enumerate());
        counted.filter(|(cause, _)| is_of_connection(*cause)).map(|(_, count)| count).sum()
    }

    /// Retransmitted segments.
    pub fn retransmitted(&self) -> u64 {
        self.retransmits.iter().sum()
    }

    /// Established connections that the kernel gave up.
    pub fn aborted(&self) -> u64 {
        self.aborts.iter().sum()
    }

    /// DNS lookups that ended: with a response, or as timed out.
    pub fn looked_up(&self) -> u64 {
        self.lookup_results.count()
    }

    /// Whether there was a connection, or an attempt at one.
    pub fn has_connections(&self) -> bool {
        self.opened > 0 || self.connects.iter().any(|count| *count > 0)
    }

    /// Connections open now.
    pub fn active(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }
}

/// What hooks count, and nothing where they cannot.
pub fn widened<const HOT: usize, const ALL: usize>(hot: &[u64; HOT]) -> [u64; ALL] {
    let mut all = [0; ALL];
    all.iter_mut().zip(hot).for_each(|(all, hot)| *all = *hot);
    all
}

impl Default for EdgeCounters {
    fn default() -> Self {
        Self::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::HOT_CONNECT_RESULTS;
    use crate::reset::HOT_CAUSES;
    use crate::wire::Wire as _;

    /// Every field `n`.
    fn all(n: u64) -> EdgeCounters {
        let bytes: Vec<u8> =
            (0..size_of::<HotCounters>() / 8).flat_map(|_| n.to_ne_bytes()).collect();
        let mut durations = OnDemand::EMPTY;
        (0..n).for_each(|_| durations.observe(9));
        let mut operations = Operations::EMPTY;
        (0..n).for_each(|_| operations.observe(3, 4, 9));
        let mut counters = EdgeCounters {
            responses: [n; RESPONSES],
            operations,
            unanswered_stopping: n,
            listen_drops: n,
            synack_retransmits: n,
            ..EdgeCounters::ZERO
        };
        counters.durations_mut().into_iter().for_each(|kind| kind.clone_from(&durations));
        counters.add_hot(&HotCounters::from_bytes(&bytes).expect("enough bytes"));
        // Those that no hook counts.
        counters.connects.iter_mut().skip(HOT_CONNECT_RESULTS).for_each(|count| *count = n);
        for resets in [&mut counters.resets_sent, &mut counters.resets_received] {
            resets.iter_mut().skip(HOT_CAUSES).for_each(|count| *count = n);
        }
        counters
    }

    #[test]
    fn every_number_has_an_index_of_its_own() {
        let one = all(1);
        let (mut indices, mut rebuilt) = (Vec::new(), EdgeCounters::ZERO);
        one.each(|index, n| {
            indices.push(index);
            rebuilt.add_at(index, n);
        });
        assert_eq!(rebuilt, one);
        assert!(indices.is_sorted_by(|a, b| a < b), "{indices:?}");
        rebuilt.add_at(u16::MAX, 1);
        assert_eq!(rebuilt, one, "no number has this index");
        EdgeCounters::ZERO.each(|index, _| panic!("{index} is zero"));
    }

    #[test]
    fn a_refused_connect_and_a_check_are_no_resets_of_a_connection() {
        let counters = all(1);
        assert_eq!(counters.resets(), 2 * (CAUSES as u64 - 2));
    }

    #[test]
    fn merging_and_separating_reach_every_field() {
        let mut merged = all(1);
        merged.merge(&all(1));
        assert_eq!(merged, all(2));
        merged.separate(&all(1));
        assert_eq!(merged, all(1));
        merged.separate(&all(1));
        assert_eq!(merged, EdgeCounters::ZERO);
    }
}
