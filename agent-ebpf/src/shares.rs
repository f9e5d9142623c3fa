//! Shares of tenants in slot tables: counts the slots that each takes; see [`agent_common::share`].

use agent_common::share::{ShareKey, Tenant, limit};
use agent_common::slot_table::TABLES;
use aya_ebpf::bindings::BPF_NOEXIST;

use crate::atomic;
use crate::maps::{self, config};

/// Counts a slot that a tenant is about to take; `false` if it has its share already. The key then
/// says whose share it counts against: that of [`Tenant::OTHERS`] if there is no room for another
/// tenant. A function, because every program that takes slots needs it.
#[inline(never)]
pub fn admit(key: &mut ShareKey) -> bool {
    let table = key.table as usize;
    if table >= TABLES {
        return false;
    }
    let everybody = ShareKey { tenant: Tenant::EVERYBODY, ..*key };
    let Some(all) = maps::taken_slots().get_ptr_mut(&everybody) else { return false };
    if maps::taken_slots().get_ptr(&*key).is_none()
        && maps::taken_slots().insert(&*key, 0, BPF_NOEXIST.into()).is_err()
        && maps::taken_slots().get_ptr(&*key).is_none()
    {
        key.tenant = Tenant::OTHERS;
    }
    let Some(mine) = maps::taken_slots().get_ptr_mut(&*key) else { return false };
    let capacity = u64::from(config!(capacities[table]));
    if in_use(mine, key) >= limit(capacity, in_use(all, &everybody)) {
        return false;
    }
    // SAFETY: valid map values.
    unsafe {
        atomic::add(mine, 1);
        atomic::add(all, 1);
    }
    true
}

/// The slot was not taken after all.
#[inline(never)]
pub fn cancel(key: &ShareKey) {
    let everybody = ShareKey { tenant: Tenant::EVERYBODY, ..*key };
    for key in [key, &everybody] {
        if let Some(taken) = maps::taken_slots().get_ptr_mut(key) {
            // SAFETY: a valid map value.
            unsafe { atomic::add(taken, u64::MAX) };
        }
    }
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
