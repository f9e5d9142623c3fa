//! Addresses in one canonical form: 16 bytes, IPv4 as v4-mapped IPv6 (`::ffff:a.b.c.d`).
//!
//! A dual-stack server sees an IPv4 client as a v4-mapped address on an `AF_INET6` socket; in
//! this form both families of the same peer are the same key. The four words keep network byte
//! order in memory, exactly as the kernel stores them.

/// An address in canonical form; the words hold network byte order.
pub type Address = [u32; 4];

/// The unspecified address, used as the remote of a listener and of collapsed rows.
pub const UNSPECIFIED: Address = [0; 4];

/// The remote of a server row whose client lies outside the internal ranges: `::ffff:255.255.255.255`.
pub const INTERNET: Address = [0, 0, MAPPED, u32::MAX];

/// Third word of every v4-mapped address.
pub const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// First two words of an address that stands for an owner of this host; see [`from_owner`].
const OWNER: u32 = u32::MAX;

/// The remote of a server row whose client is of this host and has left its name: not its address,
/// which others may share, but the row of its owner. A word of the address separates connections
/// from several addresses of that owner; those that do not leave the namespace are one row. No
/// peer has such an address: `ff00::/8` is multicast.
#[inline(always)]
pub const fn from_owner(row: u32, server: &Address, client: &Address) -> Address {
    let from = if is_same_host(server, client) {
        0
    } else {
        client[0] ^ client[1] ^ client[2] ^ client[3]
    };
    [OWNER, OWNER, from, row]
}

/// The row behind [`from_owner`]; `None` for every real address.
pub const fn owner_of(address: &Address) -> Option<u32> {
    match *address {
        [OWNER, OWNER, _, row] => Some(row),
        _ => None,
    }
}

/// Whether a connection between these addresses stays in one network namespace for sure.
#[inline(always)]
pub const fn is_same_host(local: &Address, remote: &Address) -> bool {
    let loopback_v4 = remote[2] == MAPPED && remote[3].to_ne_bytes()[0] == 127;
    (loopback_v4 && remote[0] == 0 && remote[1] == 0)
        || (local[3] == remote[3]
            && local[2] == remote[2]
            && local[1] == remote[1]
            && local[0] == remote[0])
}

/// The canonical form of an IPv4 address given in network byte order (`skc_daddr`).
#[inline(always)]
pub const fn from_v4(be: u32) -> Address {
    [0, 0, MAPPED, be]
}

/// The canonical form of 16 address bytes.
#[inline(always)]
pub const fn from_octets(o: [u8; 16]) -> Address {
    [
        u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
        u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
        u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
        u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
    ]
}

/// The 16 bytes of an address in network order.
pub fn to_octets(address: Address) -> [u8; 16] {
    let mut out = [0; 16];
    for (chunk, word) in out.chunks_exact_mut(4).zip(address) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    out
}

/// The address as the standard library's type, v4-mapped addresses unwrapped.
pub fn to_ip(address: Address) -> core::net::IpAddr {
    core::net::Ipv6Addr::from(to_octets(address)).to_canonical()
}

/// The canonical form of a standard library address.
pub const fn from_ip(ip: core::net::IpAddr) -> Address {
    match ip {
        core::net::IpAddr::V4(v4) => from_octets(v4.to_ipv6_mapped().octets()),
        core::net::IpAddr::V6(v6) => from_octets(v6.octets()),
    }
}

crate::wire! {
    /// A prefix: an address is inside if `address & mask == prefix`, word by word.
    pub struct Range: 32 {
        /// The masked address.
        pub prefix: [u32; 4],
        /// One bits where the prefix counts.
        pub mask: [u32; 4],
    }
}

impl Range {
    /// The range of `address/bits`, where `bits` counts over the 16 byte form (add 96 for IPv4).
    pub const fn new(address: Address, bits: u32) -> Self {
        let mask =
            if bits == 0 { 0 } else { u128::MAX << (128 - if bits > 128 { 128 } else { bits }) };
        let mask = from_octets(mask.to_be_bytes());
        Self {
            prefix: [
                address[0] & mask[0],
                address[1] & mask[1],
                address[2] & mask[2],
                address[3] & mask[3],
            ],
            mask,
        }
    }

    /// Whether `address` lies in the range.
    #[inline(always)]
    pub const fn contains(&self, address: &Address) -> bool {
        (address[3] & self.mask[3]) == self.prefix[3]
            && (address[2] & self.mask[2]) == self.prefix[2]
            && (address[1] & self.mask[1]) == self.prefix[1]
            && (address[0] & self.mask[0]) == self.prefix[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn parse(text: &str) -> Address {
        from_ip(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn both_families_of_one_peer_are_one_address() {
        assert_eq!(parse("10.1.2.3"), parse("::ffff:10.1.2.3"));
        assert_eq!(parse("10.1.2.3"), from_v4(u32::from_ne_bytes([10, 1, 2, 3])));
        assert_eq!(to_ip(parse("10.1.2.3")), "10.1.2.3".parse::<IpAddr>().unwrap());
        assert_eq!(to_ip(parse("fd00::1")), "fd00::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn connections_within_one_namespace_are_known_by_their_addresses() {
        let check = |local, remote, expected: bool| {
            assert_eq!(is_same_host(&parse(local), &parse(remote)), expected, "{local} {remote}");
        };
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.1.2.3", true);
        check("::1", "::1", true);
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "10.0.0.2", false);
        check("fd00::1", "fd00::2", false);
    }

    #[test]
    fn an_owner_is_no_address() {
        let (server, client, other) = (parse("10.0.0.1"), parse("10.0.0.2"), parse("10.0.0.3"));
        let far = from_owner(7, &server, &client);
        assert_eq!(owner_of(&far), Some(7));
        assert_ne!(far, from_owner(7, &server, &other));
        let (lo, near) = (parse("127.0.0.1"), parse("127.0.0.9"));
        assert_eq!(owner_of(&from_owner(8, &lo, &near)), Some(8));
        assert_eq!(from_owner(8, &lo, &near), from_owner(8, &lo, &lo));
        for address in [UNSPECIFIED, INTERNET, parse("10.0.0.1"), parse("fd00::1")] {
            assert_eq!(owner_of(&address), None);
        }
    }

    #[test]
    fn ranges_hold_what_they_say() {
        let check = |network: &str, bits, address: &str, expected| {
            assert_eq!(
                Range::new(parse(network), bits).contains(&parse(address)),
                expected,
                "{network}/{bits} {address}"
            );
        };
        check("10.0.0.0", 96 + 8, "10.255.0.1", true);
        check("10.0.0.0", 96 + 8, "11.0.0.1", false);
        check("172.16.0.0", 96 + 12, "172.31.9.9", true);
        check("172.16.0.0", 96 + 12, "172.32.0.0", false);
        check("fc00::", 7, "fd12::1", true);
        check("fc00::", 7, "2001:db8::1", false);
        check("::1", 128, "::1", true);
        check("::1", 128, "::2", false);
        check("::", 0, "8.8.8.8", true);
        check("10.0.0.0", 96 + 8, "::10.0.0.1", false);
    }
}
