//! Sockets that do not live as the textbook has it: copied, handed over, served by a child, cut by
//! a firewall, opened with data in the SYN, part of a larger whole; and a clock that jumps.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::agent::Agent;
use crate::facts::{self, Counters};
use crate::namespace::{Connection, Pair};
use crate::net;
use crate::scrape::Scrape;

/// (ok, open) of the client and of the server.
fn lives(now: &Scrape, pair: &Pair, port: u16) -> [(u64, u64); 2] {
    ["client", "server"].map(|role| {
        let edge = now.edge(&pair.client.service, &pair.server.service, port, role);
        (edge.connects("ok"), edge.active())
    })
}

#[test]
fn a_duplicated_descriptor_is_not_a_second_connection() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener: _listener, port, client, server } = pair.connection();
    let (mut copy, copied) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    drop((client, server));
    agent.eventually([(1, 1); 2], |now| lives(now, &pair, port));
    copy.write_all(b"still here").unwrap();
    let sent = |now: &Scrape| {
        now.edge(&pair.client.service, &pair.server.service, port, "client").sent_bytes()
    };
    agent.eventually(10, sent);
    drop((copy, copied));
    agent.eventually([(1, 0); 2], |now| lives(now, &pair, port));
    agent.stop();
}

#[test]
fn a_connection_on_its_way_to_another_process_is_open() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener: _listener, port, mut client, server } = pair.connection();
    // Only a message in a Unix socket holds the server's end now.
    let (here, there) = UnixStream::pair().unwrap();
    pass(&here, server.as_raw_fd()).unwrap();
    drop(server);
    agent.eventually([(1, 1); 2], |now| lives(now, &pair, port));
    let mut server = TcpStream::from(receive(&there).unwrap());
    client.write_all(&[b'q'; 50]).unwrap();
    net::read_exactly(&mut server, 50).unwrap();
    server.write_all(&[b'x'; 70]).unwrap();
    net::read_exactly(&mut client, 70).unwrap();
    agent.eventually((1, 1), |now| {
        let of = |role| now.edge(&pair.client.service, &pair.server.service, port, role);
        (of("client").requests().count, of("server").requests().count)
    });
    drop((client, server));
    agent.eventually([(1, 0); 2], |now| lives(now, &pair, port));
    agent.stop();
}

#[test]
fn what_a_child_serves_belongs_to_the_listener() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener: _listener, port, mut client, server } = pair.connection();
    // As inetd does: the child has the connection for input and output.
    let mut child = Command::new("sh");
    child.args(["-c", "read line; echo \"you said $line\""]);
    let output = server.try_clone().unwrap();
    child.stdin(Stdio::from(OwnedFd::from(server))).stdout(Stdio::from(OwnedFd::from(output)));
    let mut running = child.spawn().unwrap();
    drop(child);
    client.write_all(b"hello\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "you said hello\n");
    running.wait().unwrap();
    drop(client);
    let now = agent.eventually([(1, 0); 2], |now| lives(now, &pair, port));
    let edge = now.edge(&pair.client.service, &pair.server.service, port, "server");
    assert_eq!((edge.requests().count, edge.sent_bytes(), edge.received_bytes()), (1, 15, 6));
    assert!(!now.has("portolan_tcp_connects_total", &[("server", "sh")]), "no row of the child");
    agent.stop();
}

#[test]
fn a_firewall_reset_reaches_only_one_end() {
    needs_kernel!();
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
    client.write_all(&[b'q'; 100]).unwrap();
    net::read_exactly(&mut server, 100).unwrap();
    let before = pair.both().map(Counters::of);
    pair.server.nft_input(&format!("tcp dport {port} reject with tcp reset"));
    client.write_all(&[b'q'; 100]).unwrap();
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let after = pair.both().map(Counters::of);
    assert_eq!(after[0].since(&before[0], "TcpEstabResets"), 1);
    assert_eq!(after[1].since(&before[1], "TcpEstabResets"), 0);
    // The server does not notice: its end is half open.
    let now = agent.eventually([(1, 0), (1, 1)], |now| lives(now, &pair, port));
    let of = |role| now.edge(&pair.client.service, &pair.server.service, port, role);
    assert_eq!(of("client").resets_by_cause("received").values().sum::<u64>(), 1);
    assert_eq!(of("client").resets_by_cause("sent").len(), 0);
    assert_eq!(of("server").resets_by_cause("received").len(), 0);
    drop((client, server));
    agent.stop();
}

#[test]
fn data_in_the_syn_counts_like_any_other() {
    needs_kernel!();
    let pair = Pair::new();
    for end in pair.both() {
        end.sysctl("ipv4/tcp_fastopen", "3");
    }
    let agent = Agent::start();
    let listener = pair.server.listen("0.0.0.0:0");
    let queue: libc::c_int = 16;
    set(listener.as_raw_fd(), libc::TCP_FASTOPEN, queue);
    let port = net::port(&listener);
    let before = pair.both().map(Counters::of);
    // The first requests a cookie, the others send their data with the SYN.
    for _ in 0..3 {
        let address = SocketAddr::from((pair.server.v4, port));
        let mut client: TcpStream = pair.client.act(|| {
            let socket = net::socket_for(&address);
            socket.send_to_with_flags(&[b'q'; 60], &address.into(), libc::MSG_FASTOPEN).unwrap();
            socket.into()
        });
        let mut server = net::accept(&listener);
        net::read_exactly(&mut server, 60).unwrap();
        server.write_all(&[b'x'; 90]).unwrap();
        net::read_exactly(&mut client, 90).unwrap();
    }
    let after = pair.both().map(Counters::of);
    assert_eq!(after[0].since(&before[0], "TcpExtTCPFastOpenActive"), 2);
    assert_eq!(after[1].since(&before[1], "TcpExtTCPFastOpenPassive"), 2);
    let now = agent.eventually([(3, 0); 2], |now| lives(now, &pair, port));
    let of = |role| now.edge(&pair.client.service, &pair.server.service, port, role);
    let (a, b) = (of("client"), of("server"));
    assert_eq!((a.sent_bytes(), a.received_bytes()), (180, 270));
    assert_eq!((b.sent_bytes(), b.received_bytes()), (270, 180));
    // A request in a SYN precedes the connection: the known limit, no more.
    assert_eq!((a.requests().count, b.requests().count), (1, 1));
    agent.stop();
}

