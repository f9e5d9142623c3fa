//! The TCP and UDP sockets of a network namespace, listed through `sock_diag` (man 7).
//!
//! One dump per address family. The kernel gives every socket it shows a cookie
//! (`sock_diag_save_cookie`, net/core/sock_diag.c), by which the kernel half identifies it.

use std::os::fd::OwnedFd;

use agent_common::address::{self, Address};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
    Parseable as _,
};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{IPPROTO_TCP, IPPROTO_UDP, SOCK_DIAG_BY_FAMILY, SockDiagMessage};
use rustix::net::netlink::SOCK_DIAG;

pub use super::netlink::DiagError;
use super::netlink::{
    BUFFER, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, finished, next, open, receive, send,
};

/// States, include/net/tcp_states.h.
pub const ESTABLISHED: u8 = 1;
/// Sockets that wait for the last ACK of a handshake (`TCP_NEW_SYN_RECV` inside) are shown as this
/// one, with inode 0 (`inet_req_diag_fill`).
pub const SYN_RECV: u8 = 3;
/// A SYN is out.
pub const SYN_SENT: u8 = 2;
/// The kernel keeps only the pair of addresses for a while; the socket is gone.
pub const TIME_WAIT: u8 = 6;
/// Bound or never used, not connected.
pub const CLOSE: u8 = 7;
/// Waits for connections.
pub const LISTEN: u8 = 10;

/// Sockets appeared or vanished during the dump, so it may be incomplete.
const ATTEMPTS: u32 = 3;

// A flag of dumps, and an attribute (include/uapi/linux).
const NLM_F_DUMP_INTR: u16 = 0x10;
const INET_DIAG_SKV6ONLY: u16 = 11;
/// Size of `struct inet_diag_msg`, which precedes the attributes.
const RESPONSE_HEADER: usize = 72;

/// A bound TCP socket that does not listen, as sock_diag reports it (Linux 6.8 and later).
pub const BOUND_INACTIVE: u8 = 13;

/// One TCP or UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEntry {
    /// The socket's cookie.
    pub cookie: u64,
    /// Its inode in sockfs, as in `/proc/PID/fd` (`socket:[N]`); 0 if no descriptor was made yet
    /// or all are closed.
    pub inode: u32,
    /// IP protocol: 6 = TCP, 17 = UDP.
    pub protocol: u8,
    /// State as in include/net/tcp_states.h.
    pub state: u8,
    /// Interface index it is bound to, 0 = none.
    pub device: u32,
    /// Address family: 2 = AF_INET, 10 = AF_INET6.
    pub family: u8,
    /// 1 if an AF_INET6 listener refuses IPv4.
    pub v6_only: u8,
    /// Local address; unspecified (of its family) for a listener on all.
    pub local: Address,
    /// Local port, host byte order.
    pub local_port: u16,
    /// Remote address.
    pub remote: Address,
    /// Remote port, host byte order; 0 for a listener.
    pub remote_port: u16,
    /// User id of the socket's creator.
    pub uid: u32,
    /// Bytes not read yet; for a listener, connections that wait for accept().
    pub receive_queue: u32,
    /// Bytes not acknowledged yet; for a listener, how many connections may wait.
    pub send_queue: u32,
}

/// The sockets of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// The sockets, IPv4 first.
    pub entries: Vec<SocketEntry>,
    /// Messages that could not be parsed.
    pub unreadable: u32,
    /// Every attempt was interrupted: a socket may be missing.
    pub interrupted: bool,
}

/// Lists the TCP sockets of the network namespace that the calling thread is in.
pub fn dump() -> Result<Dump, DiagError> {
    dump_of(IPPROTO_TCP, &StateFlags::all(), (0, 0))
}

/// Lists its TCP connections between these ports, those in TIME_WAIT too. The kernel itself leaves
/// out all others (`inet_diag_dump_icsk`, net/ipv4/inet_diag.c).
pub fn connections(local_port: u16, remote_port: u16) -> Result<Dump, DiagError> {
    dump_of(IPPROTO_TCP, &StateFlags::all(), (local_port, remote_port))
}

