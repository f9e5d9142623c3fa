//! The gauge of open connections when a hook does not handle their end: at rest it is the number of
//! sockets. The kernel skips a run a few times in a million connections, so here the state of a socket
//! is changed to say that its end was handled.

use std::io;
use std::mem::offset_of;
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::process::Command;

use agent_common::socket::{STAGE_CLOSED, STAGE_OPEN, SocketState};

use crate::agent::Agent;
use crate::facts::KernelObjects;
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

fn bpf<T>(command: libc::c_int, argument: &mut T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads as many bytes as the argument has, and what it points to are values of
    // the caller's that live on.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(argument), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// The agent's map of socket states.
fn sockets(agent: &Agent) -> OwnedFd {
    let is_sockets = |id: &&u64| {
        let mut bpftool = Command::new("bpftool");
        let output = bpftool.args(["--json", "map", "show", "id", &id.to_string()]).output();
        let output = output.expect("starting bpftool").stdout;
        let map: serde_json::Value = serde_json::from_slice(&output).unwrap_or_default();
        map["name"] == "SOCKETS"
    };
    let maps = KernelObjects::of(agent.pid()).maps;
    let id = *maps.iter().find(is_sockets).expect("the agent has that map");
    // The id, which comes first; then where to begin, and how to open.
    let mut argument = [u32::try_from(id).unwrap(), 0, 0];
    let fd = bpf(MAP_BY_ID, &mut argument).expect("opening the map");
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Makes the state of this socket that of one whose end was handled already.
fn skip_its_end(map: &OwnedFd, socket: &TcpStream) {
    let key = socket.as_raw_fd();
    let mut state = [0u8; size_of::<SocketState>()];
    let stage = offset_of!(SocketState, stage);
    let mut element = OfElement {
        map: map.as_raw_fd() as u32,
        key: &raw const key as u64,
        value: state.as_mut_ptr() as u64,
        ..OfElement::default()
    };
    bpf(LOOK_UP, &mut element).expect("the socket has a state");
    assert_eq!(state[stage], STAGE_OPEN);
    state[stage] = STAGE_CLOSED;
    element.value = state.as_ptr() as u64;
    bpf(UPDATE, &mut element).expect("changing a state");
}

fn open(now: &Scrape, pair: &Pair, port: u16) -> [u64; 2] {
    ["client", "server"]
        .map(|role| now.edge(&pair.client.service, &pair.server.service, port, role).active())
}

#[test]
fn an_end_that_was_not_handled_leaves_nothing_in_the_gauge_at_rest() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener, port, client, server } = pair.connection();
    let more = || {
        let client = pair.client.connect((pair.server.v4, port)).unwrap();
        let server = net::accept(&listener);
        (client, server)
    };
    let (second, third) = (more(), more());
    agent.eventually([3, 3], |now| open(now, &pair, port));
    let map = sockets(&agent);
    // Of the first the client's end, of the second both, of the third none.
    skip_its_end(&map, &client);
    skip_its_end(&map, &second.0);
    skip_its_end(&map, &second.1);
    drop((client, server, second));
    // Before it is known that they stay: only counted ends.
    agent.eventually([3, 2], |now| open(now, &pair, port));
    agent.eventually([1, 1], |now| open(now, &pair, port));
    let fourth = more();
    agent.eventually([2, 2], |now| open(now, &pair, port));
    drop((third, fourth));
    agent.eventually([0, 0], |now| open(now, &pair, port));
    // And it stays so.
    for _ in 0..6 {
        assert_eq!(open(&agent.scrape(), &pair, port), [0, 0]);
    }
    agent.stop();
}

/// Many connections of many edges at rest: each scrape shows what `ss` lists.
#[test]
fn connections_at_rest_are_as_many_as_there_are_sockets() {
    needs_kernel!();
    const EDGES: usize = 8;
    let pair = Pair::new();
    let agent = Agent::start();
    let mut held = Vec::new();
    for number in 0..EDGES {
        let listener = pair.server.listen("0.0.0.0:0");
        let port = net::port(&listener);
        for _ in 0..=number * 5 {
            let client = pair.client.connect((pair.server.v4, port)).unwrap();
            held.push((client, net::accept(&listener)));
        }
        let expected = number as u64 * 5 + 1;
        agent.eventually([expected; 2], |now| open(now, &pair, port));
        for _ in 0..6 {
            assert_eq!(open(&agent.scrape(), &pair, port), [expected; 2]);
        }
        drop(listener);
    }
    agent.stop();
}
