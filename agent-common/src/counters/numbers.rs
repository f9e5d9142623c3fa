//! Every number of an edge in a fixed order, and its durations by kind.

use super::EdgeCounters;
use crate::durations::DURATIONS;
use crate::histogram::BUCKETS;
use crate::on_demand::OnDemand;

impl EdgeCounters {
    /// Calls `with` for every number that is not zero, with its index in a fixed order, ascending.
    pub fn each(&self, mut with: impl FnMut(u16, u64)) {
        let durations = self.durations().into_iter().flat_map(|durations| {
            [std::slice::from_ref(&durations.sum_us), &durations.buckets[..]]
        });
        let lists = self.plain().into_iter().chain(durations).chain(self.operations.lists());
        for (index, number) in (0..).zip(lists.flatten()) {
            if *number != 0 {
                with(index, *number);
            }
        }
    }

    /// Adds `n` to the number with this index in the order of [`EdgeCounters::each`]. An index that
    /// no number has is ignored.
    pub fn add_at(&mut self, index: u16, n: u64) {
        let mut index = usize::from(index);
        for list in self.plain_mut() {
            if let Some(number) = list.get_mut(index) {
                *number = number.wrapping_add(n);
                return;
            }
            index -= list.len();
        }
        for durations in self.durations_mut() {
            if index <= BUCKETS {
                durations.add_at(index, n);
                return;
            }
            index -= BUCKETS + 1;
        }
        self.operations.add_at(index, n);
    }

    /// The durations, by kind ([`crate::durations`]).
    pub fn durations(&self) -> [&OnDemand; DURATIONS] {
        [
            &self.connect,
            &self.rtt,
            &self.request,
            &self.idle_reuse_ms,
            &self.idle_closed_by_client_ms,
            &self.idle_closed_by_server_ms,
            &self.lookup,
            &self.lookup_results,
        ]
    }

    /// The same, to be changed.
    pub fn durations_mut(&mut self) -> [&mut OnDemand; DURATIONS] {
        [
            &mut self.connect,
            &mut self.rtt,
            &mut self.request,
            &mut self.idle_reuse_ms,
            &mut self.idle_closed_by_client_ms,
            &mut self.idle_closed_by_server_ms,
            &mut self.lookup,
            &mut self.lookup_results,
        ]
    }

    /// The numbers that are no durations.
    fn plain(&self) -> [&[u64]; 19] {
        use std::slice::from_ref;
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
            connect: _,
            rtt: _,
            request: _,
            idle_reuse_ms: _,
            idle_closed_by_client_ms: _,
            idle_closed_by_server_ms: _,
            lookup: _,
            lookup_results: _,
            operations: _,
        } = self;
        [
            connects,
            from_ref(opened),
            from_ref(closed),
            from_ref(preexisting),
            from_ref(sent_bytes),
            from_ref(received_bytes),
            retransmits,
            from_ref(timeouts),
            from_ref(dsacks),
            limited_us,
            resets_sent,
            resets_received,
            aborts,
            from_ref(unanswered),
            from_ref(unanswered_stopping),
            from_ref(waits),
            responses,
            from_ref(listen_drops),
            from_ref(synack_retransmits),
        ]
    }

    /// The same, to be changed.
    fn plain_mut(&mut self) -> [&mut [u64]; 19] {
        use std::slice::from_mut;
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
            connect: _,
            rtt: _,
            request: _,
            idle_reuse_ms: _,
            idle_closed_by_client_ms: _,
            idle_closed_by_server_ms: _,
            lookup: _,
            lookup_results: _,
            operations: _,
        } = self;
        [
            connects,
            from_mut(opened),
            from_mut(closed),
            from_mut(preexisting),
            from_mut(sent_bytes),
            from_mut(received_bytes),
            retransmits,
            from_mut(timeouts),
            from_mut(dsacks),
            limited_us,
            resets_sent,
            resets_received,
            aborts,
            from_mut(unanswered),
            from_mut(unanswered_stopping),
            from_mut(waits),
            responses,
            from_mut(listen_drops),
            from_mut(synack_retransmits),
        ]
    }
}
