//! Ephemeral ports: how many of a namespace's range are in use, and for which destination most.
//!
//! A connection needs a local port that no other connection to the same destination has; a bind to
//! port 0 needs one that nobody has at all. So both numbers matter.

use std::net::IpAddr;

use agent_common::address::{Address, to_ip};
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use super::service::Service;

/// One TCP or UDP socket, as far as it uses up a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// IP protocol.
    pub protocol: u8,
    /// Local port.
    pub local_port: u16,
    /// Where it is connected to; port 0 = nowhere.
    pub remote: (Address, u16),
    /// Whether it is only remembered.
    pub is_time_wait: bool,
}

/// How much of a namespace's range is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// The same with the name of the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EphemeralView {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Whose it is: the service that acts in it.
    pub netns_of: Service,
    /// What is in use.
    #[serde(flatten)]
    pub ephemeral: Ephemeral,
}

impl Ephemeral {
    /// Counts what `uses` take of a range.
    pub fn count(range: (u16, u16), uses: impl Iterator<Item = Use>) -> Self {
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

    /// How many ports the range has.
    pub fn size(&self) -> u32 {
        u32::from(self.last).saturating_sub(u32::from(self.first)) + 1
    }

    /// The part of the range that is in use, by the protocol that uses more.
    pub fn used_ratio(&self) -> f64 {
        f64::from(self.used_tcp.max(self.used_udp)) / f64::from(self.size())
    }

    /// The part of the range that connections to one destination use.
    pub fn destination_ratio(&self) -> f64 {
        f64::from(self.most) / f64::from(self.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::address::from_ip;

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
        assert!((counted.used_ratio() - 0.3).abs() < 1e-9);
        assert!((counted.destination_ratio() - 0.2).abs() < 1e-9);
        let nothing = Ephemeral::count((100, 109), std::iter::empty());
        assert_eq!((nothing.size(), nothing.most_to), (10, None));
    }
}
