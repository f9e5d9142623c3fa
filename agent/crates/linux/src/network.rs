//! What a network namespace is like: links, addresses, routes, settings, how full its tables are.
//!
//! Read by a thread that enters the namespace ([`read`]), so with the rights of the caller. Of what
//! cannot be read there is nothing in the result.

use std::fs;
use std::io;
use std::net::IpAddr;

use super::links::{self, Link, LinkAddress};
use super::namespaces::{self, Namespace};

/// More than this of a file in /proc/net is not read.
const LONGEST: usize = 1 << 20;
/// Counters of `TcpExt` that say that TCP had no memory for packets.
const MEMORY: [&str; 3] = ["TCPMemoryPressures", "TCPAbortOnMemory", "RcvPruned"];

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Its inode.
    pub inode: u32,
    /// Its interfaces.
    pub links: Vec<Link>,
    /// For each link whose other end is in another namespace: the number of the link, and the inode
    /// of that namespace if it is known.
    pub peers: Vec<(u32, u32)>,
    /// Its addresses.
    pub addresses: Vec<LinkAddress>,
    /// Whether the main table has a default route, of either family.
    pub has_default_route: Option<bool>,
    /// `net.ipv4.ip_local_port_range`.
    pub local_ports: Option<(u16, u16)>,
    /// `net.ipv4.ip_local_reserved_ports`: ranges.
    pub reserved_ports: Vec<(u16, u16)>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u32>,
    /// `net.ipv4.tcp_tw_reuse`.
    pub tw_reuse: Option<u32>,
    /// Tracked connections, and how many there can be.
    pub conntrack: Option<Fill>,
    /// How often TCP had no memory for packets, since the namespace was made.
    pub memory_pressure: Option<u64>,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Entries.
    pub used: u64,
    /// Entries at most.
    pub limit: u64,
}

/// What is one for all namespaces of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Neighbours over IPv4 (ARP).
    pub v4: Option<Fill>,
    /// Neighbours over IPv6.
    pub v6: Option<Fill>,
}

/// Reads a namespace, from within. `others` are those where the other ends of its links may be.
pub fn read(namespace: &Namespace, others: &[Namespace]) -> io::Result<Network> {
    namespaces::run_in(namespace, || Network { inode: namespace.inode, ..here(others) })
}

/// How full the connection tracking of a namespace is; `None` if it is not in use there.
pub fn tracking(namespace: &Namespace) -> io::Result<Option<Fill>> {
    namespaces::run_in(namespace, tracked)
}

/// The tables of neighbours; only the host's own namespace shows them.
pub fn neighbours(host: &Namespace) -> io::Result<Neighbours> {
    namespaces::run_in(host, || {
        let fill = |table: &str, family: &str| {
            let statistics = text(&format!("/proc/thread-self/net/stat/{table}"))?;
            let limit = format!("/proc/sys/net/{family}/neigh/default/gc_thresh3");
            Some(Fill { used: entries(&statistics)?, limit: number(&limit)? })
        };
        Neighbours { v4: fill("arp_cache", "ipv4"), v6: fill("ndisc_cache", "ipv6") }
    })
}

// === impl Fill ===

impl Fill {
    /// The share that is in use.
    pub fn ratio(self) -> f64 {
        self.used as f64 / self.limit.max(1) as f64
    }
}

fn here(others: &[Namespace]) -> Network {
    let links = links::list().unwrap_or_default();
    let routes = (text("/proc/thread-self/net/route"), text("/proc/thread-self/net/ipv6_route"));
    let has_default_route = match routes {
        (None, None) => None,
        (v4, v6) => {
            Some(has_default_v4(&v4.unwrap_or_default()) || has_default_v6(&v6.unwrap_or_default()))
        }
    };
    let reserved = text("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    Network {
        inode: 0,
        peers: peers(&links, others),
        links,
        addresses: links::addresses().unwrap_or_default(),
        has_default_route,
        local_ports: port_range(),
        reserved_ports: ranges(&reserved),
        somaxconn: number("/proc/sys/net/core/somaxconn").and_then(|n| n.try_into().ok()),
        tw_reuse: number("/proc/sys/net/ipv4/tcp_tw_reuse").and_then(|n| n.try_into().ok()),
        conntrack: tracked(),
        memory_pressure: text("/proc/thread-self/net/netstat").map(|text| sum(&text, &MEMORY)),
    }
}

/// How full connection tracking is in the namespace of the calling thread.
pub(crate) fn tracked() -> Option<Fill> {
    let used = number("/proc/sys/net/netfilter/nf_conntrack_count")?;
    let limit = number("/proc/sys/net/netfilter/nf_conntrack_max")?;
    // 0 is without a limit.
    (limit > 0).then_some(Fill { used, limit })
}

