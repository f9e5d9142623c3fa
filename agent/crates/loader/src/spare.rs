//! Free slots of edges, and which of them the kernel half may take.

use std::io;

use super::bpf::Map;

/// The kernel half's stack of free slots, and the withheld slots.
pub struct Spare {
    free: Map<(), u32>,
    /// The lowest last.
    held: Vec<u32>,
    /// Whether returned slots are withheld, too.
    holding: bool,
}

impl Spare {
    /// Takes over the stack with its content.
    pub fn new(free: Map<(), u32>) -> Self {
        Self { free, held: Vec::new(), holding: false }
    }

    /// Number of withheld slots.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns a free slot.
    pub fn give(&mut self, slot: u32) -> io::Result<()> {
        if self.holding {
            self.held.push(slot);
            return Ok(());
        }
        self.free.push(slot)
    }

    /// Adjusts the number of offered slots to about `wanted`, of which `offered` are already;
    /// `None` offers all. The lowest are offered first, so that used rows lie close together.
    pub fn offer(&mut self, offered: usize, wanted: Option<usize>) -> io::Result<()> {
        let wanted = wanted.unwrap_or(usize::MAX);
        self.holding = wanted == 0;
        // Small differences are not worth the calls.
        if wanted < offered && (wanted == 0 || wanted < offered - offered / 4) {
            while let Some(slot) = self.free.pop()? {
                self.held.push(slot);
            }
            return self.push_lowest(wanted);
        }
        if !self.held.is_empty() && wanted > offered.saturating_add(offered / 4) {
            return self.push_lowest(wanted - offered);
        }
        Ok(())
    }

    fn push_lowest(&mut self, count: usize) -> io::Result<()> {
        self.held.sort_unstable_by(|a, b| b.cmp(a));
        let mut lowest = self.held.split_off(self.held.len().saturating_sub(count)).into_iter();
        for slot in &mut lowest {
            if let Err(error) = self.free.push(slot) {
                self.held.push(slot);
                self.held.extend(lowest);
                return Err(error);
            }
        }
        Ok(())
    }
}
