//! Role and owner of each pre-existing socket, derived from the list of all sockets.

use agent_common::address;
use agent_common::edge::{ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER, ROLE_UNKNOWN};
use agent_common::owner::OwnerKey;
use agent_common::preexisting::Preexisting;
use hashbrown::HashMap;

use super::Socket;
use crate::diag::{self, SocketEntry};
use crate::holders::Holder;

/// Decides role and owner of every socket that is worth adopting.
pub(super) fn decide(
    entries: &[(u32, SocketEntry)],
    holders: &HashMap<u32, Holder>,
) -> Vec<Socket> {
    let mut listeners: HashMap<(u32, u16), Vec<(SocketEntry, Owner)>> = HashMap::new();
    for (netns, entry) in entries.iter().filter(|(_, entry)| entry.state == diag::LISTEN) {
        let owner = Owner::of(*netns, entry, holders);
        listeners.entry((*netns, entry.local_port)).or_default().push((*entry, owner));
    }
    let decide = |&(netns, entry): &(u32, SocketEntry)| {
        let own = Owner::of(netns, &entry, holders);
        let (role, owner) = match entry.state {
            // Of UDP sockets only those with a local port matter.
            diag::CLOSE if is_udp(&entry) && entry.local_port != 0 => (ROLE_UNKNOWN, own),
            _ if is_udp(&entry) => return None,
            diag::LISTEN => (ROLE_LISTENER, own),
            diag::SYN_SENT => (ROLE_CLIENT, own),
            diag::TIME_WAIT | diag::CLOSE | diag::BOUND_INACTIVE => return None,
            // A handshake in progress: it will become a child of its listener.
            diag::SYN_RECV if entry.inode == 0 => return None,
            _ => match accepting(&entry, own, listeners.get(&(netns, entry.local_port))) {
                Some(listener) => (ROLE_SERVER, listener),
                None => (ROLE_CLIENT, own),
            },
        };
        let Owner { key, tgid } = owner;
        let known = Preexisting { owner: key, tgid, role, zero: [0; 3] };
        Some(Socket { netns, entry, known })
    };
    entries.iter().filter_map(decide).collect()
}

fn is_udp(entry: &SocketEntry) -> bool {
    i32::from(entry.protocol) == libc::IPPROTO_UDP
}

/// The owner of the listener that a connection came in through, if any fits.
///
/// In the kernel programs a child inherits its listener's owner, independent of the process that
/// accepts it. The same rule here also covers connections that are not accepted yet. Of several listeners
/// (SO_REUSEPORT) the socket's own holder is preferred.
fn accepting(
    entry: &SocketEntry,
    own: Owner,
    listeners: Option<&Vec<(SocketEntry, Owner)>>,
) -> Option<Owner> {
    let fitting =
        || listeners.into_iter().flatten().filter(|(listener, _)| accepts(listener, entry));
    let found = fitting().find(|(_, owner)| *owner == own).or_else(|| {
        // A listener on this very address beats one on all.
        fitting().max_by_key(|(listener, _)| listener.local == entry.local)
    })?;
    Some(if found.1.tgid == 0 { own } else { found.1 })
}

