//! Shares of tenants in slot tables: forgets tenants that have no slot left. What is counted and by
//! whom: [`agent_common::share`].

use std::io;

use agent_common::share::{ShareKey, Tenant};

use super::bpf::Map;
use super::maps;
use super::object::Parts;

/// How often tenants are looked through, nanoseconds.
const EVERY_NS: u64 = 60_000_000_000;

/// The counts of slots taken and given back.
pub struct Shares {
    taken: Map<ShareKey, u64>,
    freed: Map<ShareKey, u64>,
    looked_ns: u64,
}

impl Shares {
    /// Takes over the maps.
    pub fn new(parts: &mut Parts) -> anyhow::Result<Self> {
        let (taken, freed) = (parts.map(&maps::TAKEN_SLOTS)?, parts.map(&maps::FREED_SLOTS)?);
        Ok(Self { taken, freed, looked_ns: 0 })
    }

    /// Once a minute removes the entries of tenants without a slot. One that comes back meanwhile
    /// may be counted one slot too few.
    pub fn forget_empty(&mut self, now_ns: u64) -> io::Result<()> {
        if now_ns.saturating_sub(self.looked_ns) < EVERY_NS {
            return Ok(());
        }
        self.looked_ns = now_ns;
        let mut empty = Vec::new();
        let mut before = None;
        // As many steps as there are entries: a hook may remove none, but may add some.
        for _ in 0..self.taken.max_entries {
            let Some(share) = self.taken.next_key(before.as_ref())? else { break };
            before = Some(share);
            if matches!(share.tenant, Tenant::EVERYBODY | Tenant::OTHERS) {
                continue;
            }
            let taken = self.taken.lookup(&share)?.unwrap_or(0);
            if taken == self.freed.lookup(&share)?.unwrap_or(0) {
                empty.push(share);
            }
        }
        for share in empty {
            // In this order: a hook in between takes the tenant for a new one.
            self.taken.remove(&share)?;
            self.freed.remove(&share)?;
        }
        Ok(())
    }
}
