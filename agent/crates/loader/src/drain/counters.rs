//! What each edge has counted: its numbers on every shard, and the rows that its durations take.

use std::io;
use std::sync::Arc;

use agent_common::counters::EdgeCounters;
use agent_common::drained::{Edge, Table};
use agent_common::durations::{self, KINDS, NO_HISTOGRAM, OPERATION, is_own, reserved};
use agent_common::edge::{EdgeRow, FIRST_FREE_SLOT, HotCounters};
use agent_common::histogram::Histogram;
use agent_common::ledger::Ledger;
use agent_common::on_demand::OnDemand;
use agent_common::operations::Operations;
use agent_common::protocol::http1::detect::METHODS;

use super::Drain;

impl Drain {
    pub(super) fn read_edges(&mut self, ledger: &Ledger, now_us: u64) -> io::Result<Vec<Edge>> {
        let mut edges = Vec::new();
        self.histograms_in_use = 0;
        self.places_without.clear();
        self.methods_without.clear();
        for slot in self.edges.reached(ledger) {
            let Some(born_us) = self.edges.born_us(slot, now_us)? else { continue };
            let EdgeRow { mut key, local, remote, .. } = self.edges.row(slot)?;
            if slot < FIRST_FREE_SLOT {
                // These are numbered by role.
                key.role = slot as u8;
            }
            let counters = self.read_counters(slot as usize)?;
            let table = Table::Edges;
            edges.push(Edge { table, slot, key, local, remote, born_us, counters });
        }
        self.offer_histograms()?;
        Ok(edges)
    }

    /// Places that found no histogram look for one again if there are free ones: not all may have been
    /// refused for the same reason.
    fn offer_histograms(&mut self) -> io::Result<()> {
        if self.histograms_in_use >= self.histograms.own() {
            self.places_without.clear();
            self.methods_without.clear();
        }
        for (number, method) in self.methods_without.drain(..) {
            self.histograms.forget_of_operations(number, method)?;
        }
        for (index, kind) in self.places_without.drain(..) {
            self.counters.swap_word(index, durations::offset_of(kind), NO_HISTOGRAM)?;
        }
        Ok(())
    }

    /// What a slot has counted on all shards.
    fn read_counters(&mut self, slot: usize) -> io::Result<Arc<EdgeCounters>> {
        let mut counters = EdgeCounters::ZERO;
        let mut sums: [Option<Histogram>; KINDS] = [None; KINDS];
        let mut by_method: [Option<Histogram>; METHODS] = [None; METHODS];
        for shard in 0..self.shards {
            let index = slot * self.shards + shard;
            let hot = self.counters.read(index)?;
            counters.add_hot(&hot);
            for (kind, (sum, number)) in sums.iter_mut().zip(hot.histograms).enumerate() {
                if slot < FIRST_FREE_SLOT as usize {
                    let number = reserved(slot as u32, kind, shard as u32);
                    self.histograms.add_to(sum, number)?;
                } else if is_own(number) {
                    self.histograms_in_use += 1;
                    self.histograms.add_to(sum, number)?;
                } else if number != NO_HISTOGRAM {
                    self.places_without.push((index, kind));
                }
            }
            let ended = sums[OPERATION].as_ref();
            if ended.is_some_and(|ended| *ended != Histogram::EMPTY) {
                self.add_methods(&mut by_method, slot, shard, &hot)?;
            }
        }
        if self.last.len() <= slot {
            self.last.resize(slot + 1, None);
        }
        let Some(last) = self.last.get_mut(slot) else { return Ok(Arc::new(counters)) };
        {
            let mut before = last.as_deref().into_iter().flat_map(EdgeCounters::durations);
            for (durations, now) in counters.durations_mut().into_iter().zip(&sums) {
                *durations = OnDemand::after(before.next(), now.as_ref());
            }
            let said = sums[durations::RESPONSE].unwrap_or(Histogram::EMPTY).buckets;
            counters.responses.iter_mut().zip(said).for_each(|(number, said)| *number = said);
            if let Some(ended) = &sums[OPERATION] {
                let before = last.as_deref().map_or(&Operations::EMPTY, |last| &last.operations);
                counters.operations = Operations::after(before, &ended.buckets, &by_method);
            }
        }
        match last {
            Some(last) if **last == counters => Ok(Arc::clone(last)),
            last => Ok(Arc::clone(last.insert(Arc::new(counters)))),
        }
    }

    /// Adds how long a slot's operations took on a shard.
    fn add_methods(
        &mut self,
        sums: &mut [Option<Histogram>; METHODS],
        slot: usize,
        shard: usize,
        hot: &HotCounters,
    ) -> io::Result<()> {
        if slot < FIRST_FREE_SLOT as usize {
            for (method, sum) in sums.iter_mut().enumerate() {
                let number = reserved(slot as u32, KINDS + method, shard as u32);
                self.histograms.add_to(sum, number)?;
            }
            return Ok(());
        }
        let ended = hot.histograms[OPERATION];
        if !is_own(ended) {
            return Ok(());
        }
        let numbers = self.histograms.of_operations(ended)?;
        for (method, (sum, number)) in sums.iter_mut().zip(numbers).enumerate() {
            if is_own(number) {
                self.histograms_in_use += 1;
                self.histograms.add_to(sum, number)?;
            } else if number != NO_HISTOGRAM {
                self.methods_without.push((ended, method));
            }
        }
        Ok(())
    }
}
