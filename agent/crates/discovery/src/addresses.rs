//! What an address alone says.

use std::net::IpAddr;

use agent_common::address::{self, Address};

use model::service::{Service, Source};

/// Addresses outside of the internet: private, shared (RFC 6598), link-local, loopback.
pub(super) fn is_internal(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// The name of a peer without any other name: its address.
pub(super) fn by_address(address: Address) -> Service {
    Service::new(&address::to_ip(address).to_string(), Source::Address)
}

/// Separates connections that cannot be the same: loopback or not, IPv4 or IPv6.
pub(super) fn path(address: Address) -> (bool, bool) {
    let ip = address::to_ip(address);
    (ip.is_loopback(), ip.is_ipv4())
}

/// Addresses that exist in every network namespace.
pub(super) fn everywhere(address: Address) -> bool {
    match address::to_ip(address) {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    }
}
