//! Slot tables, the hooks' half: find a slot, or take one and publish its row. The life of a row
//! and what user space does with it: [`agent_common::slot_table`].

use agent_common::ledger::{MAP_ERROR, OVER_SHARE};
use agent_common::share::Tenant;
use agent_common::slot_table::SlotRow;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_NOEXIST};
use aya_ebpf::btf_maps::{Array, HashMap, Stack};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;

use crate::maps::{lost, seen, taken};
use crate::shares;

/// Key → slot.
pub type Index<R, const SLOTS: usize> = HashMap<<R as SlotRow>::Key, u32, SLOTS>;
/// Slot → row, mapped into user space.
pub type Rows<R, const SLOTS: usize> = Array<R, SLOTS, { BPF_F_MMAPABLE as usize }>;
/// Free slots.
pub type Free<const SLOTS: usize> = Stack<u32, SLOTS>;

/// The maps of a slot table.
pub struct SlotTable<R: SlotRow, const SLOTS: usize> {
    /// Written by hooks (new key) and user space (key forgotten).
    pub index: &'static Index<R, SLOTS>,
    /// Written by hooks, cleared by user space.
    pub rows: &'static Rows<R, SLOTS>,
    /// Filled by user space, taken by hooks.
    pub free: &'static Free<SLOTS>,
}

impl<R: SlotRow, const SLOTS: usize> SlotTable<R, SLOTS> {
    /// The slot of a key, if it has one.
    #[inline(always)]
    pub fn find(&self, key: &R::Key) -> Option<u32> {
        // SAFETY: a valid map value.
        self.index.get_ptr(key).map(|slot| unsafe { *slot })
    }

    /// The slot of a key, taken if it has none; `overflow`, one of the reserved slots, without a
    /// free one. See [`Self::take`].
    #[inline(always)]
    pub fn find_or_take(
        &self,
        key: &R::Key,
        tenant: impl FnOnce() -> Tenant,
        overflow: u32,
        fill: impl FnOnce(*mut R),
    ) -> u32 {
        match self.find(key) {
            Some(slot) => slot,
            None => self.take(key, tenant, overflow, fill),
        }
    }

    /// Takes a slot for a key that was not found, unless its tenant has its share. `fill` is called
    /// only if there is one, and writes what the row says beside its key and tenant; a row may hold
    /// what its last owner left.
    #[inline(always)]
    pub fn take(
        &self,
        key: &R::Key,
        tenant: impl FnOnce() -> Tenant,
        overflow: u32,
        fill: impl FnOnce(*mut R),
    ) -> u32 {
        if let Some((class, _)) = R::LEDGER {
            seen(class);
        }
        let Some(tenant) = shares::admit(tenant(), R::TABLE) else {
            count_lost::<R>(OVER_SHARE);
            return overflow;
        };
        let Ok(Some(slot)) = self.free.pop() else {
            shares::cancel(tenant, R::TABLE);
            count_full::<R>();
            return overflow;
        };
        self.publish(key, slot, tenant, overflow, fill)
    }

    /// The slot of what a tenant takes beyond its share, `key`; `overflow` without a free one.
    #[inline(always)]
    pub fn find_or_take_others(
        &self,
        key: &R::Key,
        tenant: Tenant,
        overflow: u32,
        fill: impl FnOnce(*mut R),
    ) -> u32 {
        if let Some(slot) = self.find(key) {
            return slot;
        }
        let Some(tenant) = shares::admit_others(tenant, R::TABLE) else { return overflow };
        let Ok(Some(slot)) = self.free.pop() else {
            shares::cancel(tenant, R::TABLE);
            return overflow;
        };
        if let Some((class, _)) = R::LEDGER {
            seen(class);
        }
        self.publish(key, slot, tenant, overflow, fill)
    }

    /// Writes the row of a slot that was taken from the stack, and offers it to hooks.
    #[inline(always)]
    fn publish(
        &self,
        key: &R::Key,
        slot: u32,
        tenant: Tenant,
        overflow: u32,
        fill: impl FnOnce(*mut R),
    ) -> u32 {
        taken(R::TABLE, slot);
        let Some(row) = self.rows.get_ptr_mut(slot) else {
            count_lost::<R>(MAP_ERROR);
            return overflow;
        };
        // SAFETY: a valid map value that no other program holds: the slot was just taken from the
        // stack. The key is the row's first field.
        #[expect(clippy::cast_ptr_alignment, reason = "a field of a row is aligned")]
        unsafe {
            row.cast::<R::Key>().write(*key);
            row.cast::<u8>().add(R::TENANT).cast::<Tenant>().write(tenant);
        }
        fill(row);
        if self.index.insert(key, slot, BPF_NOEXIST.into()).is_err() {
            // Another CPU was faster, or the index is full (it has as many entries as there are
            // rows).
            let _ = self.free.push(slot, 0);
            shares::cancel(tenant, R::TABLE);
            if let Some(slot) = self.find(key) {
                // This is not a new key after all.
                count_lost::<R>(MAP_ERROR);
                return slot;
            }
            count_full::<R>();
            return overflow;
        }
        // SAFETY: as above; `born_us` lies in the row, aligned. Written last, it publishes the row.
        #[expect(clippy::cast_ptr_alignment, reason = "a u64 field of a row is aligned")]
        unsafe {
            let born_us = row.cast::<u8>().add(R::BORN_US).cast::<u64>();
            core::ptr::write_volatile(born_us, bpf_ktime_get_ns() / 1000);
        }
        slot
    }
}

#[inline(always)]
fn count_full<R: SlotRow>() {
    if let Some((class, full)) = R::LEDGER {
        lost(class, full);
    }
}

#[inline(always)]
fn count_lost<R: SlotRow>(reason: usize) {
    if let Some((class, _)) = R::LEDGER {
        lost(class, reason);
    }
}