/// Lists its sockets that have a port: TCP and UDP, bound ones that do not listen too, where the
/// kernel reports them.
pub fn dump_ports() -> Result<Dump, DiagError> {
    let states = StateFlags::from_bits_retain(StateFlags::all().bits() | 1 << BOUND_INACTIVE);
    let mut answer = dump_of(IPPROTO_TCP, &states, (0, 0))?;
    let datagrams = dump_of(IPPROTO_UDP, &states, (0, 0))?;
    answer.entries.extend(datagrams.entries);
    answer.unreadable += datagrams.unreadable;
    answer.interrupted |= datagrams.interrupted;
    Ok(answer)
}

/// `ports`: only sockets with this local and this remote port; 0 for any.
fn dump_of(protocol: u8, states: &StateFlags, ports: (u16, u16)) -> Result<Dump, DiagError> {
    let mut answer = Dump::default();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let socket = open(SOCK_DIAG)?;
        for attempt in 1..=ATTEMPTS {
            let request = request(family, protocol, states.clone(), ports, attempt);
            let family_answer = ask(&socket, &request, protocol, attempt)?;
            if family_answer.interrupted && attempt < ATTEMPTS {
                continue;
            }
            answer.entries.extend(family_answer.entries);
            answer.unreadable += family_answer.unreadable;
            answer.interrupted |= family_answer.interrupted;
            break;
        }
    }
    Ok(answer)
}

/// Sends one request and reads the complete response.
fn ask(socket: &OwnedFd, request: &[u8], protocol: u8, sequence: u32) -> Result<Dump, DiagError> {
    send(socket, request)?;
    let mut answer = Dump::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let datagram = receive(socket, &mut buffer)?;
        if read_datagram(datagram, sequence, &mut answer)? {
            answer.entries.iter_mut().for_each(|entry| entry.protocol = protocol);
            return Ok(answer);
        }
    }
}

/// Reads the messages of one datagram into `answer`; returns whether the dump is complete.
pub fn read_datagram(
    mut bytes: &[u8],
    sequence: u32,
    answer: &mut Dump,
) -> Result<bool, DiagError> {
    while let Some(message) = next(&mut bytes)? {
        if message.sequence != sequence {
            continue; // The rest of an answer that was given up.
        }
        let payload = message.payload;
        answer.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.kind {
            NLMSG_DONE => return finished(payload).map(|()| true),
            NLMSG_ERROR => return finished(payload).and(Err(DiagError::Truncated)),
            NLMSG_OVERRUN => return Err(DiagError::Truncated),
            SOCK_DIAG_BY_FAMILY => match SocketEntry::parse(payload) {
                Some(entry) => answer.entries.push(entry),
                None => answer.unreadable += 1,
            },
            _ => {}
        }
    }
    Ok(false)
}

impl SocketEntry {
    /// Whether its program has closed it, so that only the kernel still has it: in TIME_WAIT, or on
    /// the way there. One that was never accepted has no inode either.
    pub fn is_closed(&self) -> bool {
        self.inode == 0 && !matches!(self.state, ESTABLISHED | SYN_RECV)
    }

    /// Reads a `struct inet_diag_msg` and its attributes (include/uapi/linux/inet_diag.h).
    fn parse(payload: &[u8]) -> Option<Self> {
        let header = InetResponseHeader::parse(payload).ok()?;
        let mut v6_only = 0;
        for attribute in NlasIterator::new(payload.get(RESPONSE_HEADER..)?).flatten() {
            if attribute.kind() == INET_DIAG_SKV6ONLY {
                v6_only = u8::from(attribute.value().first().is_some_and(|value| *value != 0));
            }
        }
        let InetResponseHeader {
            family, state, socket_id, uid, inode, recv_queue, send_queue, ..
        } = header;
        Some(Self {
            // Two words, the low one first (`sock_diag_save_cookie`).
            cookie: u64::from(u32::from_ne_bytes(*socket_id.cookie.first_chunk()?))
                | u64::from(u32::from_ne_bytes(*socket_id.cookie.last_chunk()?)) << 32,
            inode,
            protocol: IPPROTO_TCP,
            state,
            device: socket_id.interface_id,
            family,
            v6_only,
            local: address::from_ip(socket_id.source_address),
            local_port: socket_id.source_port,
            remote: address::from_ip(socket_id.destination_address),
            remote_port: socket_id.destination_port,
            receive_queue: recv_queue,
            send_queue,
            uid,
        })
    }
}

