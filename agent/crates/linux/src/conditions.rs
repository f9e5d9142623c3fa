//! What goes wrong in network namespaces below the sockets: connection tracking that fills up,
//! interfaces that drop packets, TCP without memory.
//!
//! The totals of node_exporter are those of one namespace. These are read in every namespace that
//! root has made, or a trusted user, by a thread that enters it ([`read`]); for a worker with a
//! deadline. What an untrusted user can make is not entered, so it costs no more than the listing.

use std::time::Duration;

use hashbrown::HashMap;

use super::links::{self, Counters, Link};
use super::namespaces::{self, Namespace};
use super::network::{self, Fill};
use super::procfs;

/// Namespaces that are read, at most.
pub const MOST: usize = 256;
/// Of these, that one trusted user can have made.
pub const MOST_OF_A_USER: usize = 64;
/// Kinds of interfaces that container engines make in any number, with random names; all of a kind in
/// one namespace count together.
const IN_ANY_NUMBER: [&str; 6] = ["veth", "tun", "macvlan", "macvtap", "ipvlan", "ifb"];

/// What was read, and what was not.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// The namespaces that could be read, the caller's own first.
    pub namespaces: Vec<Condition>,
    /// How many could not.
    pub unread: Unread,
    /// CPU time that it took.
    pub cost: Duration,
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Its inode.
    pub inode: u32,
    /// Its cookie, which is never another one's (Linux 5.14).
    pub cookie: Option<u64>,
    /// Tracked connections, and how many there can be; `None` if none are tracked.
    pub conntrack: Option<Fill>,
    /// Its interfaces that are up.
    pub interfaces: Vec<Interface>,
    /// What TCP did when it was short of memory, since the namespace was made.
    pub memory: Option<Memory>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name, or its kind if there are any number of them.
    pub name: String,
    /// Its counters since it was made.
    pub counters: Counters,
}

/// What TCP did when it was short of memory (`TcpExt` in /proc/net/netstat).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `TCPMemoryPressures`: it went into the state in which it saves memory.
    pub pressures: u64,
    /// `TCPAbortOnMemory`: it gave up connections.
    pub aborted: u64,
    /// `RcvPruned`: it dropped what a socket had received.
    pub pruned: u64,
}

/// Namespaces that were not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// They cannot be entered.
    pub denied: u64,
    /// A user made them who is not trusted.
    pub untrusted: u64,
    /// A trusted user made more than [`MOST_OF_A_USER`].
    pub over_share: u64,
    /// There are more than [`MOST`].
    pub over_limit: u64,
}

/// Reads the namespaces. May block, as long as the kernel does.
pub fn read(trusted: &[u32]) -> Conditions {
    let began = procfs::thread_time();
    let (spaces, _) = namespaces::all();
    let users: Vec<Option<u32>> = spaces.iter().map(Namespace::user).collect();
    let (chosen, mut unread) = choose(&users, trusted);
    let mut found = Conditions::default();
    for space in chosen.into_iter().filter_map(|at| spaces.get(at)) {
        // A thread of its own, which ends with this.
        let inside = namespaces::run_in(space, || (Condition::here(), procfs::thread_time()));
        match inside {
            Ok((condition, took)) => {
                found.cost += took;
                found.namespaces.push(Condition { inode: space.inode, ..condition });
            }
            Err(_) => unread.denied += 1,
        }
    }
    found.unread = unread;
    found.cost += procfs::thread_time().saturating_sub(began);
    found
}

/// Which namespaces to read, by the users who can have made them: those of root first, then those of
/// trusted users, each in their order.
fn choose(users: &[Option<u32>], trusted: &[u32]) -> (Vec<usize>, Unread) {
    let is_root = |user: &Option<u32>| user.is_none_or(|user| user == 0);
    let of_root = users.iter().enumerate().filter(|(_, user)| is_root(user));
    let mut chosen: Vec<usize> = of_root.map(|(at, _)| at).collect();
    let mut unread = Unread::default();
    let mut shares: HashMap<u32, usize> = HashMap::new();
    for (at, user) in users.iter().enumerate().filter(|(_, user)| !is_root(user)) {
        let Some(user) = user.filter(|user| trusted.contains(user)) else {
            unread.untrusted += 1;
            continue;
        };
        let share = shares.entry(user).or_default();
        if *share < MOST_OF_A_USER {
            *share += 1;
            chosen.push(at);
        } else {
            unread.over_share += 1;
        }
    }
    unread.over_limit = chosen.len().saturating_sub(MOST) as u64;
    chosen.truncate(MOST);
    (chosen, unread)
}

