//! The survey: all current TCP and UDP sockets of the host, each with role and owner.

use std::time::{Duration, Instant};

use agent_common::address;
use agent_common::edge::{ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER, ROLE_UNKNOWN};
use agent_common::owner::OwnerKey;
use agent_common::preexisting::Preexisting;
use hashbrown::{HashMap, HashSet};

use super::addresses::{Collector, Held};
use super::diag::{self, Dump, SocketEntry};
use super::ephemeral::Ephemeral;
use super::hierarchy::Hierarchy;
use super::holders::{self, Holder};
use super::namespaces::{self, Namespace};
use super::probes::{Failure, Kind, Probes};
use super::{Problem, addresses, ephemeral, namespace_names, procfs};

/// So many processes are asked for their arguments at a time: fewer than wait in the queue of probes.
const AT_A_TIME: usize = 512;

/// Sockets, namespaces and addresses of this host.
#[derive(Debug, Default)]
pub struct Survey {
    /// Every network namespace that could be found, the agent's own first.
    pub namespaces: Vec<Namespace>,
    /// Names that root has given to some of them, by inode.
    pub names: HashMap<u32, String>,
    /// Cookies of those that could be entered, by inode: a number that a namespace leaves is soon
    /// another's, a cookie never.
    pub cookies: HashMap<u32, u64>,
    /// Changes with the mounts of namespaces.
    pub mounts: u64,
    /// The host's network namespace, if it can be seen.
    pub host: Option<u32>,
    /// Cgroups at the first level that root has given to a user: their ids, and the users.
    pub delegated: HashMap<u64, u32>,
    /// Addresses of all interfaces; of namespaces that any user can make at most
    /// [`addresses::MOST_OF_TENANTS`].
    pub addresses: Vec<Held>,
    /// TCP sockets that are connected, connecting or listening, and UDP sockets with a port.
    pub sockets: Vec<Socket>,
    /// (network namespace inode, usage of its ephemeral ports).
    pub ephemeral: Vec<(u32, Ephemeral)>,
    /// What could not be read, with the consequence.
    pub problems: Vec<Problem>,
    /// CPU time that [`places`] took.
    pub cost: Duration,
}

/// A pre-existing socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Inode of its network namespace.
    pub netns: u32,
    /// The kernel's entry; its cookie is the key.
    pub entry: SocketEntry,
    /// What the kernel half needs to adopt it.
    pub known: Preexisting,
}

/// A survey before the arguments of interpreters are read.
#[derive(Debug)]
pub struct Found {
    survey: Survey,
    /// (network namespace inode, socket).
    entries: Vec<(u32, SocketEntry)>,
    holders: HashMap<u32, Holder>,
}

/// Surveys every namespace, without reading the memory of any process. 10 000 sockets and 2 000 processes
/// took 150 ms, two thirds of it reading the links in /proc/PID/fd.
pub fn survey() -> Found {
    let (mut namespaces, problems) = namespaces::all();
    // There may be many that users have made, and much to say of them.
    namespaces.sort_by_cached_key(|namespace| namespace.user().is_some());
    let mut survey = Survey { problems, ..Survey::of_names() };
    let mut entries = Vec::new();
    let mut collector = Collector::new();
    for namespace in &namespaces {
        survey.visit(namespace, &mut collector, &mut entries);
    }
    survey.namespaces = namespaces;
    let inodes: HashSet<u32> =
        entries.iter().map(|(_, entry)| entry.inode).filter(|inode| *inode != 0).collect();
    let (holders, problems) = holders::find(&inodes);
    survey.problems.extend(problems);
    Found { survey, entries, holders }
}

/// Only namespaces, their addresses, the usage of their ephemeral ports, and processes; cheap enough
/// to repeat. The addresses of a namespace that cannot be entered are read through its
/// processes, or taken from `known`.
pub fn places(known: &[Held]) -> Survey {
    look(Survey::of_names(), known)
}

/// As [`places`]; none if the mounts of namespaces are still these, where they are given.
pub fn places_unless(known: &[Held], mounts: Option<u64>) -> Option<Survey> {
    let names = Survey::of_names();
    (mounts != Some(names.mounts)).then(|| look(names, known))
}

