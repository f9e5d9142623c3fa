//! Local addresses of a network namespace: they show that a remote address belongs to this host.
//!
//! Who may configure interfaces there chooses the addresses, so an address says only for whom it
//! can be a destination: [`Reach`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agent_common::address::{self, Address};
use hashbrown::HashMap;

use crate::namespaces::{self, Namespace};

/// An address of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The namespace, by inode.
    pub netns: u32,
    /// The address.
    pub address: Address,
    /// For whom it is a destination.
    pub reach: Reach,
}

/// For which namespaces an address of another one is taken to be a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every namespace: only the host's root could configure the interface.
    Host,
    /// Namespaces of the same user namespace (by inode): any user can make one, and root in it
    /// chooses the addresses.
    UserNamespace(u64),
    /// The namespace itself: the address is on its loopback interface.
    Loopback,
}

/// Addresses kept of namespaces that any user can make, all together.
pub const MOST_OF_TENANTS: usize = 16_384;
/// The same of those that one user has made.
const MOST_OF_USER: usize = MOST_OF_TENANTS / 4;

/// Decides the reach of addresses, namespace by namespace.
pub(crate) struct Collector {
    /// The host's own network namespace, if the first process shows it.
    host: Option<u32>,
    /// Addresses of tenants that still find room, and those of each user.
    room: usize,
    of_users: HashMap<Option<u32>, usize>,
}

// === impl Collector ===

impl Collector {
    pub(crate) fn new() -> Self {
        let host = namespaces::host().ok().map(|host| host.inode);
        Self { host, room: MOST_OF_TENANTS, of_users: HashMap::new() }
    }

    /// Addresses of one namespace, from [`interfaces`].
    pub(crate) fn of(
        &mut self,
        namespace: &Namespace,
        local: impl IntoIterator<Item = (Address, bool)>,
    ) -> Vec<Held> {
        let netns = namespace.inode;
        let tenant = namespace.tenant();
        let held = |(address, is_loopback)| {
            let reach = match tenant {
                Some(tenant) => Reach::UserNamespace(tenant),
                // Others route to what the host itself has there.
                None if is_loopback && Some(netns) != self.host => Reach::Loopback,
                None => Reach::Host,
            };
            Held { netns, address, reach }
        };
        let mut held: Vec<Held> = local.into_iter().map(held).collect();
        held.dedup_by_key(|held| held.address);
        if tenant.is_some() {
            let of_user = self.of_users.entry(namespace.user()).or_insert(MOST_OF_USER);
            held.truncate(self.room.min(*of_user));
            self.room -= held.len();
            *of_user -= held.len();
        }
        held
    }
}

/// Addresses of all interfaces in the namespace of the calling thread, each once. Includes loopback
/// and link-local addresses, which other namespaces have too.
pub fn local() -> io::Result<Vec<Address>> {
    let mut found: Vec<Address> = interfaces()?.into_iter().map(|(address, _)| address).collect();
    found.dedup();
    Ok(found)
}

/// The same, each with whether its interface is a loopback (man 3 getifaddrs). Sorted: an address
/// of another interface comes before the same on a loopback.
pub fn interfaces() -> io::Result<Vec<(Address, bool)>> {
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
        let ip = unsafe { ip(node.ifa_addr) }.map(address::from_ip);
        let is_loopback = node.ifa_flags & libc::IFF_LOOPBACK as libc::c_uint != 0;
        found.extend(ip.map(|ip| (ip, is_loopback)));
        next = node.ifa_next;
    }
    // SAFETY: the list from getifaddrs; nothing refers to it anymore.
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
    use crate::users_namespace::UsersNamespace;
    use std::net::UdpSocket;

    #[test]
    fn the_address_that_loopback_traffic_comes_from_is_local() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = address::from_ip(socket.local_addr().unwrap().ip());
        assert!(local().unwrap().contains(&own));
        assert!(interfaces().unwrap().contains(&(own, true)));
    }

    #[test]
    fn a_user_with_any_number_of_addresses_leaves_others_theirs() {
        let mut collector = Collector::new();
        for user in [1500, 1501, 1502] {
            let Some(made) = UsersNamespace::new(user, 0) else { return };
            let many = (0..MOST_OF_TENANTS as u32).map(|n| (address::from_v4(n.to_be()), false));
            assert_eq!(collector.of(&made.namespace, many).len(), MOST_OF_USER, "{user}");
        }
    }
}