// === impl Condition ===

impl Condition {
    /// That of the calling thread's namespace, without its inode.
    fn here() -> Self {
        let up = links::list().unwrap_or_default().into_iter().filter(|link| link.is_up);
        Self {
            inode: 0,
            cookie: namespaces::cookie(),
            conntrack: network::tracked(),
            interfaces: up.map(Interface::from).collect(),
            memory: network::text("/proc/thread-self/net/netstat").map(|text| Memory::of(&text)),
        }
    }
}

// === impl Interface ===

impl From<Link> for Interface {
    fn from(link: Link) -> Self {
        let Link { index, name, kind, counters, .. } = link;
        let name = if IN_ANY_NUMBER.contains(&kind.as_str()) { kind } else { name };
        Self { index, name, counters }
    }
}

// === impl Memory ===

impl Memory {
    /// Reads the text of /proc/net/netstat. A counter that this kernel does not have is 0.
    fn of(netstat: &str) -> Self {
        let value = |name| network::sum(netstat, &[name]);
        Self {
            pressures: value("TCPMemoryPressures"),
            aborted: value("TCPAbortOnMemory"),
            pruned: value("RcvPruned"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn the_own_namespace_is_the_first_and_its_loopback_counts_packets() {
        let own = Namespace::current().unwrap().inode;
        let packets = || {
            let found = read(&[]);
            let first = found.namespaces.first().cloned().unwrap();
            assert_eq!(first.inode, own);
            assert!(first.memory.is_some() && found.cost > Duration::ZERO, "{found:?}");
            let loopback = first.interfaces.into_iter().find(|one| one.name == "lo").unwrap();
            loopback.counters.packets
        };
        let before = packets();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10 {
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        }
        // Sent and received.
        assert!(packets() >= before + 20);
    }

    #[test]
    fn namespaces_of_root_come_first_and_users_have_shares_if_they_are_trusted() {
        let check = |users: &[Option<u32>], first: &[usize], chosen: usize, unread: Unread| {
            let (found, left) = choose(users, &[1000, 1001]);
            assert_eq!((found.len(), left), (chosen, unread), "{users:?}");
            assert!(found.starts_with(first), "{found:?}");
        };
        let none = Unread::default();
        check(&[], &[], 0, none);
        check(&[None, Some(0), None], &[0, 1, 2], 3, none);
        check(&[Some(1000), None, Some(1001)], &[1, 0, 2], 3, none);
        check(&[Some(7), None, Some(7)], &[1], 1, Unread { untrusted: 2, ..none });
        let many = [vec![Some(1000); MOST_OF_A_USER + 3], vec![Some(1001), None]].concat();
        let of_user = MOST_OF_A_USER + 2;
        check(&many, &[many.len() - 1, 0], of_user, Unread { over_share: 3, ..none });
        let many = [vec![Some(1000)], vec![None; MOST + 4]].concat();
        check(&many, &[1, 2], MOST, Unread { over_limit: 5, ..none });
    }

    #[test]
    fn interfaces_that_come_in_any_number_have_the_name_of_their_kind() {
        let check = |name: &str, kind: &str, expected: &str| {
            let link = Link { name: name.to_owned(), kind: kind.to_owned(), ..Link::default() };
            assert_eq!(Interface::from(link).name, expected);
        };
        check("eth0", "", "eth0");
        check("br-0a1b", "bridge", "br-0a1b");
        check("bond0", "bond", "bond0");
        check("veth12ab34", "veth", "veth");
        check("eth0", "veth", "veth");
        check("tap7", "tun", "tun");
    }

    #[test]
    fn memory_shortage_is_read_by_the_names_of_counters() {
        let check = |text: &str, pressures, aborted, pruned| {
            assert_eq!(Memory::of(text), Memory { pressures, aborted, pruned }, "{text}");
        };
        check("", 0, 0, 0);
        check("TcpExt: RcvPruned A TCPAbortOnMemory\nTcpExt: 2 9 3\n", 0, 3, 2);
        let text = "TcpExt: TCPMemoryPressures\nTcpExt: 5\nIpExt: RcvPruned\nIpExt: 7\n";
        check(text, 5, 0, 0);
        check("TcpExt: RcvPruned\nTcpExt: x\n", 0, 0, 0);
    }
}