fn look(mut survey: Survey, known: &[Held]) -> Survey {
    let began = procfs::thread_time();
    let (namespaces, problems) = namespaces::all();
    survey.problems = problems;
    let mut collector = Collector::new();
    for namespace in &namespaces {
        let inode = namespace.inode;
        let inside = || {
            let seen = (addresses::interfaces(), ephemeral::here(), namespaces::cookie());
            // A thread of its own, which ends with this.
            (seen, procfs::thread_time())
        };
        let entered = namespaces::run_in(namespace, inside).map(|(seen, took)| {
            survey.cost += took;
            seen
        });
        if let Ok((Ok(local), used, cookie)) = entered {
            survey.addresses.extend(collector.of(namespace, local));
            survey.ephemeral.extend(used.map(|used| (inode, used)));
            survey.cookies.extend(cookie.map(|cookie| (inode, cookie)));
        } else if let Ok(local) = namespaces::addresses(namespace) {
            // Not said: which of them are on a loopback interface.
            let local = local.into_iter().map(|local| (local, false));
            survey.addresses.extend(collector.of(namespace, local));
        } else {
            survey.addresses.extend(known.iter().filter(|held| held.netns == inode));
        }
    }
    survey.namespaces = namespaces;
    survey.cost += procfs::thread_time().saturating_sub(began);
    survey
}

// === impl Found ===

impl Found {
    /// Has `probes` read the arguments of interpreters, and waits for them until `patience` is over.
    /// Where they are late, the sockets belong to the interpreter as if it had none.
    pub fn complete(self, probes: &Probes, patience: Duration) -> Survey {
        let Self { mut survey, entries, mut holders } = self;
        let limit = Instant::now() + patience;
        let interpreters: HashMap<u32, Holder> = holders
            .values()
            .filter(|holder| holder.counts_arguments())
            .map(|holder| (holder.tgid, holder.clone()))
            .collect();
        let mut interpreters = interpreters.into_values();
        let mut arguments: HashMap<u32, Vec<u8>> = HashMap::new();
        let mut late = 0;
        loop {
            let some = interpreters.by_ref().take(AT_A_TIME);
            let asked: Vec<_> = some
                .map(|one| (one.tgid, probes.ask(Kind::Process, move || one.read_arguments())))
                .collect();
            if asked.is_empty() {
                break;
            }
            for (tgid, answer) in asked {
                match answer.wait_until(limit) {
                    Ok(argv) => drop(arguments.insert(tgid, argv)),
                    // It has ended, or may not be looked at.
                    Err(Failure::Failed(_)) => {}
                    Err(Failure::Deadline | Failure::NotBegun | Failure::QueueFull) => late += 1,
                }
            }
        }
        if late > 0 {
            survey.problems.push(Problem::new(
                format!("processes whose arguments could not be read within {patience:?}: {late}"),
                "their connections from before the start are named after their interpreters",
            ));
        }
        for holder in holders.values_mut() {
            if let Some(argv) = arguments.get(&holder.tgid) {
                *holder = holder.clone().with_arguments(argv.clone());
            }
        }
        survey.sockets = decide(&entries, &holders);
        survey
    }
}

impl Survey {
    /// Nothing but how network namespaces are called, and whose cgroups are.
    fn of_names() -> Self {
        let host = namespaces::host().ok().map(|host| host.inode);
        let (names, mounts) = namespace_names::read();
        let hierarchy = Hierarchy::find().ok().flatten();
        let delegated = hierarchy.map(|hierarchy| hierarchy.delegated()).unwrap_or_default();
        Self { names, mounts, host, delegated, ..Self::default() }
    }

    /// Lists sockets and addresses of one namespace.
    fn visit(
        &mut self,
        namespace: &Namespace,
        collector: &mut Collector,
        entries: &mut Vec<(u32, SocketEntry)>,
    ) {
        let netns = namespace.inode;
        let mut problem = |what: &str, consequence: &str| {
            let what = format!("network namespace {netns}: {what}");
            self.problems.push(Problem::new(what, consequence));
        };
        let inside = namespaces::run_in(namespace, || {
            let place = (addresses::interfaces(), ephemeral::range(), namespaces::cookie());
            (diag::dump_ports(), place)
        });
        let (dump, (local, range, cookie)) = match inside {
            Ok(answers) => answers,
            Err(error) => {
                return problem(
                    &format!("cannot be entered: {error}"),
                    "its pre-existing connections are not observed (needs CAP_SYS_ADMIN)",
                );
            }
        };
        self.cookies.extend(cookie.map(|cookie| (netns, cookie)));
        match dump {
            Ok(Dump { entries: found, unreadable, interrupted }) => {
                self.ephemeral.push((netns, ephemeral::of(range, &found)));
                entries.extend(found.into_iter().map(|entry| (netns, entry)));
                if unreadable > 0 {
                    problem(
                        &format!("{unreadable} sockets are listed in a way that is not understood"),
                        "if they are connected already, they have no owner and no role",
                    );
                }
                if interrupted {
                    problem(
                        "sockets came and went while they were listed",
                        "some that are connected already may have no owner and no role",
                    );
                }
            }
            Err(error) => {
                problem(&error.to_string(), "its pre-existing connections are not observed");
            }
        }
        match local {
            Ok(local) => self.addresses.extend(collector.of(namespace, local)),
            Err(error) => problem(
                &format!("listing addresses: {error}"),
                "connections to it from other namespaces show its address, not its service",
            ),
        }
    }
}

