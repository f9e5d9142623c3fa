//! The current state of one network namespace: its sockets, and the sysctls that govern binds.
//!
//! Read only after a failed bind. The BPF programs record which workload bound a port while they
//! run, but not connections, TIME_WAIT sockets and pre-existing sockets.

use std::fs;
use std::io;
use std::net::IpAddr;

use agent_common::address::{self, Address};
use hashbrown::HashSet;

use super::addresses;
use super::diag::{self, SocketEntry};
use super::ephemeral;
use super::namespaces::{self, Namespace};

/// The sockets, addresses and bind rules of a namespace.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Its sockets, TCP and UDP.
    pub sockets: Vec<SocketEntry>,
    /// Its addresses.
    pub addresses: HashSet<Address>,
    /// Ports below this one need CAP_NET_BIND_SERVICE.
    pub unprivileged_from: u16,
    /// Ports that outgoing connections get.
    pub ephemeral: (u16, u16),
    /// Whether addresses that no interface has may be bound: IPv4, IPv6.
    pub nonlocal: (bool, bool),
}

/// Inspects the namespace with this inode number. `processes` may be in it; trying them first saves
/// a walk over all processes.
pub fn inspect(netns: u32, processes: impl Iterator<Item = u32>) -> io::Result<Inspection> {
    let namespace = find(netns, processes).ok_or(io::ErrorKind::NotFound)?;
    namespaces::run_in(&namespace, here)?
}

/// The namespace with this inode number; `processes` may be in it.
pub(super) fn find(netns: u32, mut processes: impl Iterator<Item = u32>) -> Option<Namespace> {
    let is_it = |found: &Namespace| found.inode == netns;
    let of = |pid: u32| Namespace::open(format!("/proc/{pid}/ns/net")).ok().filter(is_it);
    Namespace::current()
        .ok()
        .filter(is_it)
        .or_else(|| processes.find_map(of))
        .or_else(|| namespaces::all().0.into_iter().find(is_it))
}

fn here() -> io::Result<Inspection> {
    let dump = diag::dump_ports().map_err(io::Error::other)?;
    Ok(Inspection {
        sockets: dump.entries,
        addresses: addresses::local()?.into_iter().collect(),
        unprivileged_from: sysctl("ipv4/ip_unprivileged_port_start").unwrap_or(1024),
        ephemeral: ephemeral::range(),
        nonlocal: (
            sysctl("ipv4/ip_nonlocal_bind") == Some(1),
            sysctl("ipv6/ip_nonlocal_bind") == Some(1),
        ),
    })
}

impl Inspection {
    /// Whether a socket may be bound to `address`: it is local, or does not have to be.
    pub fn has(&self, ip: IpAddr) -> bool {
        let not_needed = match ip {
            IpAddr::V4(v4) => {
                self.nonlocal.0
                    || v4.is_unspecified()
                    || v4.is_loopback()
                    || v4.is_multicast()
                    || v4.is_broadcast()
            }
            IpAddr::V6(v6) => self.nonlocal.1 || v6.is_unspecified() || v6.is_multicast(),
        };
        not_needed || self.addresses.contains(&address::from_ip(ip))
    }
}

/// A number below /proc/sys/net, of the calling thread's namespace.
fn sysctl(name: &str) -> Option<u16> {
    fs::read_to_string(format!("/proc/sys/net/{name}")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn the_own_namespace_is_seen_with_its_sockets_and_rules() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = Namespace::current().unwrap().inode;
        let seen = inspect(own, std::iter::empty()).unwrap();
        let has = |protocol: u8, port: u16| {
            seen.sockets.iter().any(|s| (s.protocol, s.local_port) == (protocol, port))
        };
        assert!(has(6, listener.local_addr().unwrap().port()));
        assert!(has(17, datagrams.local_addr().unwrap().port()));
        assert!(seen.has("127.0.0.1".parse().unwrap()) && seen.has("::".parse().unwrap()));
        assert!(!seen.has("192.0.2.77".parse().unwrap()));
        assert_eq!(inspect(1, std::iter::empty()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
