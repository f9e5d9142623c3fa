//! Reads what the bind hooks counted: failed binds, and the sockets that hold a port.

use std::io::{self, Read as _};
use std::mem::offset_of;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use agent_common::bound::BoundRecord;
use agent_common::claim::{ClaimKey, ClaimRow, FIRST_FREE_CLAIM};
use agent_common::wire::Wire;
use anyhow::Context as _;

use super::bpf::{self, Map, Mapped};
use super::object::Parts;
use agent_common::drained::Claim;

/// Room for one read of an iterator. The kernel pauses the walk when it has filled what the reader
/// offered, or its own buffer of 32 KiB, and finds its place again by counting: a socket that came
/// meanwhile makes it meet another twice, one that went makes it miss one. So leave it no reason.
const CHUNK: usize = 64 * 1024;

/// The reading side of the bind hooks.
pub struct Ports {
    claims: Map<ClaimKey, u32>,
    rows_map: Map<u32, ClaimRow>,
    free: Map<(), u32>,
    rows: Mapped<ClaimRow>,
    settle: Option<OwnedFd>,
    bound: Option<OwnedFd>,
}

impl Ports {
    /// Takes over the maps it reads. `settle` and `bound` are programs to run when asked.
    pub fn new(
        parts: &mut Parts,
        settle: Option<OwnedFd>,
        bound: Option<OwnedFd>,
    ) -> anyhow::Result<Self> {
        let rows_map = Map::new(parts.take("CLAIM_ROWS")?).context("map CLAIM_ROWS")?;
        let attempts = parts.take("ATTEMPTS")?;
        let sockets = parts.take("BOUND")?;
        let link = |program: Option<OwnedFd>, map: BorrowedFd<'_>| {
            let link = program.map(|program| bpf::link_iterator(program.as_fd(), Some(map)));
            link.transpose()
        };
        Ok(Self {
            claims: Map::new(parts.take("CLAIMS")?).context("map CLAIMS")?,
            free: Map::stack(parts.take("CLAIM_FREE")?)?,
            rows: rows_map.mapped().context("CLAIM_ROWS")?,
            rows_map,
            settle: link(settle, attempts.as_fd()).context("linking to the open binds")?,
            bound: link(bound, sockets.as_fd()).context("linking to the bound sockets")?,
        })
    }

    /// Counts binds and connects that said nothing for a second as failed.
    pub fn settle(&self) -> io::Result<()> {
        let Some(link) = &self.settle else { return Ok(()) };
        // The program writes nothing; reading runs it over every bucket.
        bpf::open_iterator(link.as_fd())?.read_to_end(&mut Vec::new()).map(drop)
    }

    /// Every row of claims in use, the two special ones first; none above `reach` was ever taken,
    /// and one that is younger than `until_us` is left for later.
    pub fn claims(&mut self, reach: u64, until_us: u64) -> io::Result<Vec<Claim>> {
        let mut claims = Vec::new();
        for index in self.rows.up_to(reach, FIRST_FREE_CLAIM) {
            let slot = index as u32;
            let born = self.rows.word(index, offset_of!(ClaimRow, born_us))?;
            if (born == 0 && slot >= FIRST_FREE_CLAIM) || born > until_us {
                continue;
            }
            claims.push(Claim { slot, row: self.rows.read(index)? });
        }
        Ok(claims)
    }

    /// Every socket that holds a port, as far as the hooks know; `None` if they cannot tell.
    pub fn bound(&self) -> io::Result<Option<Vec<BoundRecord>>> {
        self.bound.as_ref().map(|link| records(link.as_fd())).transpose()
    }

    /// How many rows of claims there are.
    pub fn capacity(&self) -> u64 {
        u64::from(self.rows_map.max_entries)
    }

    /// First half of giving a row back: new failures no longer find it.
    pub fn forget(&self, key: &ClaimKey) -> io::Result<bool> {
        self.claims.remove(key)
    }

    /// Second half, once nothing moves in it any more: clears the row and offers it again.
    pub fn free(&self, slot: u32) -> io::Result<()> {
        self.rows_map.insert(&slot, &ClaimRow::zeroed())?;
        self.free.push(slot)
    }
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
