//! Reads what the bind hooks counted: failed binds, and the sockets that hold a port.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use agent_common::attempt::{AttemptKey, BUCKETS, EXPIRED_AT_ONCE, FailureRow};
use agent_common::bound::BoundRecord;
use agent_common::ledger::Ledger;
use agent_common::slot_table::Reclaim;
use agent_common::wire::Wire;
use anyhow::Context as _;
use hashbrown::HashSet;

use super::bpf;
use super::maps;
use super::object::Parts;
use super::slot_table::{self, SlotTable};
use agent_common::drained::Claim;

/// Room for one read of an iterator. The kernel pauses the walk when it has filled what the reader
/// offered, or its own buffer of 32 KiB, and finds its place again by counting: a socket that came
/// meanwhile makes it meet another twice, one that went makes it miss one. So leave it no reason.
const CHUNK: usize = 64 * 1024;

/// The reading side of the bind hooks.
pub struct Ports {
    failures: SlotTable<FailureRow>,
    expire: Option<OwnedFd>,
    bound: Option<OwnedFd>,
}

impl Ports {
    /// Takes over the maps it reads. `expire_attempts` and `bound` are programs to run when asked.
    pub fn new(
        parts: &mut Parts,
        expire: Option<OwnedFd>,
        bound: Option<OwnedFd>,
    ) -> anyhow::Result<Self> {
        let sockets = parts.take(&maps::BOUND)?;
        let link = |program: OwnedFd| link_to_sockets(program.as_fd(), sockets.as_fd());
        Ok(Self {
            failures: SlotTable::new(parts, &slot_table::BIND_FAILURES)?,
            expire,
            bound: bound.map(link).transpose().context("linking to the bound sockets")?,
        })
    }

    /// Counts binds and connects that said nothing for a second as failed.
    pub fn expire_attempts(&self) -> io::Result<()> {
        let Some(program) = &self.expire else { return Ok(()) };
        for first in (0..BUCKETS).step_by(EXPIRED_AT_ONCE as usize) {
            bpf::run(program.as_fd(), &[first.into()])?;
        }
        Ok(())
    }

    /// Every row of failed binds in use, the two reserved ones first.
    pub fn failures(&mut self, ledger: &Ledger, now_us: u64) -> io::Result<Vec<Claim>> {
        self.failures.rows(ledger, now_us)
    }

    /// Every socket that holds a port, as far as the hooks know; `None` if they do not know.
    pub fn bound(&self) -> io::Result<Option<Vec<BoundRecord>>> {
        let Some(link) = &self.bound else { return Ok(None) };
        let mut bound: Vec<BoundRecord> = records(link.as_fd())?;
        once(&mut bound, |socket| socket.cookie);
        Ok(Some(bound))
    }

    /// How many rows of failed binds there are.
    pub fn capacity(&self) -> u64 {
        u64::from(self.failures.capacity())
    }

    /// Takes a row of failed binds back, one step at a time.
    pub fn reclaim(&mut self, step: &Reclaim<AttemptKey>) -> io::Result<()> {
        self.failures.reclaim(step)
    }
}

/// Links an iterator over sockets: to the map of their storage, or to nothing if it goes through files.
pub fn link_to_sockets(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let goes_through_files = bpf::program_name(program)?.ends_with("_files");
    bpf::link_iterator(program, (!goes_through_files).then_some(map))
}

/// Leaves out what is there already, by the cookie of its socket: an iterator that goes through files
/// meets a socket once for each.
pub fn once<T>(records: &mut Vec<T>, cookie: impl Fn(&T) -> u64) {
    let mut known = HashSet::new();
    records.retain(|record| cookie(record) == 0 || known.insert(cookie(record)));
}

/// What one run of a linked iterator writes.
pub fn records<T: Wire>(link: BorrowedFd<'_>) -> io::Result<Vec<T>> {
    let mut iterator = bpf::open_iterator(link)?;
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; CHUNK]);
    loop {
        match iterator.read(&mut chunk)? {
            0 => break,
            length => bytes.extend_from_slice(chunk.get(..length).unwrap_or_default()),
        }
    }
    Ok(bytes.chunks_exact(size_of::<T>()).filter_map(T::from_bytes).collect())
}
