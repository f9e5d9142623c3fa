//! How many more rows the agent's own memory has room for.
//!
//! Memory grows with the rows of edges and what follows from each. So when memory runs short
//! the kernel half is offered fewer free slots, and at last none: new edges are then counted in the
//! overflow rows, where totals stay exact. The number on offer follows from the memory left,
//! because a storm can fill a table between two checks.

/// Memory, and how much of it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that may be in use.
    pub limit: u64,
}

/// Memory per row of edges, including everything that follows from it.
pub const ROW_BYTES: u64 = 32 * 1024;

/// Whether new edges are counted in `other` because memory is short (overflow mode).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    overflow_mode: bool,
}

/// The agent's memory, for readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryView {
    /// Memory that counts against the nearest limit; `None` without a limit.
    pub usage: Option<Usage>,
    /// Whether new edges are counted in `other`.
    pub overflow_mode: bool,
    /// Free rows that are withheld.
    pub held_rows: u64,
    /// How often overflow mode was entered.
    pub overflows: u64,
}

// === impl Usage ===

impl Usage {
    /// From here on nothing new fits: the rest is for the temporary needs of a scrape.
    const fn full(self) -> u64 {
        self.limit / 10 * 9
    }

    /// Below this there is room again.
    const fn eased(self) -> u64 {
        self.limit / 4 * 3
    }

    /// What is left below the limit.
    pub const fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

// === impl Memory ===

impl Memory {
    /// How many free rows to offer now; `None` for all.
    pub fn room(&mut self, usage: Option<Usage>) -> Option<u64> {
        let Some(usage) = usage else {
            self.overflow_mode = false;
            return None;
        };
        self.overflow_mode = if self.overflow_mode {
            usage.used >= usage.eased()
        } else {
            usage.used >= usage.full()
        };
        let room = usage.full().saturating_sub(usage.used) / ROW_BYTES;
        Some(if self.overflow_mode { 0 } else { room })
    }

    /// Whether it is in overflow mode.
    pub const fn is_overflowing(self) -> bool {
        self.overflow_mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn rows_are_offered_while_they_fit_and_again_when_memory_has_fallen() {
        let mut memory = Memory::default();
        let mut check = |used: u64, room: u64, overflow_mode: bool| {
            let usage = Usage { used: used * MIB, limit: 40 * MIB };
            assert_eq!(memory.room(Some(usage)), Some(room), "{used} MiB");
            assert_eq!(memory.is_overflowing(), overflow_mode, "{used} MiB");
        };
        check(20, 512, false);
        check(35, 32, false);
        check(36, 0, true);
        // Not to and fro at the edge.
        check(35, 0, true);
        check(30, 0, true);
        check(29, 224, false);
        check(35, 32, false);
        check(50, 0, true);
        assert_eq!(memory.room(None), None);
        assert!(!memory.is_overflowing());
    }
}