/// Decides role and owner of every socket that is worth taking over.
fn decide(entries: &[(u32, SocketEntry)], holders: &HashMap<u32, Holder>) -> Vec<Socket> {
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
    use crate::users_namespace::UsersNamespace;
    use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
    use std::process::Command;

    const HERE: u32 = 7;

    fn complete() -> Survey {
        survey().complete(&Probes::inline(), Duration::ZERO)
    }

    #[test]
    fn namespaces_that_users_made_come_last() {
        let Some(_made) = UsersNamespace::new(1500, 0) else { return };
        // Found after it, because its process is younger.
        let root = Command::new("unshare").args(["--net", "sleep", "60"]).spawn();
        let Ok(mut root) = root else { return println!("SKIPPED: no unshare") };
        let is_there = || {
            let file = format!("/proc/{}/ns/net", root.id());
            Namespace::open(&file)
                .is_ok_and(|made| made.inode != Namespace::current().unwrap().inode)
        };
        let began = Instant::now();
        while !is_there() && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let found = survey().survey.namespaces;
        let _ = root.kill();
        let _ = root.wait();
        let is_users: Vec<_> = found.iter().map(|one| one.user().is_some()).collect();
        assert!(is_users.is_sorted() && is_users.contains(&true), "{is_users:?}");
    }

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

    #[test]
    fn the_survey_finds_both_ends_of_an_own_connection() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server = listener.local_addr().unwrap();
        let client = TcpStream::connect(server).unwrap();
        let _accepted = listener.accept().unwrap();
        let survey = complete();
        let netns = survey.namespaces[0].inode;
        let find = |role: u8, local: u16| {
            survey.sockets.iter().find(|socket| {
                socket.known.role == role
                    && socket.entry.local_port == local
                    && socket.netns == netns
            })
        };
        let own_port = client.local_addr().unwrap().port();
        for (role, port) in
            [(ROLE_LISTENER, server.port()), (ROLE_SERVER, server.port()), (ROLE_CLIENT, own_port)]
        {
            let known = find(role, port).unwrap().known;
            assert_eq!((known.tgid, known.owner.netns), (std::process::id(), netns), "{role}");
        }
        let server = address::from_ip(server.ip());
        let held = |held: &Held| (held.netns, held.address) == (netns, server);
        assert!(survey.addresses.iter().any(held));
    }

    #[test]
    fn the_survey_reaches_into_other_namespaces() {
        use std::process::Command;
        let name = format!("portolan-survey-{}", std::process::id());
        let ip = |args: &[&str]| Command::new("ip").args(args).status().is_ok_and(|s| s.success());
        // SAFETY: geteuid cannot fail and touches no memory.
        if unsafe { libc::geteuid() } != 0 || !ip(&["netns", "add", &name]) {
            println!("SKIPPED: making network namespaces needs root and `ip`");
            return;
        }
        let inside = Namespace::open(format!("/run/netns/{name}")).unwrap();
        let up = ip(&["-n", &name, "link", "set", "lo", "up"]);
        // Sockets stay in the namespace they were made in.
        let connection = namespaces::run_in(&inside, || {
            let listener = TcpListener::bind(("::1", 0)).ok()?;
            let client = TcpStream::connect(listener.local_addr().ok()?).ok()?;
            Some((listener, client))
        });
        let survey = complete();
        assert!(ip(&["netns", "del", &name]));
        assert!(up, "loopback in {name}");
        let (_listener, _client) = connection.unwrap().expect("a connection over ::1");
        let mut found: Vec<_> = survey
            .sockets
            .iter()
            .filter(|socket| socket.netns == inside.inode)
            .map(|socket| (socket.known.role, socket.known.tgid, socket.known.owner.netns))
            .collect();
        found.sort_unstable();
        let me = std::process::id();
        let expected = [ROLE_CLIENT, ROLE_SERVER, ROLE_LISTENER];
        assert_eq!(found, expected.map(|role| (role, me, inside.inode)), "{:?}", survey.problems);
        let loopback = address::from_ip("::1".parse::<IpAddr>().unwrap());
        let held = |held: &Held| (held.netns, held.address) == (inside.inode, loopback);
        assert!(survey.addresses.iter().any(held));
    }
}
