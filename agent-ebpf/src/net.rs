//! A network namespace as a tenant is known by.

use agent_common::share::{BY_USER, MAX_NESTED};

use crate::maps::config;
use crate::raw_sock::raw;

/// The address of a `struct net`.
#[derive(Clone, Copy)]
pub struct Net(pub u64);

impl Net {
    /// Its inode number.
    #[inline(always)]
    pub fn inode(self) -> u32 {
        raw!(self.0, net_inum: u32)
    }

    /// [`agent_common::share::Tenant::origin`].
    #[inline(always)]
    pub fn origin(self) -> u64 {
        tenant_origin(self.0)
    }
}

/// A global function of numbers: the verifier walks it once per program, not once per call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tenant_origin(net: u64) -> u64 {
    let mut users = raw!(net, net_user_ns: u64);
    let mut level = raw!(users, user_ns_level: u32);
    if level == 0 {
        return u64::from(raw!(net, net_inum: u32));
    }
    let mut i = 0;
    while i < MAX_NESTED && level > 1 {
        users = raw!(users, user_ns_parent: u64);
        level = raw!(users, user_ns_level: u32);
        i += 1;
    }
    BY_USER | u64::from(raw!(users, user_ns_owner: u32))
}
