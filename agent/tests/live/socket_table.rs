//! Where the state of sockets lies, and what becomes of it where that is no room, or where the kernel
//! skips the end of a socket.
//!
//! The maps are read and changed here as nobody else does: by their ids, which need root.

use std::collections::BTreeSet;
use std::io;
use std::mem::offset_of;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::process::Command;

use agent_common::socket::{STAGE_CLOSED, STAGE_OPEN, SocketState};
use agent_common::socket_table::{BUSY, Entry, SETS, Set, ports};
use agent_common::wire::Wire as _;

use crate::agent::Agent;
use crate::facts::{KernelObjects, kernel_is_before, programs_of_a_hook};
use crate::namespace::{Connection, Pair};
use crate::net;
use crate::scrape::Scrape;

/// Commands of bpf(2), include/uapi/linux/bpf.h.
const LOOK_UP: libc::c_int = 1;
const UPDATE: libc::c_int = 2;
const MAP_BY_ID: libc::c_int = 14;

/// `union bpf_attr` of these commands, for a value of a map.
#[repr(C)]
#[derive(Default)]
struct OfElement {
    map: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A map of the agent's.
pub struct Map(OwnedFd);

impl Map {
    /// The one of this name.
    pub fn of(agent: &Agent, name: &str) -> Self {
        // The agent itself closes what it does not read; its programs have all of them.
        let programs = KernelObjects::of(agent.pid()).programs;
        let maps: BTreeSet<u64> = programs
            .iter()
            .flat_map(|id| shown("prog", *id)["map_ids"].as_array().cloned().unwrap_or_default())
            .filter_map(|id| id.as_u64())
            .collect();
        let id = *maps
            .iter()
            .find(|id| shown("map", **id)["name"] == name)
            .unwrap_or_else(|| panic!("the agent's programs have no map {name}"));
        // The id, which comes first; then where to begin, and how to open.
        let mut argument = [u32::try_from(id).unwrap(), 0, 0];
        let fd = bpf(MAP_BY_ID, &mut argument).expect("opening the map");
        // SAFETY: the kernel has just made it for us.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The value of a key; `None` if there is none.
    fn value<const SIZE: usize>(&self, key: i32) -> Option<[u8; SIZE]> {
        let mut value = [0u8; SIZE];
        let mut element = self.element(&key);
        element.value = value.as_mut_ptr() as u64;
        bpf(LOOK_UP, &mut element).ok().map(|_| value)
    }

    fn set(&self, key: i32, value: &[u8]) {
        let mut element = self.element(&key);
        element.value = value.as_ptr() as u64;
        bpf(UPDATE, &mut element).expect("changing a value");
    }

    fn element(&self, key: &i32) -> OfElement {
        let map = self.0.as_raw_fd() as u32;
        OfElement { map, key: std::ptr::from_ref(key) as u64, ..OfElement::default() }
    }
}

/// Whether this kernel refuses iterators over maps, so that the agent looks for sockets among open
/// files.
pub fn goes_through_files(agent: &Agent) -> bool {
    let programs = KernelObjects::of(agent.pid()).programs;
    programs.iter().any(|id| shown("prog", *id)["name"] == "bound_files")
}

/// What bpftool shows of an object.
fn shown(kind: &str, id: u64) -> serde_json::Value {
    let mut bpftool = Command::new("bpftool");
    let output = bpftool.args(["--json", kind, "show", "id", &id.to_string()]).output();
    let output = output.expect("starting bpftool").stdout;
    serde_json::from_slice(&output).unwrap_or_default()
}

fn bpf<T>(command: libc::c_int, argument: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads as many bytes as the argument has, and what it points to are values of
    // the caller's that live on.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(argument), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// Where an agent keeps the state of sockets.
pub enum States {
    /// In the table of sockets.
    Table(Map),
    /// In the sockets.
    Storage(Map),
}

impl States {
    /// Those of an agent as it is on this kernel.
    pub fn of(agent: &Agent) -> Self {
        if has_table() {
            Self::Table(Map::of(agent, "SOCKET_TABLE"))
        } else {
            Self::Storage(Map::of(agent, "SOCKETS"))
        }
    }

    /// Makes the state of this socket that of one whose end was handled already.
    pub fn skip_its_end(&self, socket: &TcpStream) {
        match self {
            Self::Table(map) => {
                let (key, at, mut entry) = find(map, socket).expect("it is in the table");
                assert_eq!(entry.state.stage, STAGE_OPEN);
                entry.state.stage = STAGE_CLOSED;
                write(map, key, at, &entry);
            }
            Self::Storage(map) => {
                let key = socket.as_raw_fd();
                let mut state: [u8; size_of::<SocketState>()] =
                    map.value(key).expect("the socket has a state");
                let stage = offset_of!(SocketState, stage);
                assert_eq!(state[stage], STAGE_OPEN);
                state[stage] = STAGE_CLOSED;
                map.set(key, &state);
            }
        }
    }
}

/// Whether an agent uses the table on this kernel, which has the cast and does not preempt programs.
fn has_table() -> bool {
    !kernel_is_before(6, 2) && programs_of_a_hook() == 1
}

/// The set in which the socket's entry is, where in it, and the entry.
fn find(table: &Map, socket: &TcpStream) -> Option<(i32, usize, Entry)> {
    let port = |address: io::Result<SocketAddr>| address.expect("it has an address").port();
    let wanted = ports(port(socket.peer_addr()), port(socket.local_addr()));
    (0..SETS as i32).find_map(|key| {
        let set = Set::from_bytes(&table.value::<{ size_of::<Set>() }>(key)?)?;
        let at =
            set.entries.iter().position(|entry| entry.state.ports == wanted && entry.token != 0)?;
        Some((key, at, set.entries[at]))
    })
}

fn write(table: &Map, key: i32, at: usize, entry: &Entry) {
    let value: [u8; size_of::<Set>()] = table.value(key).expect("every set is there");
    let mut set = Set::from_bytes(&value).expect("it is as long as a set");
    set.entries[at] = *entry;
    table.set(key, set.as_bytes());
}

fn opened(now: &Scrape, pair: &Pair, port: u16) -> [[u64; 2]; 2] {
    ["client", "server"].map(|role| {
        let edge = now.edge(&pair.client.service, &pair.server.service, port, role);
        [edge.connects("ok"), edge.active()]
    })
}

#[test]
fn connections_lie_in_the_table_and_leave_their_place_when_they_end() {
    needs_kernel!();
    if !has_table() {
        return println!("SKIPPED: this kernel's agent has no table of sockets");
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let (table, storage) = (Map::of(&agent, "SOCKET_TABLE"), Map::of(&agent, "SOCKETS"));
    let Connection { listener, port, client, server } = pair.connection();
    for socket in [&client, &server] {
        let (.., entry) = find(&table, socket).expect("it is in the table");
        assert_eq!((entry.state.stage, entry.token & BUSY), (STAGE_OPEN, 0));
        let stored = storage.value::<{ size_of::<SocketState>() }>(socket.as_raw_fd());
        assert!(stored.is_none(), "and in its own storage");
    }
    agent.eventually([[1, 1], [1, 1]], |now| opened(now, &pair, port));
    let (client_at, server_at) = (find(&table, &client).unwrap(), find(&table, &server).unwrap());
    drop((client, server, listener));
    agent.eventually([[1, 0], [1, 0]], |now| opened(now, &pair, port));
    for (key, at, entry) in [client_at, server_at] {
        let set = Set::from_bytes(&table.value::<{ size_of::<Set>() }>(key).unwrap()).unwrap();
        let now = set.entries[at];
        assert!(now.token != entry.token || now.state.stage == STAGE_CLOSED, "{now:?}");
    }
    agent.stop();
}

#[test]
fn iterate_table_makes_up_for_an_end_that_the_kernel_skipped() {
    needs_kernel!();
    if !has_table() {
        return println!("SKIPPED: this kernel's agent has no table of sockets");
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let (table, live) = (Map::of(&agent, "SOCKET_TABLE"), Map::of(&agent, "SOCKETS_LIVE"));
    let Connection { listener, port, client, server } = pair.connection();
    agent.eventually([[1, 1], [1, 1]], |now| opened(now, &pair, port));
    // As if nobody had seen the end of another one: an entry, and no socket at its address, a terabyte
    // away.
    let (key, at, mut entry) = find(&table, &client).unwrap();
    entry.token = entry.token.wrapping_add(1 << 40);
    let set = Set::from_bytes(&table.value::<{ size_of::<Set>() }>(key).unwrap()).unwrap();
    let at = (0..set.entries.len()).find(|way| *way != at && set.entries[*way].token == 0).unwrap();
    write(&table, key, at, &entry);
    let number = key as usize * set.entries.len() + at;
    let word = u64::from_ne_bytes(live.value(number as i32 / 64).unwrap());
    live.set(number as i32 / 64, &(word | 1 << (number % 64)).to_ne_bytes());
    let stage = |_: &Scrape| {
        let set = Set::from_bytes(&table.value::<{ size_of::<Set>() }>(key)?)?;
        Some(set.entries[at].state.stage)
    };
    assert_eq!(stage(&agent.scrape()), Some(STAGE_OPEN));
    agent.eventually(Some(STAGE_CLOSED), stage);
    // Whose socket lives keeps its entry.
    for socket in [&client, &server] {
        assert!(find(&table, socket).is_some_and(|(.., entry)| entry.state.stage == STAGE_OPEN));
    }
    drop(listener);
    agent.eventually([[1, 1], [1, 1]], |now| opened(now, &pair, port));
    agent.stop();
}

/// Every entry is somebody else's: all states go into the sockets, those of children too.
#[test]
fn what_finds_its_set_full_is_counted_all_the_same() {
    needs_kernel!();
    if !has_table() {
        return println!("SKIPPED: this kernel's agent has no table of sockets");
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let table = Map::of(&agent, "SOCKET_TABLE");
    let in_table = pair.server.listen("0.0.0.0:0");
    let taken = Entry { token: u64::MAX, ..Entry::zeroed() };
    for key in 0..SETS as i32 {
        let value: [u8; size_of::<Set>()] = table.value(key).expect("every set is there");
        let mut set = Set::from_bytes(&value).unwrap();
        for entry in set.entries.iter_mut().filter(|entry| entry.token == 0) {
            *entry = taken;
        }
        table.set(key, set.as_bytes());
    }
    let in_storage = pair.server.listen("0.0.0.0:0");
    for listener in [&in_table, &in_storage] {
        let port = net::port(listener);
        let mut held = Vec::new();
        for _ in 0..5 {
            let client = pair.client.connect((pair.server.v4, port)).unwrap();
            held.push((client, net::accept(listener)));
        }
        agent.eventually([[5, 5], [5, 5]], |now| opened(now, &pair, port));
        held.clear();
        agent.eventually([[5, 0], [5, 0]], |now| opened(now, &pair, port));
    }
    // A listener, ten clients, and the children of the listener that was there before.
    let spilled = agent.scrape().sum("portolan_sockets_spilled_total", &[]);
    assert!(spilled >= 16, "{spilled} sockets found no room");
    let listed: BTreeSet<u64> = agent.json("/api/v1/ports")["ports"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|port| port["port"].as_u64())
        .collect();
    for listener in [&in_table, &in_storage] {
        assert!(listed.contains(&net::port(listener).into()), "{listed:?}");
    }
    agent.stop();
}

#[test]
fn without_the_table_states_lie_in_the_sockets() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::with(&[("disable_hooks", "part:socket_table")]);
    let storage = Map::of(&agent, "SOCKETS");
    let Connection { listener, port, client, server } = pair.connection();
    for socket in [&client, &server] {
        let stored = storage.value::<{ size_of::<SocketState>() }>(socket.as_raw_fd());
        assert!(stored.is_some(), "its state is not in its storage");
    }
    // Its listener is known.
    agent.eventually([1, 1], |now| opened(now, &pair, port).map(|[opened, _]| opened));
    drop((client, server, listener));
    agent.eventually([[1, 0], [1, 0]], |now| opened(now, &pair, port));
    agent.stop();
}
