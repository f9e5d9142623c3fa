//! Networks and what they stand for: the longest prefix that holds an address wins.

use std::net::IpAddr;

use ipnet::IpNet;

/// A binary trie per address family. A lookup walks at most one node per bit of the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixes<T> {
    v4: Trie<T>,
    v6: Trie<T>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Trie<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node<T> {
    /// Index of the node for the next bit 0 and 1; 0 = none, since nothing leads to the root.
    next: [usize; 2],
    value: Option<T>,
}

// === impl Prefixes ===

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { v4: Trie::default(), v6: Trie::default() }
    }
}

impl<T> Prefixes<T> {
    /// Adds a network; returns what the very same network stood for before.
    pub fn insert(&mut self, network: IpNet, value: T) -> Option<T> {
        let bits = Bits::of(network.network(), network.prefix_len());
        self.trie_mut(network.network()).insert(bits, value)
    }

    /// What this very network stands for.
    pub fn exactly(&self, network: IpNet) -> Option<&T> {
        let bits = Bits::of(network.network(), network.prefix_len());
        self.trie(network.network()).walk(bits).last().and_then(|(depth, value)| {
            (depth == usize::from(network.prefix_len())).then_some(value)
        })
    }

    /// What the longest prefix that holds `address` stands for.
    pub fn find(&self, address: IpAddr) -> Option<&T> {
        let address = address.to_canonical();
        let bits = Bits::of(address, u8::MAX);
        self.trie(address).walk(bits).last().map(|(_, value)| value)
    }

    fn trie(&self, address: IpAddr) -> &Trie<T> {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    fn trie_mut(&mut self, address: IpAddr) -> &mut Trie<T> {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

// === impl Trie ===

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { nodes: vec![Node { next: [0, 0], value: None }] }
    }
}

impl<T> Trie<T> {
    fn insert(&mut self, bits: Bits, value: T) -> Option<T> {
        let mut at = 0;
        for bit in bits {
            let after = self.nodes.len();
            let Some(next) = self.nodes.get_mut(at).and_then(|node| node.next.get_mut(bit)) else {
                return None; // Every index in `next` is one of a node.
            };
            if *next == 0 {
                *next = after;
                at = after;
                self.nodes.push(Node { next: [0, 0], value: None });
            } else {
                at = *next;
            }
        }
        self.nodes.get_mut(at).and_then(|node| node.value.replace(value))
    }

    /// The values on the way along `bits`, each with its depth.
    fn walk(&self, bits: Bits) -> impl Iterator<Item = (usize, &T)> {
        let mut bits = bits;
        let mut node = self.nodes.first();
        let path = std::iter::from_fn(move || {
            let here = node?;
            node = bits
                .next()
                .and_then(|bit| here.next.get(bit))
                .filter(|next| **next != 0)
                .and_then(|next| self.nodes.get(*next));
            Some(here)
        });
        path.enumerate().filter_map(|(depth, node)| Some((depth, node.value.as_ref()?)))
    }
}

/// The leading bits of an address.
struct Bits {
    rest: u128,
    left: u8,
}

// === impl Bits ===

impl Bits {
    fn of(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(v4) => Self { rest: u128::from(v4.to_bits()) << 96, left: length.min(32) },
            IpAddr::V6(v6) => Self { rest: v6.to_bits(), left: length.min(128) },
        }
    }
}

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let bit = usize::from(self.rest >> 127 == 1);
        self.rest <<= 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut prefixes = Prefixes::default();
        for (text, value) in [
            ("0.0.0.0/0", "any"),
            ("172.20.0.0/14", "wide"),
            ("172.22.0.0/16", "database"),
            ("172.22.7.1/32", "one"),
            ("fd00::/8", "private"),
        ] {
            assert_eq!(prefixes.insert(network(text), value), None);
        }
        let check = |address: &str, expected: Option<&&str>| {
            assert_eq!(prefixes.find(address.parse().expect("an address")), expected, "{address}");
        };
        check("8.8.8.8", Some(&"any"));
        check("172.21.0.1", Some(&"wide"));
        check("172.22.0.1", Some(&"database"));
        check("172.22.7.1", Some(&"one"));
        check("::ffff:172.22.7.1", Some(&"one"));
        check("fd12::1", Some(&"private"));
        check("2001:db8::1", None);
        assert_eq!(prefixes.exactly(network("172.20.0.0/14")), Some(&"wide"));
        assert_eq!(prefixes.exactly(network("172.20.0.0/15")), None);
        assert_eq!(prefixes.insert(network("0.0.0.0/0"), "other"), Some("any"));
    }

    fn any_network() -> impl Strategy<Value = IpNet> {
        // Few distinct bits, so that prefixes nest.
        (0u32..16, 0u8..=32, any::<bool>()).prop_map(|(seed, length, is_v4)| {
            let bits = seed << 28 | seed;
            let address: IpAddr = if is_v4 {
                std::net::Ipv4Addr::from_bits(bits).into()
            } else {
                std::net::Ipv6Addr::from_bits(u128::from(bits) << 96).into()
            };
            IpNet::new_assert(address, length).trunc()
        })
    }

    proptest! {
        #[test]
        fn a_lookup_is_a_scan_for_the_longest_match(
            networks in prop::collection::vec(any_network(), 0..24),
            address in any_network(),
        ) {
            let mut prefixes = Prefixes::default();
            for (index, network) in networks.iter().enumerate() {
                prefixes.insert(*network, index);
            }
            let address = address.network();
            let expected = networks
                .iter()
                .enumerate()
                .filter(|(_, network)| network.contains(&address))
                .max_by_key(|(index, network)| (network.prefix_len(), *index));
            prop_assert_eq!(prefixes.find(address).copied(), expected.map(|(index, _)| index));
        }
    }
}
