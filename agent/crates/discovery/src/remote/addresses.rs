//! Which network namespace of this host has which address, seen from another one.
//!
//! An address is believed as far as it reaches ([`Reach`]): root of the host could configure it, or
//! the client's namespace belongs to the same user namespace. Any other address counts only for
//! namespaces from which a connection has arrived there, which the client's note in the kernel half
//! has shown ([`Arrival`]). So nobody becomes the server of other people's connections by putting
//! their address on an interface of a namespace that they made, and nobody's address becomes
//! ambiguous by it.

use agent_common::address::{self, Address};
use hashbrown::{HashMap, HashSet};
use linux::addresses::{Held, Reach};

use super::MAX_ENTRIES;
use crate::addresses::everywhere;

/// What a connection between two services of this host has shown: that packets from one network
/// namespace to an address arrive in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The namespace that they come from.
    pub from: u32,
    /// The address, as both ends know it.
    pub address: Address,
    /// The namespace that they arrive in.
    pub at: u32,
}

/// The only one of several, or none of them.
type Only = Option<u32>;

/// Which namespace has which address.
#[derive(Default)]
pub(super) struct Addresses {
    /// Addresses that everyone can reach.
    of_host: HashMap<Address, Only>,
    /// Addresses that reach no further than a user namespace.
    of_tenants: HashMap<(u64, Address), Only>,
    /// The user namespaces of tenants' network namespaces.
    tenants: HashMap<u32, u64>,
    /// Where connections from a namespace to an address have arrived.
    arrived: HashMap<(u32, Address), Only>,
    own: HashSet<(u32, Address)>,
    dropped: u64,
}

// === impl Addresses ===

impl Addresses {
    /// Addresses of namespaces; what is of the host finds room first.
    pub(super) fn new(addresses: &[Held]) -> Self {
        let is_of_host = |held: &&Held| held.reach == Reach::Host;
        let hosts = addresses.iter().filter(is_of_host).count();
        let others = addresses.iter().filter(|held| !is_of_host(held));
        let kept = addresses.iter().filter(is_of_host).chain(others).take(MAX_ENTRIES);
        let mut made =
            Self { dropped: hosts.saturating_sub(MAX_ENTRIES) as u64, ..Self::default() };
        for &Held { netns, address, reach } in kept {
            made.own.insert((netns, address));
            if let Reach::UserNamespace(tenant) = reach {
                made.tenants.insert(netns, tenant);
            }
            if everywhere(address) {
                continue;
            }
            match reach {
                Reach::Host => add(&mut made.of_host, address, netns),
                Reach::UserNamespace(tenant) => add(&mut made.of_tenants, (tenant, address), netns),
                Reach::Loopback => {}
            }
        }
        made
    }

    /// Connections that arrived, as far as these addresses are still there.
    pub(super) fn set_arrivals(&mut self, arrivals: &[Arrival]) {
        self.arrived.clear();
        for Arrival { from, address, at } in arrivals {
            if self.own.contains(&(*at, *address)) && self.arrived.len() < MAX_ENTRIES {
                add(&mut self.arrived, (*from, *address), *at);
            }
        }
    }

    /// Whether several namespaces have an address, seen from `netns`.
    pub(super) fn is_ambiguous(&self, netns: u32, address: Address) -> bool {
        match self.of_host.get(&address) {
            Some(None) => true,
            Some(Some(_)) => self.tenant(netns, address).is_some(),
            None => false,
        }
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
        if let Some(arrived) = self.arrived.get(&(netns, address)) {
            return *arrived;
        }
        if let Some(tenant) = self.tenant(netns, address) {
            return tenant;
        }
        if self.dropped > 0 {
            return None; // Another namespace may have it too.
        }
        self.of_host.get(&address).copied().flatten()
    }

    /// Whether a network namespace belongs to a user namespace that any user can make.
    pub(super) fn is_tenants(&self, netns: u32) -> bool {
        self.tenants.contains_key(&netns)
    }

    /// Who has an address in the user namespace of `netns`.
    fn tenant(&self, netns: u32, address: Address) -> Option<Only> {
        let tenant = self.tenants.get(&netns)?;
        self.of_tenants.get(&(*tenant, address)).copied()
    }
}

