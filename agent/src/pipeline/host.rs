//! The core's queries to the host besides the kernel's tables. Every answer comes later or not at
//! all: the core never waits for one.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;

use agent_common::owner::OwnerRow;
use agent_common::wire::Wire as _;
use hashbrown::HashMap;

use super::walks::Cgroup;
use discovery::docker_proxy;
use discovery::processes::{self, Seen};
use linux::addresses::Held;
use linux::conditions::{self, Conditions};
use linux::current_holders::{self, Bound, Holding};
use linux::existing::{self, Survey};
use linux::hierarchy::Hierarchy;
use linux::holders::Holder;
use linux::inspection::{Inspection, inspect};
use linux::probes::{Kind, Outcome, Pending, Probes};
use linux::procfs::{self, Stat};
use linux::{drops, refusal};
use model::probes::{Looks, ProbesView};

/// Queries the host.
pub(super) trait Host: Send {
    /// Every network namespace with its addresses; `known` are the former ones, for namespaces that
    /// cannot be entered. None if the mounts of namespaces are still `mounts`, where that is given.
    fn addresses(&self, known: &[Held], mounts: Option<u64>) -> Pending<Option<Survey>>;

    /// How many connection requests a namespace has dropped, in which process `tgid` was, or is;
    /// none if that cannot be read.
    fn listen_drops(&self, netns: u32, tgid: u32) -> Pending<Option<u64>>;

    /// As what a connect would end now (`CONNECT_*`), from a source port that was in use, if it is
    /// not 0.
    fn refusal(&self, netns: u32, tgid: u32, local_port: u16, remote: SocketAddr) -> Pending<u8>;

    /// Sockets of a namespace, in which `processes` were, and its rules for binds.
    fn sockets(&self, netns: u32, processes: Vec<u32>) -> Pending<Inspection>;

    /// The holder of a socket of a network namespace.
    fn holder(&self, bound: Bound, netns: u32) -> Pending<HeldBy>;

    /// The holders of these sockets.
    fn holders(&self, bound: Vec<Socket>) -> Pending<Holders>;

    /// The arguments of a process that may be a container engine's proxy.
    fn proxy_arguments(&self, tgid: u32) -> Pending<Vec<u8>>;

    /// Connection tracking, interfaces and memory of TCP in the network namespaces that root or one of
    /// these users made.
    fn conditions(&self, trusted: Vec<u32>) -> Pending<Conditions>;

    /// The folder of a cgroup, by its id; none if there is none.
    fn cgroup(&self, id: u64) -> Pending<Option<Cgroup>>;

    /// Statistics of the lookups.
    fn probes(&self) -> ProbesView;
}

/// Cgroups that are looked through for one.
const MOST_CGROUPS: usize = 65_536;

/// A socket whose holder is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    /// Who bound it.
    pub bound: Bound,
    /// Its network namespace.
    pub netns: u32,
    /// Its port, if it is to be looked who has its connections.
    pub accepts_at: Option<u16>,
}

/// Who holds sockets, by inode.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    /// As far as they are not the processes that bound them.
    pub others: HashMap<u32, HeldBy>,
    /// Who has connections of those that listen for others.
    pub acceptors: HashMap<u32, HeldBy>,
}

/// The process that holds a socket, as far as it could be seen.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldBy {
    /// Its process; 0 if unknown.
    pub pid: u32,
    /// The owner as the kernel half would record it, if it was found by the socket.
    pub row: Option<OwnerRow>,
    /// Its program.
    pub seen: Seen,
    /// How long ago it started, seconds.
    pub age_seconds: Option<f64>,
    /// Its arguments, if it takes ports for containers.
    pub proxy_arguments: Vec<u8>,
}

// === impl Probes ===

impl Host for Probes {
    fn addresses(&self, known: &[Held], mounts: Option<u64>) -> Pending<Option<Survey>> {
        let known = known.to_vec();
        self.ask(Kind::Addresses, move || Ok(existing::places_unless(&known, mounts)))
    }

    fn listen_drops(&self, netns: u32, tgid: u32) -> Pending<Option<u64>> {
        self.ask(Kind::ListenDrops, move || Ok(drops::read(netns, tgid)))
    }

    fn refusal(&self, netns: u32, tgid: u32, local_port: u16, remote: SocketAddr) -> Pending<u8> {
        self.ask(Kind::ConnectErrno, move || refusal::refusal(netns, tgid, local_port, remote))
    }

    fn sockets(&self, netns: u32, processes: Vec<u32>) -> Pending<Inspection> {
        self.ask(Kind::NamespaceSockets, move || inspect(netns, processes.into_iter()))
    }

    fn holder(&self, bound: Bound, netns: u32) -> Pending<HeldBy> {
        self.ask(Kind::SocketHolder, move || Ok(HeldBy::find(bound, netns)))
    }

    fn holders(&self, bound: Vec<Socket>) -> Pending<Holders> {
        self.ask(Kind::SocketHolder, move || Ok(Holders::find(&bound)))
    }

    fn proxy_arguments(&self, tgid: u32) -> Pending<Vec<u8>> {
        self.ask(Kind::Process, move || procfs::command_line(tgid, docker_proxy::LONGEST))
    }