#[test]
fn of_multipath_tcp_its_paths_are_seen() {
    needs_kernel!();
    const IPPROTO_MPTCP: i32 = 262;
    let pair = Pair::new();
    let path = |end: &crate::namespace::Namespace| {
        end.within(|| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(IPPROTO_MPTCP))))
    };
    if let Err(error) = path(&pair.client) {
        println!("SKIPPED: this kernel has no MPTCP: {error}");
        return;
    }
    let agent = Agent::start();
    let address = SocketAddr::from((pair.server.v4, 0));
    let listener = pair.server.act(|| {
        let socket = path(&pair.server).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(8).unwrap();
        std::net::TcpListener::from(socket)
    });
    let port = net::port(&listener);
    let address = SocketAddr::from((pair.server.v4, port));
    let before = Counters::of(&pair.client);
    let mut client: TcpStream = pair.client.act(|| {
        let socket = path(&pair.client).unwrap();
        socket.connect(&address.into()).unwrap();
        socket.into()
    });
    let mut server = net::accept(&listener);
    client.write_all(&[b'q'; 1000]).unwrap();
    net::read_exactly(&mut server, 1000).unwrap();
    drop((client, server));
    // One path, one connection for the kernel's counters, and for ours, at the client at least: the
    // server's owner depends on how the kernel makes the child.
    let number = port.to_string();
    let paths = Counters::of(&pair.client).since(&before, "TcpActiveOpens");
    assert_eq!(paths, 1);
    let now = agent.eventually((paths, 0), |now| {
        let edge = now.edges(&[("port", &number), ("role", "client")]);
        (edge.connects("ok"), edge.active())
    });
    let edge = now.edges(&[("port", &number), ("role", "client")]);
    assert!(edge.sent_bytes() >= 1000, "the payload is in it: {}", edge.sent_bytes());
    agent.stop();
}

#[test]
fn a_jump_of_the_clock_is_not_latency() {
    needs_kernel!();
    if !facts::is_emulated() {
        println!("SKIPPED: this machine's clock is not ours to set; `cargo xtask vm` sets its own");
        return;
    }
    let pair = Pair::new();
    let agent = Agent::start();
    let Connection { listener: _listener, port, mut client, mut server } = pair.connection();
    for seconds in [86_400, -172_800, 86_400] {
        client.write_all(&[b'q'; 10]).unwrap();
        net::read_exactly(&mut server, 10).unwrap();
        jump(seconds);
        server.write_all(&[b'x'; 10]).unwrap();
        net::read_exactly(&mut client, 10).unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    drop((client, server));
    let now = agent.eventually([(1, 0); 2], |now| lives(now, &pair, port));
    for role in ["client", "server"] {
        let edge = now.edge(&pair.client.service, &pair.server.service, port, role);
        let requests = edge.requests();
        assert_eq!((requests.count, requests.at_most(10.0)), (3, 3), "{role}: {requests:?}");
    }
    agent.ledger_adds_up();
    agent.stop();
}

/// Moves the machine's clock.
fn jump(seconds: i64) {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls get a valid timespec.
    let set = unsafe {
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
        now.tv_sec += seconds;
        libc::clock_settime(libc::CLOCK_REALTIME, &raw const now)
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

fn set(socket: RawFd, option: i32, value: libc::c_int) {
    let size = size_of_val(&value) as u32;
    // SAFETY: the option takes an int, and gets one with its size.
    let set = unsafe {
        libc::setsockopt(socket, libc::IPPROTO_TCP, option, (&raw const value).cast(), size)
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

/// Room for one descriptor in a message, aligned as the kernel requires.
#[repr(C, align(8))]
struct Ancillary([u8; 64]);

/// Sends a descriptor through a Unix socket (`SCM_RIGHTS`, unix(7)).
fn pass(through: &UnixStream, descriptor: RawFd) -> io::Result<()> {
    let (mut room, mut byte) = (Ancillary([0; 64]), [1u8]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: zeros are a valid message; every pointer in it is to a value above, which outlives
    // the call; CMSG_FIRSTHDR points into `room`, which has space for one descriptor.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = room.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor);
        libc::sendmsg(through.as_raw_fd(), &raw const message, 0)
    };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a descriptor out of a Unix socket.
fn receive(from: &UnixStream) -> io::Result<OwnedFd> {
    let (mut room, mut byte) = (Ancillary([0; 64]), [0u8]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: as in `pass`; a descriptor that arrives is ours alone.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = room.0.as_mut_ptr().cast();
        message.msg_controllen = room.0.len();
        if libc::recvmsg(from.as_raw_fd(), &raw mut message, 0) != 1 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()))
    }
}

#[test]
fn a_descriptor_arrives() {
    let (here, there) = UnixStream::pair().unwrap();
    let (mut one, other) = UnixStream::pair().unwrap();
    pass(&here, other.as_raw_fd()).unwrap();
    drop(other);
    let mut other = UnixStream::from(receive(&there).unwrap());
    one.write_all(b"x").unwrap();
    other.read_exact(&mut [0]).unwrap();
    assert!(SockRef::from(&other).domain().is_ok());
}