/// The request for the sockets of a family and protocol, in these states and with these ports.
fn request(
    family: u8,
    protocol: u8,
    states: StateFlags,
    ports: (u16, u16),
    sequence: u32,
) -> Vec<u8> {
    // Of an identity a dump looks at the ports only, if they are not 0.
    let mut socket_id = SocketId::new_v4();
    (socket_id.source_port, socket_id.destination_port) = ports;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let body =
        InetRequest { family, protocol, extensions: ExtensionFlags::empty(), states, socket_id };
    let payload = NetlinkPayload::from(SockDiagMessage::InetRequest(body));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::net::sockopt;
    use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    /// The cookie as the socket itself reports it (man 7 socket, SO_COOKIE).
    fn cookie(socket: &impl AsFd) -> u64 {
        sockopt::socket_cookie(socket).unwrap()
    }

    fn find(address: SocketAddr, state: u8) -> SocketEntry {
        let dump = dump().unwrap();
        assert_eq!(dump.unreadable, 0);
        let ip = address::from_ip(address.ip());
        *dump
            .entries
            .iter()
            .find(|entry| {
                entry.local_port == address.port() && entry.local == ip && entry.state == state
            })
            .unwrap()
    }

    #[test]
    fn an_own_listener_is_listed_with_its_cookie() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let entry = find(listener.local_addr().unwrap(), LISTEN);
        assert_eq!(entry.cookie, cookie(&listener));
        assert_eq!((entry.family, entry.remote_port), (2, 0));
        assert_ne!(entry.inode, 0);
    }

    #[test]
    fn both_ends_of_a_connection_are_listed() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let here = find(peer, 1);
        assert_eq!(here.cookie, cookie(&client));
        assert_eq!(here.remote_port, listener.local_addr().unwrap().port());
        let dump = dump().unwrap();
        let there = dump.entries.iter().find(|entry| entry.cookie == cookie(&server)).unwrap();
        assert_eq!((there.remote_port, there.remote), (peer.port(), here.local));
    }

    #[test]
    fn a_dual_stack_connection_has_one_form_of_address() {
        let Ok(listener) = TcpListener::bind(("::", 0)) else {
            println!("SKIPPED: no IPv6 here");
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let dump = dump().unwrap();
        let entry = |cookie: u64| dump.entries.iter().find(|entry| entry.cookie == cookie);
        let accepted = entry(cookie(&server)).unwrap();
        assert_eq!(accepted.family, 10);
        assert_eq!(address::to_ip(accepted.remote), "127.0.0.1".parse::<IpAddr>().unwrap());
        let listening = entry(cookie(&listener)).unwrap();
        assert_eq!((listening.local, listening.v6_only), (address::UNSPECIFIED, 0));
    }

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((16 + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn refusal_interruption_and_loss_are_different_errors() {
        let read = |bytes: &[u8]| {
            let mut answer = Dump::default();
            (read_datagram(bytes, 7, &mut answer), answer)
        };
        let refused = message(NLMSG_ERROR, 0, 7, &(-libc::ENOENT).to_ne_bytes());
        assert!(matches!(read(&refused).0, Err(DiagError::Refused(error))
            if error.raw_os_error() == Some(libc::ENOENT)));
        let interrupted = message(NLMSG_DONE, NLM_F_DUMP_INTR, 7, &0i32.to_ne_bytes());
        let (done, answer) = read(&interrupted);
        assert!(done.unwrap() && answer.interrupted);
        let old = message(NLMSG_DONE, 0, 6, &0i32.to_ne_bytes());
        assert!(!read(&old).0.unwrap());
        let (more, answer) = read(&message(SOCK_DIAG_BY_FAMILY, 0, 7, &[2; 20]));
        assert!(!more.unwrap() && answer.unreadable == 1);
        assert!(matches!(read(&refused[..19]).0, Err(DiagError::Truncated)));
        assert!(matches!(read(&message(NLMSG_OVERRUN, 0, 7, &[])).0, Err(DiagError::Truncated)));
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_datagram(&bytes, 0, &mut Dump::default());
        }

        #[test]
        fn any_payload_is_read_without_panic(
            family in prop::sample::select(vec![2u8, 10, 0]),
            body in prop::collection::vec(any::<u8>(), 0..200),
            kind in prop::sample::select(vec![SOCK_DIAG_BY_FAMILY, NLMSG_DONE, NLMSG_ERROR]),
        ) {
            let mut payload = vec![family];
            payload.extend(body);
            let _ = read_datagram(&message(kind, 0, 0, &payload), 0, &mut Dump::default());
        }
    }
}
