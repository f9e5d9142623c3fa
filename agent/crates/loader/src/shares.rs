//! Shares of tenants in slot tables: forgets tenants that have no slot left, and shows the kernel half
//! the cgroups in which a user could make tenants. What is counted and by whom:
//! [`agent_common::share`].

use std::io;

use agent_common::share::{DELEGATED, ShareKey, Tenant};
use anyhow::Context as _;
use hashbrown::HashMap;

use super::bpf::Map;
use super::maps;
use super::object::Parts;

/// How often tenants are looked through, nanoseconds.
const EVERY_NS: u64 = 60_000_000_000;

/// How many slots of a table tenants have given back.
pub struct Freed {
    counts: Map<ShareKey, u64>,
    table: u32,
}

/// The counts of slots taken and given back.
pub struct Shares {
    taken: Map<ShareKey, u64>,
    freed: Map<ShareKey, u64>,
    delegated: Map<u64, u32>,
    looked_ns: u64,
}

/// Counts the slots of a new table: none are taken.
pub fn fill(parts: &Parts, table: usize) -> anyhow::Result<()> {
    let taken = Map::<ShareKey, u64>::new(parts.get(&maps::TAKEN_SLOTS)?.try_clone()?)?;
    for tenant in [Tenant::EVERYBODY, Tenant::OTHERS] {
        let share = ShareKey { tenant, table: table as u32, zero: 0 };
        taken.insert(&share, &0).context("counting the slots of tenants")?;
    }
    Ok(())
}

// === impl Freed ===

impl Freed {
    /// Takes over the map.
    pub fn new(parts: &Parts, table: usize) -> anyhow::Result<Self> {
        let counts = Map::new(parts.get(&maps::FREED_SLOTS)?.try_clone()?)?;
        Ok(Self { counts, table: table as u32 })
    }

    /// A tenant has so many slots less, and so have all together.
    pub fn count(&self, tenant: Tenant, more: u64) -> io::Result<()> {
        if more == 0 {
            return Ok(());
        }
        for tenant in [tenant, Tenant::EVERYBODY] {
            let share = ShareKey { tenant, table: self.table, zero: 0 };
            let freed = self.counts.lookup(&share)?.unwrap_or(0);
            self.counts.insert(&share, &freed.wrapping_add(more))?;
        }
        Ok(())
    }
}

// === impl Shares ===

impl Shares {
    /// Takes over the maps.
    pub fn new(parts: &mut Parts) -> anyhow::Result<Self> {
        let (taken, freed) = (parts.map(&maps::TAKEN_SLOTS)?, parts.map(&maps::FREED_SLOTS)?);
        let delegated = parts.map(&maps::DELEGATED)?;
        Ok(Self { taken, freed, delegated, looked_ns: 0 })
    }

    /// Takes in which cgroups at the first level are a user's, by id and user; at most
    /// [`DELEGATED`] of them.
    pub fn set_delegated(&self, cgroups: &HashMap<u64, u32>) -> io::Result<()> {
        let mut known = Vec::new();
        let mut before = None;
        for _ in 0..=self.delegated.max_entries {
            let Some(cgroup) = self.delegated.next_key(before.as_ref())? else { break };
            before = Some(cgroup);
            known.push(cgroup);
        }
        for gone in known.iter().filter(|cgroup| !cgroups.contains_key(*cgroup)) {
            self.delegated.remove(gone)?;
        }
        for (cgroup, user) in cgroups.iter().take(DELEGATED) {
            self.delegated.insert(cgroup, user)?;
        }
        Ok(())
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
