//! Reads what waits in the connections of each edge. The rows are gauges of one socket iteration: who
//! has read a row empties it for the next one.

use std::io;
use std::ops::Range;

use agent_common::queues::Queues;
use anyhow::Context as _;

use super::bpf::Map;
use super::mapped::Mapped;
use super::maps;
use super::object::Parts;

/// The rows of all slots.
pub struct EdgeQueues {
    rows: Mapped<Queues>,
    are_empty: bool,
}

impl EdgeQueues {
    /// Takes over the map.
    pub fn new(parts: &mut Parts) -> anyhow::Result<Self> {
        let map: Map<u32, Queues> = parts.map(&maps::EDGE_QUEUES)?;
        let rows = map.mapped_writable().context("mapping the queues")?;
        Ok(Self { rows, are_empty: false })
    }

    /// Whether the rows are ready for an iteration. At first they may have what an agent left that
    /// ended between its iteration and its reading.
    pub fn are_empty(&self) -> bool {
        self.are_empty
    }

    /// What waits in connections of these slots, where anything does; empties the rows. No iteration
    /// may run meanwhile.
    pub fn take(&mut self, slots: Range<u32>) -> io::Result<Vec<(u32, Queues)>> {
        let mut taken = Vec::new();
        for slot in slots {
            let index = slot as usize;
            let queues = self.rows.read(index)?;
            if queues == Queues::NONE {
                continue;
            }
            for offset in (0..size_of::<Queues>()).step_by(8) {
                self.rows.swap_word(index, offset, 0)?;
            }
            taken.push((slot, queues));
        }
        self.are_empty = true;
        Ok(taken)
    }
}
