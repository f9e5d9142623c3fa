//! Goes through the table of sockets: asks a program of the kernel half to visit the entries that may
//! live, a few at a time.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use agent_common::listener::ListenerRecord;
use agent_common::socket_table::{BATCH, LIVE_WORDS, batch};

use super::bpf::{self, Map};
use super::mapped::Mapped;
use super::maps;
use super::object::Parts;

/// The reading side of the table of sockets.
pub struct SocketTable {
    visit: OwnedFd,
    live: Mapped<u64>,
    records: Mapped<ListenerRecord>,
}

impl SocketTable {
    /// Takes over the maps it reads. `visit` is the program.
    pub fn new(parts: &mut Parts, visit: OwnedFd) -> anyhow::Result<Self> {
        let live: Map<u32, u64> = parts.map(&maps::SOCKETS_LIVE)?;
        let records: Map<u32, ListenerRecord> = parts.map(&maps::LISTENER_ROOM)?;
        Ok(Self { visit, live: live.mapped()?, records: records.mapped()? })
    }

    /// Brings the slots of all connections up to date, and reports the listeners.
    pub fn visit(&mut self) -> io::Result<Vec<ListenerRecord>> {
        let (mut listeners, mut entries) = (Vec::new(), Vec::with_capacity(BATCH));
        for word in 0..LIVE_WORDS {
            let mut live = self.live.word(word, 0)?;
            while live != 0 {
                entries.push(word as u16 * 64 + live.trailing_zeros() as u16);
                live &= live - 1;
                if entries.len() == BATCH {
                    self.visit_these(&entries, &mut listeners)?;
                    entries.clear();
                }
            }
        }
        if !entries.is_empty() {
            self.visit_these(&entries, &mut listeners)?;
        }
        Ok(listeners)
    }

    fn visit_these(
        &mut self,
        entries: &[u16],
        listeners: &mut Vec<ListenerRecord>,
    ) -> io::Result<()> {
        let records = bpf::run(self.visit.as_fd(), &batch(entries))?;
        for record in 0..records as usize {
            listeners.push(self.records.read(record)?);
        }
        Ok(())
    }
}
