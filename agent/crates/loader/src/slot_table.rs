//! Slot tables, user space's half: read the rows in use, take slots back. The life of a row:
//! [`agent_common::slot_table`].

use std::io;
use std::ops::Range;

use agent_common::drained::Row;
use agent_common::ledger::Ledger;
use agent_common::slot_table::{Reclaim, SlotRow, is_readable};
use anyhow::Context as _;

use super::bpf::Map;
use super::mapped::Mapped;
use super::maps;
use super::object::Parts;
use super::shares::{self, Freed};
use super::spare::Spare;

/// The maps of a slot table.
pub struct Maps {
    /// Key → slot.
    pub index: maps::Spec,
    /// Slot → row.
    pub rows: maps::Spec,
    /// Free slots.
    pub free: maps::Spec,
}

/// Edges.
pub const EDGES: Maps = Maps { index: maps::EDGES, rows: maps::EDGE_ROWS, free: maps::EDGE_FREE };
/// Listeners.
pub const LISTENERS: Maps =
    Maps { index: maps::LISTENERS, rows: maps::LISTENER_ROWS, free: maps::LISTENER_FREE };
/// Connects that were refused before a SYN.
pub const UNSENT: Maps =
    Maps { index: maps::UNSENT, rows: maps::UNSENT_ROWS, free: maps::UNSENT_FREE };
/// Owners.
pub const OWNERS: Maps =
    Maps { index: maps::OWNERS, rows: maps::OWNER_ROWS, free: maps::OWNER_FREE };
/// Failed binds.
pub const BIND_FAILURES: Maps =
    Maps { index: maps::BIND_FAILURES, rows: maps::BIND_FAIL_ROWS, free: maps::BIND_FAIL_FREE };

/// A slot table of the kernel half.
pub struct SlotTable<R: SlotRow> {
    index: Map<R::Key, u32>,
    rows: Map<u32, R>,
    mapped: Mapped<R>,
    free: Spare,
    freed: Freed,
}

impl<R: SlotRow> SlotTable<R> {
    /// Takes over the maps.
    pub fn new(parts: &mut Parts, maps: &Maps) -> anyhow::Result<Self> {
        let rows: Map<u32, R> = parts.map(&maps.rows)?;
        Ok(Self {
            index: parts.map(&maps.index)?,
            mapped: rows.mapped().with_context(|| format!("mapping {}", maps.rows.name))?,
            rows,
            free: Spare::new(parts.stack(&maps.free)?),
            freed: Freed::new(parts, R::TABLE)?,
        })
    }

    /// Offers every slot that is not reserved: a new table's stack is empty.
    pub fn fill(parts: &Parts, maps: &Maps) -> anyhow::Result<()> {
        let fd = |map: &maps::Spec| anyhow::Ok(parts.get(map)?.try_clone()?);
        shares::fill(parts, R::TABLE)?;
        let stack = Map::stack(fd(&maps.free)?)?;
        let slots = Map::<u32, R>::new(fd(&maps.rows)?)?.max_entries;
        // The lowest on top: rows in use then lie close together.
        for slot in (R::RESERVED..slots).rev() {
            stack.push(slot).with_context(|| format!("filling {}", maps.free.name))?;
        }
        Ok(())
    }

    /// The slots that may be in use: the reserved ones, and those that were ever taken.
    pub fn reached(&self, ledger: &Ledger) -> Range<u32> {
        let reach = ledger.reach.get(R::TABLE).copied().unwrap_or(u64::MAX);
        let end = u32::try_from(reach).map_or(u32::MAX, |reach| reach.saturating_add(1));
        0..end.max(R::RESERVED).min(self.rows.max_entries)
    }

    /// When a slot was taken, CLOCK_MONOTONIC microseconds; 0 for one that is reserved. `None` if
    /// it is free, or taken for so short a time that its row is left for later. What is read of the
    /// row afterwards belongs to that time or a later one.
    pub fn born_us(&mut self, slot: u32, now_us: u64) -> io::Result<Option<u64>> {
        let born_us = self.mapped.word(slot as usize, R::BORN_US)?;
        let in_use = born_us != 0 || slot < R::RESERVED;
        Ok((in_use && is_readable(born_us, now_us)).then_some(born_us))
    }

    /// A copy of a row. Fields that hooks change may be from slightly different moments.
    pub fn row(&mut self, slot: u32) -> io::Result<R> {
        self.mapped.read(slot as usize)
    }

    /// Every row in use, the reserved ones first.
    pub fn rows(&mut self, ledger: &Ledger, now_us: u64) -> io::Result<Vec<Row<R>>> {
        let mut rows = Vec::new();
        for slot in self.reached(ledger) {
            if self.born_us(slot, now_us)?.is_some() {
                rows.push(Row { slot, row: self.row(slot)? });
            }
        }
        Ok(rows)
    }

    /// Takes a slot back, one step at a time.
    pub fn reclaim(&mut self, step: &Reclaim<R::Key>) -> io::Result<()> {
        match step {
            Reclaim::Forget(key) => self.index.remove(key).map(drop),
            Reclaim::Free(slot) => {
                let tenant = self.row(*slot)?.tenant();
                self.rows.insert(slot, &R::zeroed())?;
                self.freed.count(tenant, 1)?;
                self.free.give(*slot)
            }
        }
    }

    /// How many slots there are, the reserved ones and those that are held back among them.
    pub fn capacity(&self) -> u32 {
        self.rows.max_entries
    }

    /// How many free slots are held back.
    pub fn held(&self) -> usize {
        self.free.held()
    }

    /// Has about `wanted` free slots on offer, or all of them, when `in_use` are taken.
    pub fn offer(&mut self, in_use: usize, wanted: Option<usize>) -> io::Result<()> {
        let slots = self.capacity().saturating_sub(R::RESERVED) as usize;
        let offered = slots.saturating_sub(in_use).saturating_sub(self.held());
        self.free.offer(offered, wanted)
    }
}
