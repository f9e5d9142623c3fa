//! Which network namespace of this host has which address.

use agent_common::address::{self, Address};
use hashbrown::{HashMap, HashSet};

use super::MAX_ENTRIES;
use crate::addresses::everywhere;

/// Which namespace has which address.
#[derive(Default)]
pub(super) struct Addresses {
    /// Address → the namespace that has it; `None` if several do.
    namespaces: HashMap<Address, Option<u32>>,
    own: HashSet<(u32, Address)>,
    dropped: u64,
}

// === impl Addresses ===

impl Addresses {
    /// Pairs of a namespace and an address of it.
    pub(super) fn new(addresses: &[(u32, Address)]) -> Self {
        let kept = addresses.get(..MAX_ENTRIES).unwrap_or(addresses);
        let dropped = (addresses.len() - kept.len()) as u64;
        let mut namespaces: HashMap<Address, Option<u32>> = HashMap::new();
        for &(netns, address) in kept.iter().filter(|(_, address)| !everywhere(*address)) {
            namespaces
                .entry(address)
                .and_modify(|namespace| *namespace = namespace.filter(|one| *one == netns))
                .or_insert(Some(netns));
        }
        Self { namespaces, own: kept.iter().copied().collect(), dropped }
    }

    /// Whether several namespaces have an address.
    pub(super) fn is_ambiguous(&self, address: Address) -> bool {
        self.namespaces.get(&address).is_some_and(Option::is_none)
    }

    /// Addresses that did not fit.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The namespace of this host that `address` belongs to, seen from `netns`, if there is exactly
    /// one.
    pub(super) fn namespace_of(&self, netns: u32, address: Address) -> Option<u32> {
        if address::to_ip(address).is_loopback() || self.own.contains(&(netns, address)) {
            return Some(netns);
        }
        if self.dropped > 0 {
            return None; // Another namespace may have it too.
        }
        self.namespaces.get(&address).copied().flatten()
    }
}
