//! The survey: all current TCP and UDP sockets of the host, each with role and owner.

mod roles;

use std::time::{Duration, Instant};

use agent_common::preexisting::Preexisting;
use hashbrown::{HashMap, HashSet};

use self::roles::decide;
use super::addresses::{Collector, Held};
use super::diag::{self, Dump, SocketEntry};
use super::ephemeral::Ephemeral;
use super::hierarchy::Hierarchy;
use super::holders::{self, Holder};
use super::namespaces::{self, Namespace};
use super::probes::{Failure, Kind, Probes};
use super::{Problem, addresses, ephemeral, namespace_names, procfs};

/// Number of processes whose arguments are read at a time: fewer than the queue of probes holds.
const AT_A_TIME: usize = 512;

/// Sockets, namespaces and addresses of this host.
#[derive(Debug, Default)]
pub struct Survey {
    /// Every network namespace that could be found, the agent's own first.
    pub namespaces: Vec<Namespace>,
    /// Names that root gave some of them, by inode.
    pub names: HashMap<u32, String>,
    /// Cookies of those that could be entered, by inode. An inode number is soon reused, a cookie
    /// never.
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
    // Those that users made come last: there may be many, each with problems to report.
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
            // Which of them are on a loopback interface is unknown.
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
    /// Lets `probes` read the arguments of interpreters, and waits for them at most `patience`. If
    /// they are late, the sockets belong to the interpreter as if it had no arguments.
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
                    // It has exited, or may not be inspected.
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
    /// Only the names of network namespaces and the users of delegated cgroups.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users_namespace::UsersNamespace;
    use agent_common::address;
    use agent_common::edge::{ROLE_CLIENT, ROLE_LISTENER, ROLE_SERVER};
    use std::net::{IpAddr, TcpListener, TcpStream};
    use std::process::Command;

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
