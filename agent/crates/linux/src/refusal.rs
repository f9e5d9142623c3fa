//! Whether the kernel would refuse to connect to an address, and why.
//!
//! Tested with a datagram socket: its connect(2) does the same route lookup and sends nothing
//! (`__ip4_datagram_connect`, `__ip6_datagram_connect`). Routes that depend on a mark, a device or
//! the program's source address are not considered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

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
    let family = if remote.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: socket touches no memory.
    let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and has no other owner.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let errno = connect(&socket, remote);
    if errno != libc::EACCES {
        return Ok(errno);
    }
    // EACCES: denied, or a broadcast address; the latter is allowed with SO_BROADCAST.
    let yes: libc::c_int = 1;
    // SAFETY: pointer and size are those of `yes`, which setsockopt only reads.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BROADCAST,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        );
    }
    Ok(if connect(&socket, remote) == 0 { libc::ENETUNREACH } else { errno })
}

/// 0 or the errno.
fn connect(socket: &OwnedFd, remote: SocketAddr) -> i32 {
    let fd = socket.as_raw_fd();
    let result = match remote.ip() {
        IpAddr::V4(ip) => {
            // SAFETY: zeros are a valid address.
            let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            address.sin_family = libc::AF_INET as libc::sa_family_t;
            address.sin_port = remote.port().to_be();
            address.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
            let size = size_of_val(&address) as libc::socklen_t;
            // SAFETY: pointer and size are those of `address`, which connect only reads.
            unsafe { libc::connect(fd, (&raw const address).cast(), size) }
        }
        IpAddr::V6(ip) => {
            // SAFETY: zeros are a valid address.
            let mut address: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            address.sin6_port = remote.port().to_be();
            address.sin6_addr.s6_addr = ip.octets();
            let size = size_of_val(&address) as libc::socklen_t;
            // SAFETY: as above.
            unsafe { libc::connect(fd, (&raw const address).cast(), size) }
        }
    };
    if result == 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or_default() }
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
