//! Shares of tenants in slot tables: counts the slots that each takes; see [`agent_common::share`].

use agent_common::share::{ShareKey, Tenant, limit};
use agent_common::slot_table::SHARED;
use aya_ebpf::bindings::BPF_NOEXIST;

use crate::atomic;
use crate::maps::{self, config};

/// Counts a slot that a tenant is about to take; `None` if it has its share already. Returns whose
/// share it counts against: that of [`Tenant::OTHERS`] if there is no room for another tenant.
#[inline(always)]
pub fn admit(tenant: Tenant, table: usize) -> Option<Tenant> {
    taken(tenant, take_share(tenant.cgroup, tenant.origin, table as u32, 0))
}

/// As [`admit`], for a slot that stands for what the tenant takes beyond its share: one for each role,
/// so it needs no limit.
#[inline(always)]
pub fn admit_others(tenant: Tenant, table: usize) -> Option<Tenant> {
    taken(tenant, take_share(tenant.cgroup, tenant.origin, table as u32, 1))
}

#[inline(always)]
fn taken(tenant: Tenant, whose: u32) -> Option<Tenant> {
    match whose {
        ITS_OWN => Some(tenant),
        OF_OTHERS => Some(Tenant::OTHERS),
        _ => None,
    }
}

/// The slot was not taken after all.
#[inline(always)]
pub fn cancel(tenant: Tenant, table: usize) {
    return_share(tenant.cgroup, tenant.origin, table as u32);
}

/// Nothing taken yet.
static ZERO: u64 = 0;

const NONE: u32 = 0;
const ITS_OWN: u32 = 1;
const OF_OTHERS: u32 = 2;

/// A global function of numbers: the verifier walks it once per program, not once per call.
#[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would take stack")]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_share(cgroup: u64, origin: u64, table: u32, without_limit: u32) -> u32 {
    if table as usize >= SHARED {
        return NONE;
    }
    // One key for all lookups: the stack is shared with the programs that call.
    let mut key = ShareKey { tenant: Tenant::EVERYBODY, table, zero: 0 };
    let mut whose = ITS_OWN;
    let Some(all) = maps::taken_slots().get_ptr_mut(&key) else { return NONE };
    let used = in_use(all, &key);
    key.tenant = Tenant { cgroup, origin };
    if maps::taken_slots().get_ptr(&key).is_none()
        && maps::taken_slots().insert(&key, &ZERO, BPF_NOEXIST.into()).is_err()
        && maps::taken_slots().get_ptr(&key).is_none()
    {
        key.tenant = Tenant::OTHERS;
        whose = OF_OTHERS;
    }
    let Some(mine) = maps::taken_slots().get_ptr_mut(&key) else { return NONE };
    let capacity = u64::from(config!(capacities[table as usize]));
    if without_limit == 0 && in_use(mine, &key) >= limit(capacity, used) {
        return NONE;
    }
    // SAFETY: valid map values.
    unsafe {
        atomic::add(mine, 1);
        atomic::add(all, 1);
    }
    whose
}

/// As [`take_share`].
#[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would take stack")]
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn return_share(cgroup: u64, origin: u64, table: u32) -> u32 {
    let mut key = ShareKey { tenant: Tenant { cgroup, origin }, table, zero: 0 };
    let mine = maps::taken_slots().get_ptr_mut(&key);
    key.tenant = Tenant::EVERYBODY;
    let all = maps::taken_slots().get_ptr_mut(&key);
    if let (Some(mine), Some(all)) = (mine, all) {
        // SAFETY: valid map values.
        unsafe {
            atomic::add(mine, u64::MAX);
            atomic::add(all, u64::MAX);
        }
    }
    0
}

/// Slots taken and not given back. An entry that user space had removed meanwhile lacks what was
/// taken before.
#[inline(always)]
fn in_use(taken: *const u64, key: &ShareKey) -> u64 {
    // SAFETY: valid map values.
    unsafe {
        let freed = maps::freed_slots().get_ptr(key).map_or(0, |freed| *freed);
        (*taken).saturating_sub(freed)
    }
}
