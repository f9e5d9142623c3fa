//! Rows for durations, user space's half: put together what an edge has, give rows back. The life of
//! a row: [`agent_common::durations`].

use std::io;
use std::mem::offset_of;

use agent_common::durations::{FIRST_FREE_HISTOGRAM, NO_HISTOGRAM, OPERATION_DURATIONS, is_own};
use agent_common::histogram::Histogram;
use agent_common::protocol::http1::detect::METHODS;
use agent_common::share::Tenant;
use agent_common::slot_table::HISTOGRAMS;
use agent_common::wire::Wire as _;
use anyhow::Context as _;

use super::bpf::Map;
use super::mapped::Mapped;
use super::maps;
use super::object::Parts;
use super::shares::{self, Freed};

/// The table of histograms.
pub struct Histograms {
    rows: Map<u32, Histogram>,
    mapped: Mapped<Histogram>,
    free: Map<(), u32>,
    freed: Freed,
}

impl Histograms {
    /// Takes over the maps.
    pub fn new(parts: &mut Parts) -> anyhow::Result<Self> {
        let rows: Map<u32, Histogram> = parts.map(&maps::HISTOGRAMS)?;
        let mapped = rows.mapped_writable().context("mapping the histograms")?;
        let freed = Freed::new(parts, HISTOGRAMS)?;
        Ok(Self { rows, mapped, free: parts.stack(&maps::HISTOGRAM_FREE)?, freed })
    }

    /// Offers every row that is not reserved: a new table's stack is empty.
    pub fn fill(parts: &Parts) -> anyhow::Result<()> {
        let fd = |map: &maps::Spec| anyhow::Ok(parts.get(map)?.try_clone()?);
        shares::fill(parts, HISTOGRAMS)?;
        let stack = Map::stack(fd(&maps::HISTOGRAM_FREE)?)?;
        let rows = Map::<u32, Histogram>::new(fd(&maps::HISTOGRAMS)?)?.max_entries;
        // The lowest on top: rows in use then lie close together.
        for number in (FIRST_FREE_HISTOGRAM..rows).rev() {
            stack.push(number).context("filling the stack of free histograms")?;
        }
        Ok(())
    }

    /// Adds a row to a sum.
    pub fn add_to(&mut self, sum: &mut Option<Histogram>, number: u64) -> io::Result<()> {
        let number = usize::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
        let row = self.mapped.read(number)?;
        match sum {
            Some(sum) => sum.merge(&row),
            None => *sum = Some(row),
        }
        Ok(())
    }

    /// The rows that count how long an edge's operations took, by method; `number` is that of the row that
    /// counts how they ended.
    pub fn of_operations(&mut self, number: u64) -> io::Result<[u64; METHODS]> {
        let number = usize::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut numbers = [NO_HISTOGRAM; METHODS];
        for (method, found) in numbers.iter_mut().enumerate() {
            *found = self.rows_of(number, method, None)?;
        }
        Ok(numbers)
    }

    /// Has a method of such a row look for another row at its next operation.
    pub fn forget_of_operations(&mut self, number: u64, method: usize) -> io::Result<()> {
        let number = usize::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.rows_of(number, method, Some(NO_HISTOGRAM)).map(|_| ())
    }

    fn rows_of(&mut self, number: usize, method: usize, new: Option<u64>) -> io::Result<u64> {
        let at = offset_of!(Histogram, buckets) + (OPERATION_DURATIONS + method) * 8;
        match new {
            Some(new) => self.mapped.swap_word(number, at, new),
            None => self.mapped.word(number, at),
        }
    }

    /// Clears rows that an edge of a tenant had and offers them again; other numbers are left alone.
    pub fn give_back(&self, numbers: &[u64], tenant: Tenant) -> io::Result<()> {
        let own = numbers.iter().copied().filter(|number| is_own(*number));
        let mut count = 0;
        for row in own.filter_map(|number| u32::try_from(number).ok()) {
            self.rows.insert(&row, &Histogram::zeroed())?;
            self.free.push(row)?;
            count += 1;
        }
        self.freed.count(tenant, count)
    }

    /// How many rows edges can have.
    pub fn own(&self) -> u64 {
        self.capacity().saturating_sub(FIRST_FREE_HISTOGRAM.into())
    }

    /// How many rows there are, the reserved ones among them.
    pub fn capacity(&self) -> u64 {
        u64::from(self.rows.max_entries)
    }
}
