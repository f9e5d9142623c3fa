//! Refuses ports that are reserved for another service; see [`agent_common::enforced`].

use agent_common::enforced::{EnforcedPort, VerdictKey, is_denied};
use agent_common::owner::{OWNER_OVERFLOW, OwnerKey};

use crate::maps;

/// Whether the owner in a row may not have a port. Who found no row is let in. A function, because its
/// keys take room on the stack.
#[inline(never)]
pub fn refuses(owner: u32, port: EnforcedPort) -> bool {
    let Some(enforced) = maps::enforced(&port) else { return false };
    if owner == OWNER_OVERFLOW {
        return false;
    }
    let Some(row) = maps::owners().rows.get_ptr(owner) else { return false };
    // One key for both questions: there is little room on the stack.
    // SAFETY: a valid map value; a row's key does not change while a bind of its owner is under
    // way.
    let mut key = VerdictKey { owner: unsafe { (*row).key }, port };
    if key.owner.is_others() {
        return false;
    }
    let comm = key.owner.comm;
    let exact = maps::verdict(&key);
    key.owner = OwnerKey { netns: 0, app: 0, cgroup: key.owner.cgroup, comm: [0; 16] };
    let of_cgroup = maps::verdict(&key);
    // SAFETY: a valid map value; it is replaced whole.
    is_denied(unsafe { &*enforced }, &comm, exact, of_cgroup)
}
