//! Edges: the slot of each, and the counters in it.

use agent_common::address::{Address, INTERNET, UNSPECIFIED};
use agent_common::config::MAX_RANGES;
use agent_common::edge::{EdgeKey, FIRST_FREE_SLOT, HotCounters};
use agent_common::share::Tenant;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;

use crate::maps::{self, config};
use crate::{atomic, owners};

/// The slot of an edge, taken if it has none. Without a free one: the one of all such edges of its
/// tenant, or the overflow slot of the role.
/// `addresses`, the local and the remote one, are asked for only if a slot is taken.
#[inline(always)]
pub fn slot(key: &EdgeKey, addresses: impl FnOnce() -> (Address, Address)) -> u32 {
    let overflow = u32::from(key.role);
    let slot = maps::edges().find_or_take(
        key,
        || owners::tenant(key.owner),
        overflow,
        |row| {
            // SAFETY: a valid map value that no other program holds.
            unsafe { ((*row).local, (*row).remote) = addresses() };
        },
    );
    if slot < FIRST_FREE_SLOT { others(key.owner, overflow) } else { slot }
}

/// The slot of all edges of an owner's tenant that found none.
///
/// A global function of numbers: the verifier walks it once per program, not once per call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn others(owner: u32, role: u32) -> u32 {
    let tenant = owners::tenant(owner);
    if tenant.cgroup == 0 && tenant.origin == 0 {
        return role;
    }
    let key = EdgeKey::others_of(tenant, role as u8);
    maps::edges().find_or_take_others(&key, tenant, role, |row| {
        // SAFETY: a valid map value that no other program holds.
        unsafe { ((*row).local, (*row).remote) = (UNSPECIFIED, UNSPECIFIED) };
    })
}

/// A client's address as a server's edge keeps it: itself inside the internal ranges, else
/// [`INTERNET`].
#[inline(always)]
pub fn client_address(address: Address) -> Address {
    let count = config!(range_count) as usize;
    let mut i = 0;
    while i < MAX_RANGES && i < count {
        if config!(ranges[i]).contains(&address) {
            return address;
        }
        i += 1;
    }
    INTERNET
}

/// Whose share a slot counts against.
#[inline(always)]
pub fn tenant(slot: u32) -> Tenant {
    // SAFETY: a valid map value; a row's tenant stays as long as somebody has its number.
    maps::edges().rows.get_ptr(slot).map_or(Tenant::OTHERS, |row| unsafe { (*row).tenant })
}

/// The counters of a slot on this CPU's shard.
#[inline(always)]
pub fn counters(slot: u32) -> Option<*mut HotCounters> {
    maps::counters(slot.wrapping_mul(config!(shards)).wrapping_add(shard()))
}

/// The counters of a slot on the first shard, for what is rare.
#[inline(always)]
pub fn first_counters(slot: u32) -> Option<*mut HotCounters> {
    maps::counters(slot.wrapping_mul(config!(shards)))
}

/// The shard of this CPU.
#[inline(always)]
pub fn shard() -> u32 {
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    cpu & config!(shards).wrapping_sub(1)
}

/// Adds `value` to the counter `offset` bytes into a slot's counters; use [`count!`].
#[inline(always)]
pub fn add(slot: u32, offset: usize, value: u64) {
    if let Some(counters) = counters(slot) {
        // SAFETY: a valid map value; the verifier checks the offset.
        unsafe { atomic::add(counters.cast::<u8>().add(offset).cast(), value) };
    }
}

/// Adds to a counter of a slot: `count!(slot, field[index], value)`.
macro_rules! count {
    ($slot:expr, $field:ident $([$index:expr])?, $value:expr) => {
        $crate::edges::add(
            $slot,
            core::mem::offset_of!(agent_common::edge::HotCounters, $field) $(+ $index as usize * 8)?,
            $value,
        )
    };
}
pub(crate) use count;
