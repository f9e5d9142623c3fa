//! Shares: how much of a table one tenant may take, so that no tenant takes the room of others.
//!
//! A tenant cannot multiply itself: it is the processes below one of the upper cgroups, which
//! systemd and container runtimes make, in one network namespace. All namespaces below a user
//! namespace count as one, that of the user who made it: any user can make those.
//!
//! A table has room for everybody until three quarters of it are taken. From then on a tenant who
//! has more than an eighth finds no slot, as if the table were full, and near the end one who has
//! more than a thirty-second part. The kernel half counts slots taken, user space those given back.

/// In [`Tenant::origin`]: the rest is the number of a user, not of a network namespace.
pub const BY_USER: u64 = 1 << 63;

/// Nested user namespaces at most (`create_user_ns`, kernel/user_namespace.c).
pub const MAX_NESTED: u32 = 33;

/// Which cgroup of a process' path stands for its tenant: `system.slice/nginx.service`,
/// `user.slice/user-1000.slice`, `docker/ID`. The one above if root has given that to a user, who makes
/// any number of cgroups in it.
pub const CGROUP_LEVEL: i32 = 2;

/// Cgroups above [`CGROUP_LEVEL`] that are known to be a user's, at most.
pub const DELEGATED: usize = 256;

/// Tables with fewer slots are not shared out.
const FEW: u64 = 1000;

crate::wire! {
    /// Who takes slots.
    pub struct Tenant: 16 {
        /// The cgroup v2 id of the ancestor at [`CGROUP_LEVEL`], or the one above; 0 if no task was
        /// involved.
        pub cgroup: u64,
        /// Inode number of the network namespace; of one below a user namespace [`BY_USER`] and the
        /// user who made that one.
        pub origin: u64,
    }

    /// Whose slots of which table are counted.
    pub struct ShareKey: 24 {
        /// Who has taken them.
        pub tenant: Tenant,
        /// The number of the slot table, or [`crate::slot_table::HISTOGRAMS`].
        pub table: u32,
        /// Always zero.
        pub zero: u32,
    }
}

impl Tenant {
    /// Tenants without an entry of their own, and rows without an owner.
    pub const OTHERS: Self = Self { cgroup: 0, origin: 0 };
    /// All tenants together.
    pub const EVERYBODY: Self = Self { cgroup: u64::MAX, origin: u64::MAX };

    /// Whether a user has made the network namespace, in a user namespace.
    #[must_use]
    pub const fn is_users(self) -> bool {
        self.origin & BY_USER != 0
    }

    /// That user.
    #[must_use]
    pub const fn user(self) -> Option<u32> {
        // Numbers of users have 32 bits.
        if self.is_users() { Some(self.origin as u32) } else { None }
    }
}

/// How many slots of a table a tenant may have, when `used` of `capacity` are taken.
#[inline(always)]
pub const fn limit(capacity: u64, used: u64) -> u64 {
    if capacity < FEW || used < capacity / 4 * 3 {
        u64::MAX
    } else if used < capacity / 8 * 7 {
        capacity / 8
    } else {
        capacity / 32
    }
}

/// Whether a tenant has so much of a nearly full table that its idle rows should go first. Begins
/// a little before [`limit`] does.
#[must_use]
pub const fn is_greedy(capacity: u64, used: u64, mine: u64) -> bool {
    capacity >= FEW && used >= capacity / 8 * 5 && mine > capacity / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_leaves_a_quarter_and_many_leave_some() {
        // Tenants come one after the other, each takes what it can get.
        let capacity = 8192;
        let mut used = 0;
        let mut had = [0u64; 5];
        for mine in &mut had {
            while used < capacity && *mine < limit(capacity, used) {
                *mine += 1;
                used += 1;
            }
        }
        assert_eq!(had, [6144, 1024, 256, 256, 256]);
    }

    #[test]
    fn small_tables_are_not_shared_out() {
        assert_eq!(limit(512, 511), u64::MAX);
        assert!(!is_greedy(512, 511, 511));
    }

    #[test]
    fn who_has_much_of_a_nearly_full_table_is_greedy() {
        assert!(is_greedy(8192, 6000, 5000));
        assert!(!is_greedy(8192, 6000, 900), "others have it");
        assert!(!is_greedy(8192, 5000, 5000), "there is room");
    }
}
