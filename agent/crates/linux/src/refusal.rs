//! Whether the kernel would refuse to connect to an address, and why.
//!
//! Tested with a datagram socket: its connect(2) does the same route lookup and sends nothing
//! (`__ip4_datagram_connect`, `__ip6_datagram_connect`). Routes that depend on a mark, a device or
//! the program's source address are not considered.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use super::{inspection, namespaces};

/// The errno with which a TCP connect to `remote` would fail now in the namespace with this inode;
/// 0 if it would be allowed. `process` may be in the namespace.
pub fn refusal(netns: u32, process: u32, remote: SocketAddr) -> io::Result<i32> {
    let namespace = inspection::find(netns, std::iter::once(process));
    let namespace = namespace.ok_or(io::ErrorKind::NotFound)?;
    namespaces::run_in(&namespace, || ask(remote))?
}

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

/// 0 or the errno.
fn connect(socket: &Socket, remote: SocketAddr) -> i32 {
    let refused = socket.connect(&remote.into()).err();
    refused.and_then(|error| error.raw_os_error()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::Namespace;

    #[test]
    fn the_loopback_is_reached_and_a_group_is_not() {
        let own = Namespace::current().unwrap().inode;
        let check = |remote: &str, expected| {
            let remote = remote.parse().unwrap();
            assert_eq!(refusal(own, std::process::id(), remote).unwrap(), expected, "{remote}");
        };
        check("127.0.0.1:80", 0);
        check("[::1]:80", 0);
        check("224.0.0.1:80", libc::ENETUNREACH);
        check("[ff02::1]:80", libc::ENETUNREACH);
        check("127.255.255.255:80", libc::ENETUNREACH);
        let nowhere = refusal(1, 0, "127.0.0.1:80".parse().unwrap());
        assert_eq!(nowhere.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