/// Whether `listener` accepts connections to the local address of `entry`.
fn accepts(listener: &SocketEntry, entry: &SocketEntry) -> bool {
    if listener.local == entry.local {
        return true;
    }
    if !address::to_ip(listener.local).is_unspecified() {
        return false;
    }
    match (listener.family, address::to_ip(entry.local).is_ipv4()) {
        (2, v4) => v4,
        (_, v4) => !v4 || listener.v6_only == 0,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Owner {
    key: OwnerKey,
    tgid: u32,
}

impl Owner {
    /// The owner of a socket: the process that holds it, or none.
    fn of(netns: u32, entry: &SocketEntry, holders: &HashMap<u32, Holder>) -> Self {
        holders.get(&entry.inode).map_or(
            Self { key: OwnerKey { netns, app: 0, cgroup: 0, comm: [0; 16] }, tgid: 0 },
            |holder| Self { key: holder.owner_in(netns), tgid: holder.tgid },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    const HERE: u32 = 7;

    fn entry(inode: u32, state: u8, local: &str, port: u16) -> SocketEntry {
        SocketEntry {
            cookie: u64::from(inode),
            inode,
            protocol: 6,
            state,
            device: 0,
            family: if local.contains(':') { 10 } else { 2 },
            v6_only: 0,
            local: address::from_ip(local.parse::<IpAddr>().unwrap()),
            local_port: port,
            remote: address::from_ip(Ipv4Addr::LOCALHOST.into()),
            remote_port: 50_000,
            uid: 0,
            receive_queue: 0,
            send_queue: 0,
        }
    }

    fn holder(tgid: u32) -> Holder {
        let owner = OwnerKey { netns: 0, app: 0, cgroup: u64::from(tgid), comm: [b'x'; 16] };
        Holder::of(tgid, owner)
    }

    /// Roles and process ids of sockets, each given as (inode, state, address, port).
    fn decided(sockets: &[(u32, u8, &str, u16)], holders: &[(u32, u32)]) -> Vec<(u32, u8, u32)> {
        let entries: Vec<_> = sockets
            .iter()
            .map(|(inode, state, local, port)| (HERE, entry(*inode, *state, local, *port)))
            .collect();
        let holders = holders.iter().map(|(inode, tgid)| (*inode, holder(*tgid))).collect();
        decide(&entries, &holders)
            .iter()
            .map(|socket| {
                assert_eq!(socket.known.owner.netns, HERE);
                (socket.entry.inode, socket.known.role, socket.known.tgid)
            })
            .collect()
    }

    #[test]
    fn the_local_port_decides_the_role() {
        let listeners = [
            (1, diag::LISTEN, "0.0.0.0", 80),
            (2, diag::LISTEN, "::", 81),
            (3, diag::LISTEN, "10.0.0.1", 82),
        ];
        let check = |local: &str, port, expected| {
            let mut sockets = listeners.to_vec();
            sockets.push((9, 1, local, port));
            let role = decided(&sockets, &[]).last().map(|(_, role, _)| *role);
            assert_eq!(role, Some(expected), "{local}:{port}");
        };
        check("10.0.0.1", 80, ROLE_SERVER);
        check("fd00::1", 80, ROLE_CLIENT);
        check("10.0.0.1", 81, ROLE_SERVER);
        check("fd00::1", 81, ROLE_SERVER);
        check("10.0.0.1", 82, ROLE_SERVER);
        check("10.0.0.2", 82, ROLE_CLIENT);
        check("10.0.0.1", 40_000, ROLE_CLIENT);
    }

    #[test]
    fn an_ipv6_only_listener_has_no_ipv4_connections() {
        let mut listener = entry(1, diag::LISTEN, "::", 80);
        assert!(accepts(&listener, &entry(2, 1, "10.0.0.1", 80)));
        listener.v6_only = 1;
        assert!(!accepts(&listener, &entry(2, 1, "10.0.0.1", 80)));
        assert!(accepts(&listener, &entry(2, 1, "fd00::1", 80)));
    }

    #[test]
    fn sockets_without_a_connection_are_omitted() {
        let sockets = [
            (1, diag::SYN_SENT, "10.0.0.1", 40_000),
            (0, diag::SYN_RECV, "10.0.0.1", 80),
            (0, diag::TIME_WAIT, "10.0.0.1", 80),
            (5, diag::CLOSE, "10.0.0.1", 80),
            (6, diag::LISTEN, "10.0.0.1", 80),
        ];
        assert_eq!(decided(&sockets, &[]), [(1, ROLE_CLIENT, 0), (6, ROLE_LISTENER, 0)]);
    }

    #[test]
    fn accepted_connections_belong_to_their_listener() {
        let sockets = [
            (1, diag::LISTEN, "0.0.0.0", 80),
            (2, 1, "10.0.0.1", 80), // held by a worker
            (0, 1, "10.0.0.1", 80), // not accepted yet
            (3, diag::LISTEN, "0.0.0.0", 90),
            (4, diag::LISTEN, "0.0.0.0", 90),
            (5, 1, "10.0.0.1", 90),
            (6, diag::LISTEN, "0.0.0.0", 91), // a listener without a known process
            (7, 1, "10.0.0.1", 91),
        ];
        let holders = [(1, 100), (2, 101), (3, 200), (4, 201), (5, 201), (7, 300)];
        let connections: Vec<_> = decided(&sockets, &holders)
            .into_iter()
            .filter(|(_, role, _)| *role == ROLE_SERVER)
            .map(|(inode, _, tgid)| (inode, tgid))
            .collect();
        assert_eq!(connections, [(2, 100), (0, 100), (5, 201), (7, 300)]);
    }
}
