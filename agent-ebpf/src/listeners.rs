//! Listeners: the row of each, and the counts in it.

use agent_common::address::Address;
use agent_common::listener::{LISTENER_OVERFLOW, ListenerKey};

use crate::atomic;
use crate::{maps, owners};

/// The row of a listener, taken if it has none; that of all others without a free one.
#[inline(always)]
pub fn slot(owner: u32, port: u16, address: Address) -> u32 {
    let key = ListenerKey { owner, port, zero: 0, address };
    maps::listeners().find_or_take(&key, || owners::tenant(owner), LISTENER_OVERFLOW, |_| {})
}

/// Adds `value` to the counter `offset` bytes into a row; use [`count!`].
#[inline(always)]
pub fn add(slot: u32, offset: usize, value: u64) {
    if let Some(row) = maps::listeners().rows.get_ptr_mut(slot) {
        // SAFETY: a valid map value; the verifier checks the offset.
        unsafe { atomic::add(row.cast::<u8>().add(offset).cast(), value) };
    }
}

/// Adds to a counter of a listener's row: `count!(slot, field[index], value)`.
macro_rules! count {
    ($slot:expr, $field:ident $([$index:expr])?, $value:expr) => {
        $crate::listeners::add(
            $slot,
            core::mem::offset_of!(agent_common::listener::ListenerRow, $field) $(+ $index as usize * 8)?,
            $value,
        )
    };
}
pub(crate) use count;