    fn conditions(&self, trusted: Vec<u32>) -> Pending<Conditions> {
        self.ask(Kind::NetworkConditions, move || Ok(conditions::read(&trusted)))
    }

    fn cgroup(&self, id: u64) -> Pending<Option<Cgroup>> {
        self.ask(Kind::Cgroup, move || Cgroup::find(id))
    }

    fn probes(&self) -> ProbesView {
        view(&self.counts())
    }
}

// === impl Cgroup ===

impl Cgroup {
    fn find(id: u64) -> io::Result<Option<Self>> {
        let Some(tree) = Hierarchy::find()? else { return Ok(None) };
        let (mut found, mut below) = (None, Vec::new());
        tree.walk(MOST_CGROUPS, |one, path, _| {
            let within = |parent: &String| path.strip_prefix(parent.as_str());
            if one == id {
                found = Some(path.to_owned());
            } else if found.as_ref().and_then(within).is_some_and(|rest| rest.starts_with('/')) {
                below.push(one);
            }
        });
        let Some(path) = found else { return Ok(None) };
        let path = tree.mount().join(path.trim_start_matches('/'));
        Ok(Some(Self { folder: File::open(&path)?, path, below }))
    }
}

// === impl Holders ===

impl Holders {
    fn find(sockets: &[Socket]) -> Self {
        let bound: Vec<Bound> = sockets.iter().map(|socket| socket.bound).collect();
        let mut holding = current_holders::find(&bound);
        let mut found = Self::default();
        for Socket { bound, netns, accepts_at } in sockets {
            match holding.remove(&bound.inode) {
                Some(Holding::Other(holder)) => {
                    found.others.insert(bound.inode, HeldBy::of(*holder, *netns));
                }
                Some(Holding::Nobody) => {
                    found.others.insert(bound.inode, HeldBy::default());
                }
                Some(Holding::Binder) => {
                    let acceptor =
                        accepts_at.and_then(|port| current_holders::acceptor(*netns, port, bound));
                    if let Some(holder) = acceptor {
                        found.acceptors.insert(bound.inode, HeldBy::of(holder, *netns));
                    }
                }
                None => {}
            }
        }
        found
    }
}

// === impl HeldBy ===

impl HeldBy {
    fn find(bound: Bound, netns: u32) -> Self {
        match current_holders::find(&[bound]).remove(&bound.inode) {
            Some(Holding::Other(holder)) => Self::of(*holder, netns),
            Some(Holding::Nobody) => Self::default(),
            // As far as can be seen.
            Some(Holding::Binder) | None => Self { pid: bound.tgid, ..Self::default() }.aged(),
        }
    }

    /// A process that did not bind the socket, or did so before the agent was there.
    fn of(holder: Holder, netns: u32) -> Self {
        let argv = holder.read_arguments().unwrap_or_default();
        let holder = holder.with_arguments(argv);
        let row = OwnerRow { key: holder.owner_in(netns), tgid: holder.tgid, ..OwnerRow::zeroed() };
        let (argv, argv_len) = (procfs::argv_region(&holder.argv), holder.argv.len() as u32);
        let row = OwnerRow { argv, argv_len, path: holder.path, ..row };
        let seen = processes::see(&row, true);
        Self { pid: holder.tgid, row: Some(row), seen, ..Self::default() }.aged()
    }

    /// With the age of the process, and its arguments if it takes ports for containers.
    fn aged(self) -> Self {
        let mut found = self;
        let Ok(stat) = Stat::read(found.pid) else { return Self { pid: 0, ..found } };
        found.age_seconds = age_seconds(&stat);
        let end = stat.comm.iter().position(|byte| *byte == 0).unwrap_or(stat.comm.len());
        let command = String::from_utf8_lossy(stat.comm.get(..end).unwrap_or_default());
        if docker_proxy::takes_ports(&command) {
            let arguments = procfs::command_line(found.pid, docker_proxy::LONGEST);
            found.proxy_arguments = arguments.unwrap_or_default();
        }
        found
    }
}

/// How long ago a process started, as precisely as the clocks allow.
fn age_seconds(stat: &Stat) -> Option<f64> {
    let per_second = rustix::param::clock_ticks_per_second();
    let up = fs::read_to_string("/proc/uptime").ok()?;
    let up: f64 = up.split_whitespace().next()?.parse().ok()?;
    Some(up - stat.started_ticks as f64 / per_second.max(1) as f64)
}

/// The statistics in the form of a snapshot.
fn view(counts: &linux::probes::Counts) -> ProbesView {
    let results = |(kind, counts): (&Kind, &[u64; 4])| {
        let kind = kind.as_str();
        let result = |(outcome, count): (&Outcome, &u64)| Looks {
            kind,
            result: outcome.as_str(),
            count: *count,
        };
        Outcome::ALL.iter().zip(counts).map(result).collect::<Vec<_>>()
    };
    ProbesView {
        looks: Kind::ALL.iter().zip(&counts.looks).flat_map(results).collect(),
        stuck: counts.stuck as u64,
    }
}
