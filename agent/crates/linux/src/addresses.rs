//! Local addresses of a network namespace: they show that a remote address belongs to this host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_common::address::{self, Address};

/// Addresses of all interfaces in the namespace of the calling thread (man 3 getifaddrs), each
/// once. Includes loopback and link-local addresses, which other namespaces have too.
pub fn local() -> io::Result<Vec<Address>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs writes one pointer to a list that this code owns until freeifaddrs.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: a node of the list, valid until freeifaddrs below.
        let node = unsafe { &*next };
        // SAFETY: the kernel's address of this node, null or as long as its family says.
        found.extend(unsafe { ip(node.ifa_addr) }.map(address::from_ip));
        next = node.ifa_next;
    }
    // SAFETY: the list from getifaddrs; nothing refers to it any more.
    unsafe { libc::freeifaddrs(list) };
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The IP address in a socket address; `None` for other families (AF_PACKET).
///
/// # Safety
/// `address` must be null or point to a socket address of the size that its family implies.
unsafe fn ip(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: every socket address starts with its family.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a sockaddr_in6.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn the_address_that_loopback_traffic_comes_from_is_local() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = address::from_ip(socket.local_addr().unwrap().ip());
        assert!(local().unwrap().contains(&own));
    }
}