fn add<K: std::hash::Hash + Eq>(namespaces: &mut HashMap<K, Only>, key: K, netns: u32) {
    namespaces
        .entry(key)
        .and_modify(|namespace| *namespace = namespace.filter(|one| *one == netns))
        .or_insert(Some(netns));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const HOST: u32 = 1;
    const POD: u32 = 2;
    const ROOTLESS: u32 = 3;
    const OTHER: u32 = 4;
    const ALICE: u64 = 1500;
    const BOB: u64 = 1600;

    fn ip(text: &str) -> Address {
        address::from_ip(text.parse::<IpAddr>().unwrap())
    }

    fn held(netns: u32, address: &str, reach: Reach) -> Held {
        Held { netns, address: ip(address), reach }
    }

    fn arrival(from: u32, address: &str, at: u32) -> Arrival {
        Arrival { from, address: ip(address), at }
    }

    #[test]
    fn nobody_outside_believes_an_address_that_a_user_or_a_loopback_has() {
        let addresses = Addresses::new(&[
            held(HOST, "10.0.0.5", Reach::Host),
            held(ROOTLESS, "203.0.113.50", Reach::UserNamespace(ALICE)),
            held(ROOTLESS, "10.88.0.1", Reach::UserNamespace(ALICE)),
            held(OTHER, "10.88.0.2", Reach::UserNamespace(ALICE)),
            held(POD, "203.0.113.60", Reach::Loopback),
        ]);
        let check = |from: u32, address: &str, expected: Option<u32>| {
            assert_eq!(addresses.namespace_of(from, ip(address)), expected, "{from} {address}");
        };
        for from in [HOST, POD, 0] {
            check(from, "203.0.113.50", None);
            check(from, "10.88.0.2", None);
            check(from, "10.0.0.5", Some(HOST));
        }
        check(HOST, "203.0.113.60", None);
        check(POD, "203.0.113.60", Some(POD));
        check(ROOTLESS, "203.0.113.50", Some(ROOTLESS));
        check(ROOTLESS, "10.88.0.2", Some(OTHER));
        check(ROOTLESS, "10.0.0.5", Some(HOST));
    }

    #[test]
    fn a_claim_takes_no_name_from_the_holder() {
        let addresses = Addresses::new(&[
            held(POD, "10.0.0.7", Reach::Host),
            held(ROOTLESS, "10.0.0.7", Reach::UserNamespace(ALICE)),
            held(OTHER, "10.0.0.7", Reach::UserNamespace(BOB)),
        ]);
        assert_eq!(addresses.namespace_of(HOST, ip("10.0.0.7")), Some(POD));
        assert!(!addresses.is_ambiguous(HOST, ip("10.0.0.7")));
        // Its own world sees it where it is there.
        assert_eq!(addresses.namespace_of(OTHER, ip("10.0.0.7")), Some(OTHER));
        assert!(addresses.is_ambiguous(OTHER, ip("10.0.0.7")));
    }

    #[test]
    fn a_flood_of_claims_leaves_room_for_the_hosts_addresses() {
        let mut all: Vec<Held> = (0..MAX_ENTRIES as u32 + 10)
            .map(|n| Held {
                netns: ROOTLESS,
                address: address::from_ip(IpAddr::from(n.to_be_bytes())),
                reach: Reach::UserNamespace(ALICE),
            })
            .collect();
        all.push(held(POD, "10.0.0.7", Reach::Host));
        let addresses = Addresses::new(&all);
        assert_eq!(addresses.namespace_of(HOST, ip("10.0.0.7")), Some(POD));
        assert_eq!(addresses.dropped(), 0);
    }

    #[test]
    fn where_a_connection_arrived_is_believed_while_the_address_is_there() {
        let all = [
            held(POD, "10.0.0.7", Reach::Host),
            held(OTHER, "10.0.0.7", Reach::Host),
            held(ROOTLESS, "10.1.0.7", Reach::UserNamespace(ALICE)),
        ];
        let mut addresses = Addresses::new(&all);
        assert_eq!(addresses.namespace_of(HOST, ip("10.0.0.7")), None);
        assert_eq!(addresses.namespace_of(HOST, ip("10.1.0.7")), None);
        let arrivals = [
            arrival(HOST, "10.0.0.7", OTHER),
            arrival(HOST, "10.1.0.7", ROOTLESS),
            // It had the address once.
            arrival(HOST, "10.0.0.7", ROOTLESS),
        ];
        addresses.set_arrivals(&arrivals);
        assert_eq!(addresses.namespace_of(HOST, ip("10.0.0.7")), Some(OTHER));
        assert_eq!(addresses.namespace_of(HOST, ip("10.1.0.7")), Some(ROOTLESS));
        assert_eq!(addresses.namespace_of(0, ip("10.1.0.7")), None);
        addresses.set_arrivals(&[arrivals[0], arrival(HOST, "10.0.0.7", POD)]);
        assert_eq!(addresses.namespace_of(HOST, ip("10.0.0.7")), None, "in two places");
    }
}
