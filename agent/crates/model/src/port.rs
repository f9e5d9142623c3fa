//! What can hold a port, and what is known of a socket that does.

use std::net::IpAddr;

pub use notation::{Port, Protocol};
use serde::{Deserialize, Serialize};

use super::conflicts::Party;
use super::health::AcceptQueue;

/// How a port is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// A TCP socket that accepts connections.
    Listening,
    /// A socket that has the port and does not listen; for UDP, one that receives.
    Bound,
    /// The near end of a connection.
    Connected,
    /// Only the memory of a connection: no process has it anymore.
    TimeWait,
    /// Not in use, but reserved for a service.
    Reserved,
}

/// A socket that has a port, as far as it matters to others that want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its address; unspecified = all of the family.
    pub address: IpAddr,
    /// Whether it is an IPv6 socket, also with an IPv4 address.
    pub is_v6: bool,
    /// Whether it refuses IPv4.
    pub v6_only: bool,
    /// Its port.
    pub port: u16,
    /// The device it is bound to, 0 = none.
    pub device: u32,
    /// Who made it; unknown for a connection that is only remembered.
    pub uid: Option<u32>,
    /// Whether `SO_REUSEADDR` is set, if known.
    pub reuse_address: Option<bool>,
    /// Whether `SO_REUSEPORT` is set, if known.
    pub reuse_port: Option<bool>,
    /// How it holds the port.
    pub state: PortState,
    /// The other end, if it is a connection.
    pub peer: Option<(IpAddr, u16)>,
}

/// Sockets of one service on one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortView {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The address, `0.0.0.0` or `::` for all.
    pub address: IpAddr,
    /// Whether an IPv6 address for all refuses IPv4.
    pub v6_only: bool,
    /// Inode of the network namespace.
    pub netns: u32,
    /// How it is held.
    pub state: PortState,
    /// Who has it.
    pub holder: Party,
    /// User id of the socket.
    pub uid: u32,
    /// Since when, seconds since the Unix epoch; null if it was there before the agent.
    pub since_seconds: Option<f64>,
    /// How many sockets (SO_REUSEPORT).
    pub sockets: u32,
    /// Connections waiting to be accepted, in the fullest accept queue of these sockets.
    pub backlog: u32,
    /// How many may wait there.
    pub max_backlog: u32,
    /// The user who may have faked it ([`unverified`](super::unverified)).
    pub unverified_user: Option<u32>,
}

impl PortView {
    /// Another socket of the same holder (SO_REUSEPORT). Each has a queue of its own, and the kernel
    /// gives a connection to one of them whether that is full or not: sums would hide the full one.
    pub fn add_socket(&mut self, queue: AcceptQueue) {
        self.sockets += 1;
        if queue.is_fuller(AcceptQueue { length: self.backlog, limit: self.max_backlog }) {
            (self.backlog, self.max_backlog) = (queue.length, queue.limit);
        }
    }
}

impl PortState {
    /// The state of a socket with this `sk_state` (include/net/tcp_states.h).
    pub const fn of(protocol: Protocol, state: u8) -> Self {
        match (protocol, state) {
            (Protocol::Tcp, 10) => Self::Listening,
            (Protocol::Tcp, 6) => Self::TimeWait,
            // 13: sock_diag reports bound sockets with this state (6.8 and later).
            (_, 7 | 13) => Self::Bound,
            _ => Self::Connected,
        }
    }

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listening => "listening",
            Self::Bound => "bound",
            Self::Connected => "connected",
            Self::TimeWait => "time_wait",
            Self::Reserved => "reserved",
        }
    }
}

impl Held {
    /// Whether this socket and one with this address receive some of the same packets
    /// (`inet_rcv_saddr_equal`, net/ipv4/inet_connection_sock.c).
    pub fn overlaps(&self, address: IpAddr, v6_only: bool) -> bool {
        let all = |address: IpAddr| address.is_ipv6() && address.is_unspecified();
        if all(self.address) && !(self.v6_only && address.is_ipv4()) {
            return true;
        }
        if all(address) && !(v6_only && self.address.is_ipv4()) {
            return true;
        }
        self.address == address
            || (self.address.is_ipv4() && address.is_ipv4())
                && (self.address.is_unspecified() || address.is_unspecified())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_queue_of_several_sockets_is_shown_and_no_sum() {
        let queue = |length, limit| AcceptQueue { length, limit };
        let check = |first: AcceptQueue, second: AcceptQueue, expected: AcceptQueue| {
            let service = crate::service::Service::other();
            let mut view = PortView {
                port: 80,
                protocol: Protocol::Tcp,
                address: "0.0.0.0".parse().unwrap(),
                v6_only: false,
                netns: 1,
                state: PortState::Listening,
                holder: Party { service, pid: 1, command: String::new() },
                uid: 0,
                since_seconds: None,
                sockets: 1,
                backlog: first.length,
                max_backlog: first.limit,
                unverified_user: None,
            };
            view.add_socket(second);
            let shown = queue(view.backlog, view.max_backlog);
            assert_eq!((view.sockets, shown), (2, expected), "{first:?} {second:?}");
        };
        check(queue(0, 100), queue(4, 3), queue(4, 3));
        check(queue(4, 3), queue(90, 100), queue(4, 3));
        check(queue(1, 4096), queue(1, 8), queue(1, 8));
    }

    #[test]
    fn addresses_overlap_as_in_the_kernel() {
        let check = |held: &str, held_only, wanted: &str, wanted_only, expected: bool| {
            let held = Held {
                protocol: Protocol::Tcp,
                address: held.parse().unwrap(),
                is_v6: held.contains(':'),
                v6_only: held_only,
                port: 80,
                device: 0,
                uid: Some(0),
                reuse_address: Some(false),
                reuse_port: Some(false),
                peer: None,
                state: PortState::Listening,
            };
            let overlaps = held.overlaps(wanted.parse().unwrap(), wanted_only);
            assert_eq!(overlaps, expected, "{} {held_only} {wanted} {wanted_only}", held.address);
        };
        check("10.0.0.1", false, "10.0.0.1", false, true);
        check("10.0.0.1", false, "10.0.0.2", false, false);
        check("0.0.0.0", false, "10.0.0.1", false, true);
        check("10.0.0.1", false, "0.0.0.0", false, true);
        check("::", false, "0.0.0.0", false, true);
        check("::", false, "10.0.0.1", false, true);
        check("::", true, "10.0.0.1", false, false);
        check("::", true, "0.0.0.0", false, false);
        check("0.0.0.0", false, "::", false, true);
        check("0.0.0.0", false, "::", true, false);
        check("10.0.0.1", false, "::", false, true);
        check("::", true, "::", true, true);
        check("::1", false, "::", true, true);
        check("::1", false, "::1", false, true);
        check("::1", false, "127.0.0.1", false, false);
        check("fd00::1", false, "0.0.0.0", false, false);
    }
}
