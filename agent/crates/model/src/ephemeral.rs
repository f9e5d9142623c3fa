//! Ephemeral ports: how many of a namespace's range are in use, and for which destination most.
//!
//! A connection needs a local port that no other connection to the same destination has; a bind to
//! port 0 needs one that is not in use at all. So both numbers matter.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::service::Service;

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
    /// The user who may have faked it ([`unverified`](super::unverified)).
    pub unverified_user: Option<u32>,
    /// What is in use.
    #[serde(flatten)]
    pub ephemeral: Ephemeral,
}

impl Ephemeral {
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

    #[test]
    fn ratios_are_parts_of_the_range() {
        let ephemeral = Ephemeral {
            first: 100,
            last: 109,
            used_tcp: 3,
            used_udp: 1,
            most: 2,
            most_to: None,
            time_wait: 1,
        };
        assert_eq!(ephemeral.size(), 10);
        assert!((ephemeral.used_ratio() - 0.3).abs() < 1e-9);
        assert!((ephemeral.destination_ratio() - 0.2).abs() < 1e-9);
    }
}