/// Where the other ends of links are.
fn peers(links: &[Link], others: &[Namespace]) -> Vec<(u32, u32)> {
    let elsewhere = links.iter().filter_map(|link| Some((link.index, link.peer_namespace?)));
    let mut open: Vec<(u32, i32)> = elsewhere.collect();
    let mut found = Vec::new();
    for other in others {
        if open.is_empty() {
            break;
        }
        let Ok(Some(id)) = links::id_of(other.descriptor()) else { continue };
        let (here, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(|(_, of)| *of == id);
        found.extend(here.into_iter().map(|(index, _)| (index, other.inode)));
        open = rest;
    }
    found
}

/// The beginning of a text file; `None` if it cannot be read.
pub(crate) fn text(path: &str) -> Option<String> {
    let mut text = fs::read_to_string(path).ok()?;
    if text.len() > LONGEST {
        let end = text.floor_char_boundary(LONGEST);
        text.truncate(end);
    }
    Some(text)
}

fn number(path: &str) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

fn port_range() -> Option<(u16, u16)> {
    let text = text("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `8080,9000-9100`.
pub fn ranges(text: &str) -> Vec<(u16, u16)> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    text.split(',').filter_map(range).collect()
}

/// Whether /proc/net/route has the route to 0.0.0.0/0 (`fib_route_seq_show`: interface, destination,
/// gateway, flags, count, use, metric, mask).
pub fn has_default_v4(route: &str) -> bool {
    route.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(1) == Some("00000000") && fields.nth(5) == Some("00000000")
    })
}

/// Whether /proc/net/ipv6_route has the route to ::/0 over an interface that is not the loopback,
/// where the kernel has one that rejects.
pub fn has_default_v6(route: &str) -> bool {
    route.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_zero = fields.first().is_some_and(|to| to.bytes().all(|byte| byte == b'0'));
        is_zero && fields.get(1) == Some(&"00") && fields.last().is_some_and(|name| *name != "lo")
    })
}

/// The first column of /proc/net/stat/*_cache, which is the same for each CPU.
pub fn entries(statistics: &str) -> Option<u64> {
    let line = statistics.lines().nth(1)?;
    u64::from_str_radix(line.split_whitespace().next()?, 16).ok()
}

/// The sum of these counters of `TcpExt` in /proc/net/netstat.
pub fn sum(netstat: &str, wanted: &[&str]) -> u64 {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let pairs = names.split_whitespace().zip(values.split_whitespace());
    let values = pairs.filter(|(name, _)| wanted.contains(name));
    values.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

/// Whether an address is one that several namespaces may have.
pub fn is_shared(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn our_own_namespace_has_links_and_settings() {
        let own = Namespace::current().unwrap();
        let network = read(&own, &[]).unwrap();
        assert_eq!(network.inode, own.inode);
        assert!(network.links.iter().any(|link| link.is_loopback));
        assert!(network.local_ports.is_some_and(|(first, last)| first < last));
        assert!(network.somaxconn.is_some_and(|limit| limit > 0));
        assert!(network.memory_pressure.is_some());
    }

    #[test]
    fn a_default_route_is_recognized() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n";
        let v4 = |line: &str| has_default_v4(&format!("{head}{line}\n"));
        assert!(v4("eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0"));
        assert!(!v4("eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0"));
        assert!(!v4("eth0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0"));
        let zeros = "0".repeat(32);
        let v6 = |to: &str, prefix: &str, name: &str| {
            has_default_v6(&format!("{to} {prefix} {zeros} 00 {zeros} 400 1 0 3 {name}\n"))
        };
        assert!(v6(&zeros, "00", "eth0"));
        assert!(!v6(&zeros, "00", "lo"));
        assert!(!v6(&zeros, "80", "eth0"));
        assert!(!v6(&format!("fd{}", "0".repeat(30)), "40", "eth0"));
    }

    #[test]
    fn files_of_proc_are_read_by_their_names_and_columns() {
        assert_eq!(ranges("8080,9000-9100\n"), [(8080, 8080), (9000, 9100)]);
        assert_eq!(ranges("\n"), []);
        assert_eq!(entries("entries  allocs\n0000000f  00000001\n"), Some(15));
        assert_eq!(entries("entries\n"), None);
        let netstat = "TcpExt: A RcvPruned TCPAbortOnMemory\nTcpExt: 9 2 3\nIpExt: A\nIpExt: 1\n";
        assert_eq!(sum(netstat, &MEMORY), 5);
        assert!((Fill { used: 3, limit: 4 }.ratio() - 0.75).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            let _ = (ranges(&text), has_default_v4(&text), has_default_v6(&text));
            let _ = (entries(&text), sum(&text, &MEMORY));
        }
    }
}
