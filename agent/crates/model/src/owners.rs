//! Owners: the kernel half's rows of workloads, and which of them are still needed.
//!
//! A row is in use while an edge, a failed bind or a bound socket refers to it. One that has not
//! been for long is taken back ([`super::reclaim`]).

use agent_common::owner::{OWNER_OVERFLOW, OwnerKey, OwnerRow};
use agent_common::share::Tenant;
use agent_common::slot_table::Reclaim;
use hashbrown::{HashMap, HashSet};

use super::reclaim::{Lifecycle, Patience};

/// All owners.
#[derive(Default)]
pub struct Owners {
    rows: HashMap<u32, Owner>,
    taken: u64,
    /// Users whose namespaces are believed as those of root.
    trusted: HashSet<u32>,
}

struct Owner {
    row: OwnerRow,
    lifecycle: Lifecycle,
}

impl Owners {
    /// No rows; namespaces of these users are believed as those of root.
    pub fn trusting(users: impl IntoIterator<Item = u32>) -> Self {
        Self { trusted: users.into_iter().collect(), ..Self::default() }
    }

    /// Takes in a row the kernel half has filled.
    pub fn insert(&mut self, index: u32, row: OwnerRow) {
        self.taken += 1;
        self.rows.insert(index, Owner { row, lifecycle: Lifecycle::default() });
    }

    /// The row with this number; none for the overflow row.
    pub fn row(&self, index: u32) -> Option<&OwnerRow> {
        self.rows.get(&index).map(|owner| &owner.row)
    }

    /// All rows, each with its number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &OwnerRow)> {
        self.rows.iter().map(|(index, owner)| (*index, &owner.row))
    }

    /// Inode of the network namespace of an owner, 0 if it is not known.
    pub fn netns(&self, index: u32) -> u32 {
        self.row(index).map_or(0, |row| row.key.netns)
    }

    /// All network namespaces with an owner.
    pub fn namespaces(&self) -> impl Iterator<Item = u32> {
        self.rows.values().map(|owner| owner.row.key.netns).filter(|netns| *netns != 0)
    }

    /// Rows of a network namespace.
    pub fn in_namespace(&self, netns: u32) -> impl Iterator<Item = u32> {
        let rows = self.rows.iter().filter(move |(_, owner)| owner.row.key.netns == netns);
        rows.map(|(index, _)| *index)
    }

    /// How many rows were ever taken.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Whose share what an owner does counts against.
    pub fn tenant(&self, index: u32) -> Tenant {
        self.row(index).map_or(Tenant::OTHERS, |row| row.tenant)
    }

    /// The user who made the network namespace of an owner and can fake what happens there, if that
    /// is neither root nor trusted.
    pub fn user(&self, index: u32) -> Option<u32> {
        self.user_of(self.row(index)?.tenant)
    }

    /// The same of a tenant.
    pub fn user_of(&self, tenant: Tenant) -> Option<u32> {
        let user = tenant.user()?;
        (user != 0 && !self.trusted.contains(&user)).then_some(user)
    }

    /// Users whose namespaces are believed as those of root.
    pub fn trusted(&self) -> impl Iterator<Item = u32> {
        self.trusted.iter().copied()
    }

    /// Whether this is a known owner in a namespace that no user can have made.
    pub fn is_verified(&self, index: u32) -> bool {
        self.row(index).is_some() && self.user(index).is_none()
    }

    /// Tenants that have filled their share of a table with this many rows.
    pub fn greedy(&self, capacity: u64) -> HashSet<Tenant> {
        let tenants = self.rows.values().map(|owner| owner.row.tenant);
        Patience::of(capacity, tenants).greedy().collect()
    }

    /// Takes in at `now` (seconds, any epoch) which rows are in use; returns what to do with others.
    /// `capacity` is how many there are. Rows of the tenants in `connecting` may be in use without a
    /// trace: by connections that wait for the answer to their SYN, and whose edge has no row.
    pub fn update(
        &mut self,
        now: u64,
        used: &HashSet<u32>,
        capacity: u64,
        connecting: &HashSet<Tenant>,
    ) -> Vec<Reclaim<OwnerKey>> {
        let tenants = self.rows.values().map(|owner| owner.row.tenant);
        let patience = Patience::of(capacity, tenants).but_for(connecting);
        let steps = self.rows.iter_mut().filter_map(|(index, owner)| {
            let in_use = used.contains(index) || *index == OWNER_OVERFLOW;
            let patience = patience.with(owner.row.tenant);
            owner.lifecycle.observe(now, patience, in_use, *index, owner.row.key)
        });
        let reclaim: Vec<_> = steps.collect();
        for step in &reclaim {
            if let Reclaim::Free(index) = step {
                self.rows.remove(index);
            }
        }
        reclaim
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reclaim::{IDLE_SECONDS, IDLE_SECONDS_OF_GREEDY};
    use agent_common::wire::Wire as _;

    const CAPACITY: u64 = 100;

    #[test]
    fn a_row_is_freed_only_after_it_was_idle_twice() {
        let mut owners = Owners::default();
        let row = OwnerRow { tgid: 7, ..OwnerRow::zeroed() };
        owners.insert(3, row);
        let used: HashSet<u32> = [3].into();
        let unused = HashSet::new();
        let none = HashSet::new();
        assert_eq!(owners.update(0, &unused, CAPACITY, &none), []);
        assert_eq!(owners.update(1, &used, CAPACITY, &none), []);
        assert_eq!(owners.update(2, &unused, CAPACITY, &none), []);
        assert_eq!(
            owners.update(2 + IDLE_SECONDS, &unused, CAPACITY, &none),
            [Reclaim::Forget(row.key)]
        );
        // A connection that had found it just before.
        assert_eq!(owners.update(3 + IDLE_SECONDS, &used, CAPACITY, &none), []);
        assert_eq!(owners.update(4 + IDLE_SECONDS, &unused, CAPACITY, &none), [Reclaim::Free(3)]);
        assert!(owners.row(3).is_none());
        assert_eq!(owners.taken(), 1);
    }

    #[test]
    fn owners_of_a_full_table_go_soon_unless_connections_under_way_may_be_theirs() {
        let tenant = Tenant { cgroup: 1, origin: 2 };
        let freed = |connecting: &HashSet<Tenant>| {
            let mut owners = Owners::default();
            for index in 1..1100 {
                owners.insert(index, OwnerRow { tenant, ..OwnerRow::zeroed() });
            }
            let unused = HashSet::new();
            owners.update(0, &unused, 1100, connecting);
            owners.update(IDLE_SECONDS_OF_GREEDY, &unused, 1100, connecting).len()
        };
        assert_eq!(freed(&HashSet::new()), 1099);
        assert_eq!(freed(&HashSet::from([tenant])), 0);
        assert_eq!(freed(&HashSet::from([Tenant::EVERYBODY])), 0);
        assert_eq!(freed(&HashSet::from([Tenant::OTHERS])), 1099);
    }
}
