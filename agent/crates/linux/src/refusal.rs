//! Why the kernel refuses to connect to an address.
//!
//! Tested with a datagram socket: its connect(2) does the same route lookup and sends nothing
//! (`__ip4_datagram_connect`, `__ip6_datagram_connect`). Routes that depend on a mark, a device or
//! the program's source address are not considered. Who has a source port is read from the kernel's
//! connections.

use std::io;
use std::net::SocketAddr;

use agent_common::address;
use agent_common::edge::{CONNECT_OTHER, CONNECT_PORT_IN_USE, CONNECT_TIME_WAIT, connect_result};
use socket2::{Domain, Socket, Type};

use super::{diag, inspection, namespaces};

/// As what (`CONNECT_*`) a TCP connect to `remote` would end now in the namespace with this inode.
/// `process` may be in the namespace. `local_port`: the source port that the program had bound and
/// that was in use, 0 if that is not why the kernel refused.
pub fn refusal(netns: u32, process: u32, local_port: u16, remote: SocketAddr) -> io::Result<u8> {
    let namespace = inspection::find(netns, std::iter::once(process));
    let namespace = namespace.ok_or(io::ErrorKind::NotFound)?;
    namespaces::run_in(&namespace, || match local_port {
        0 => Ok(match ask(remote)? {
            0 => CONNECT_OTHER, // What spoke against it has gone.
            errno => connect_result(errno),
        }),
        _ => holder(local_port, remote),
    })?
}

/// What has the source port: a connection, or the remains of one. If both are gone it was a
/// connection: TIME_WAIT lasts a minute.
fn holder(local_port: u16, remote: SocketAddr) -> io::Result<u8> {
    let address = address::from_ip(remote.ip());
    let dump = diag::connections(local_port, remote.port()).map_err(io::Error::other)?;
    let mut holders = dump.entries.iter().filter(|entry| entry.remote == address).peekable();
    let is_time_wait = holders.peek().is_some() && holders.all(diag::SocketEntry::is_closed);
    Ok(if is_time_wait { CONNECT_TIME_WAIT } else { CONNECT_PORT_IN_USE })
}

/// 0 or the errno.
fn ask(remote: SocketAddr) -> io::Result<i32> {
    if remote.ip().is_multicast() {
        return Ok(libc::ENETUNREACH); // For TCP (`tcp_v4_connect`, `tcp_v6_connect`).
    }
    let socket = Socket::new(Domain::for_address(remote), Type::DGRAM, None)?;
    let errno = connect(&socket, remote);
    if errno != libc::EACCES {
        return Ok(errno);
    }
    // EACCES: denied, or a broadcast address; the latter is allowed with SO_BROADCAST.
    socket.set_broadcast(true)?;
    Ok(if connect(&socket, remote) == 0 { libc::ENETUNREACH } else { errno })
}

/// The same for one socket.
fn connect(socket: &Socket, remote: SocketAddr) -> i32 {
    let refused = socket.connect(&remote.into()).err();
    refused.and_then(|error| error.raw_os_error()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use agent_common::edge::CONNECT_UNREACHABLE;

    use super::*;
    use crate::namespaces::Namespace;

    #[test]
    fn the_loopback_is_reached_and_a_group_is_not() {
        let own = Namespace::current().unwrap().inode;
        let check = |remote: &str, expected| {
            let remote = remote.parse().unwrap();
            let result = refusal(own, std::process::id(), 0, remote).unwrap();
            assert_eq!(result, expected, "{remote}");
        };
        check("127.0.0.1:80", CONNECT_OTHER);
        check("[::1]:80", CONNECT_OTHER);
        check("224.0.0.1:80", CONNECT_UNREACHABLE);
        check("[ff02::1]:80", CONNECT_UNREACHABLE);
        check("127.255.255.255:80", CONNECT_UNREACHABLE);
        let nowhere = refusal(1, 0, 0, "127.0.0.1:80".parse().unwrap());
        assert_eq!(nowhere.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_source_port_is_held_by_a_connection_or_by_its_remains() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let remote = listener.local_addr().unwrap();
        let client = TcpStream::connect(remote).unwrap();
        let local_port = client.local_addr().unwrap().port();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(holder(local_port, remote).unwrap(), CONNECT_PORT_IN_USE);
        drop(client);
        drop(server);
        assert_eq!(holder(local_port, remote).unwrap(), CONNECT_TIME_WAIT);
        assert_eq!(holder(local_port ^ 1, remote).unwrap(), CONNECT_PORT_IN_USE, "it has gone");
    }
}
