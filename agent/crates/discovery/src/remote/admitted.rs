//! Peers that are named by their address or by a name from DNS: a limited number, of which one
//! tenant cannot take the room of others.

use std::net::IpAddr;

use agent_common::address::{self, Address};
use agent_common::share::{self, Tenant};
use hashbrown::HashMap;

/// Clients of one network are at most one in this many of all peers.
const OF_NETWORK: u64 = 4;

/// The peers. One without an edge in the last round makes room.
pub(super) struct Admitted {
    peers: HashMap<Address, Peer>,
    /// How many of them each tenant has brought in.
    shares: HashMap<Tenant, u64>,
    /// How many clients of servers are of each [`network`].
    networks: HashMap<u64, u64>,
    most: usize,
}

struct Peer {
    /// The round in which it was last used.
    needed: u64,
    tenant: Tenant,
    network: Option<u64>,
}

/// The network of a remote host that has as many addresses as it likes: the /64 of an IPv6 address.
pub(super) fn network(remote: Address) -> Option<u64> {
    let IpAddr::V6(v6) = address::to_ip(remote) else { return None };
    Some((v6.to_bits() >> 64) as u64)
}

// === impl Admitted ===

impl Admitted {
    /// None yet, and `most` at most.
    pub(super) fn new(most: usize) -> Self {
        let peers = HashMap::new();
        Self { peers, shares: HashMap::new(), networks: HashMap::new(), most }
    }

    /// Peers without an edge in the round before this one make room.
    pub(super) fn begin(&mut self, round: u64) {
        let Self { peers, shares, networks, .. } = self;
        peers.retain(|_, peer| peer.needed + 1 >= round);
        shares.clear();
        networks.clear();
        for Peer { tenant, network, .. } in peers.values() {
            *shares.entry(*tenant).or_default() += 1;
            if let Some(network) = network {
                *networks.entry(*network).or_default() += 1;
            }
        }
    }

    /// Whether a peer that a tenant talks to may be a name of its own. `network` is that of a client.
    pub(super) fn admit(
        &mut self,
        remote: Address,
        tenant: Tenant,
        network: Option<u64>,
        round: u64,
    ) -> bool {
        if let Some(peer) = self.peers.get_mut(&remote) {
            peer.needed = round;
            return true;
        }
        let (used, most) = (self.peers.len() as u64, self.most as u64);
        let mine = self.shares.get(&tenant).copied().unwrap_or_default();
        let of_network = network.and_then(|network| self.networks.get(&network));
        let has_network_its_share = of_network.is_some_and(|count| *count >= most / OF_NETWORK);
        if used >= most || mine >= share::limit(most, used) || has_network_its_share {
            return false;
        }
        self.peers.insert(remote, Peer { needed: round, tenant, network });
        *self.shares.entry(tenant).or_default() += 1;
        if let Some(network) = network {
            *self.networks.entry(network).or_default() += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        address::from_ip(text.parse::<IpAddr>().expect("an address"))
    }

    fn number(n: u32) -> Address {
        address::from_v4(n.to_be())
    }

    #[test]
    fn who_talks_to_every_address_leaves_others_theirs() {
        let mut admitted = Admitted::new(4096);
        let [flooder, other] = [1, 2].map(|origin| Tenant { cgroup: 7, origin });
        let taken = (0..100_000).filter(|n| admitted.admit(number(*n), flooder, None, 1)).count();
        assert_eq!(taken, 3072);
        for n in 0..100 {
            assert!(admitted.admit(number(1_000_000 + n), other, None, 1), "{n}");
        }
        // Rounds later only what is used is there.
        admitted.begin(2);
        assert!(admitted.admit(number(1_000_000), other, None, 2));
        admitted.begin(3);
        assert_eq!(admitted.peers.len(), 1);
        assert_eq!(admitted.shares, HashMap::from([(other, 1)]));
    }

    #[test]
    fn a_remote_host_with_a_64_of_addresses_leaves_other_clients_of_the_server_theirs() {
        let mut admitted = Admitted::new(4096);
        let server = Tenant { cgroup: 7, origin: 1 };
        let mut admit = |text: &str| {
            let remote = ip(text);
            admitted.admit(remote, server, network(remote), 1)
        };
        let taken = (0..5000).filter(|n| admit(&format!("fd77::{n:x}"))).count();
        assert_eq!(taken, 1024);
        assert!(admit("fd77:0:0:1::1") && admit("10.0.0.1") && admit("fd77::1"));
        assert!(!admit("fd77::ffff"));
    }
}
