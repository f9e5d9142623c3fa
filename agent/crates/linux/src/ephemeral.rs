//! Ephemeral ports of a network namespace, as its sockets use them now.

use std::fs;
use std::net::IpAddr;

use agent_common::address::{Address, to_ip};
use hashbrown::{HashMap, HashSet};

use super::diag::{self, SocketEntry, TIME_WAIT};

/// A namespace with more TCP sockets than this is skipped: listing them costs too much.
const MOST_SOCKETS: u64 = 200_000;

/// How much of a namespace's range is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ephemeral {
    /// First port of the range (`ip_local_port_range`).
    pub first: u16,
    /// Last port of the range.
    pub last: u16,
    /// Ports of it that a TCP socket has.
    pub used_tcp: u32,
    /// Ports of it that a UDP socket has.
    pub used_udp: u32,
    /// Connections to the destination that uses most of it.
    pub most: u32,
    /// That destination.
    pub most_to: Option<(IpAddr, u16)>,
    /// Connections that are only remembered (TIME_WAIT).
    pub time_wait: u32,
}

/// One TCP or UDP socket, as far as it uses up a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Use {
    /// IP protocol.
    protocol: u8,
    /// Local port.
    local_port: u16,
    /// The remote end; port 0 = not connected.
    remote: (Address, u16),
    /// Whether it is in TIME_WAIT.
    is_time_wait: bool,
}

/// The range of the calling thread's namespace; the kernel's own default if it cannot be read.
pub fn range() -> (u16, u16) {
    let read = || {
        let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
        let mut numbers = text.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    read().unwrap_or((32_768, 60_999))
}

/// The usage in the calling thread's namespace; `None` if it has too many sockets, or they cannot
/// be listed.
pub fn here() -> Option<Ephemeral> {
    let sockets = fs::read_to_string("/proc/thread-self/net/sockstat").unwrap_or_default();
    if tcp_sockets(&sockets) > MOST_SOCKETS {
        return None;
    }
    let dump = diag::dump_ports().ok()?;
    Some(of(range(), &dump.entries))
}

/// How much of `range` these sockets use.
pub fn of(range: (u16, u16), sockets: &[SocketEntry]) -> Ephemeral {
    let uses = sockets.iter().map(|entry| Use {
        protocol: entry.protocol,
        local_port: entry.local_port,
        remote: (entry.remote, entry.remote_port),
        is_time_wait: entry.state == TIME_WAIT,
    });
    Ephemeral::count(range, uses)
}

/// `TCP: inuse 5 orphan 0 tw 3 …`: those in use and those that are only remembered.
fn tcp_sockets(sockstat: &str) -> u64 {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let words: Vec<_> = line.split_whitespace().collect();
    let value = |name: &str| {
        let pair = words.chunks_exact(2).find(|pair| pair.first() == Some(&name));
        pair.and_then(|pair| pair.get(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    value("inuse") + value("tw")
}

impl Ephemeral {
    /// Counts how much of `range` is in use.
    fn count(range: (u16, u16), uses: impl Iterator<Item = Use>) -> Self {
        let (first, last) = range;
        let (mut tcp, mut udp) = (HashSet::new(), HashSet::new());
        let mut destinations: HashMap<(Address, u16), u32> = HashMap::new();
        let mut time_wait = 0;
        for one in uses {
            time_wait += u32::from(one.is_time_wait);
            if !(first..=last).contains(&one.local_port) {
                continue;
            }
            let ports = if one.protocol == 17 { &mut udp } else { &mut tcp };
            ports.insert(one.local_port);
            if one.protocol != 17 && one.remote.1 != 0 {
                *destinations.entry(one.remote).or_default() += 1;
            }
        }
        let most = destinations.into_iter().max_by_key(|(to, count)| (*count, *to));
        Self {
            first,
            last,
            used_tcp: tcp.len() as u32,
            used_udp: udp.len() as u32,
            most: most.map_or(0, |(_, count)| count),
            most_to: most.map(|((address, port), _)| (to_ip(address), port)),
            time_wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::address::from_ip;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_own_connection_uses_a_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let used = here().unwrap();
        assert!(used.used_tcp >= 1 && used.most >= 1, "{used:?}");
        assert!(used.first < used.last);
    }

    #[test]
    fn the_number_of_sockets_is_read_by_name() {
        let text =
            "sockets: used 9\nTCP: inuse 5 orphan 0 tw 3 alloc 7 mem 1\nUDP: inuse 1 mem 0\n";
        assert_eq!(tcp_sockets(text), 8);
        assert_eq!(tcp_sockets(""), 0);
    }

    #[test]
    fn ports_count_once_and_connections_by_destination() {
        let to = |text: &str, port| (from_ip(text.parse().unwrap()), port);
        let one = |local_port, remote, is_time_wait| Use {
            protocol: 6,
            local_port,
            remote,
            is_time_wait,
        };
        let uses = [
            one(100, to("10.0.0.1", 80), false),
            one(100, to("10.0.0.2", 80), false),
            one(101, to("10.0.0.1", 80), true),
            one(102, to("0.0.0.0", 0), false),
            one(99, to("10.0.0.1", 80), false),
            Use { protocol: 17, ..one(103, to("0.0.0.0", 0), false) },
        ];
        let counted = Ephemeral::count((100, 109), uses.into_iter());
        assert_eq!((counted.used_tcp, counted.used_udp, counted.time_wait), (3, 1, 1));
        assert_eq!(counted.most_to, Some(("10.0.0.1".parse().unwrap(), 80)));
        let nothing = Ephemeral::count((100, 109), std::iter::empty());
        assert_eq!(nothing.most_to, None);
    }
}
