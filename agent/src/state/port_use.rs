//! Which ports of a network namespace are in use, and which the kernel assigns by itself.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hashbrown::HashSet;
use socket2::{Domain, Socket, Type};

use linux::diag::{self, DiagError};
use model::port::{Port, Protocol};
use model::port_ranges::PortRules;

/// Local ports of the sockets in the namespace that the calling thread is in. One in TIME_WAIT
/// does not block a bind.
pub fn taken(protocol: Protocol) -> Result<HashSet<u16>, DiagError> {
    let sockets = diag::dump_ports()?.entries.into_iter();
    Ok(sockets
        .filter(|entry| entry.protocol == protocol.number() && entry.state != diag::TIME_WAIT)
        .map(|entry| entry.local_port)
        .collect())
}

/// The first port there that needs no privilege.
pub fn first_unprivileged() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// Whether a port can be bound there on every address. Binds it briefly without listening, because
/// sock_diag does not list some sockets (bound and not listening, before Linux 6.8). Not for
/// privileged ports: the agent may not bind them.
pub fn can_bind(port: Port) -> bool {
    let v4 = bind(Domain::IPV4, port.protocol, (Ipv4Addr::UNSPECIFIED, port.number).into());
    let v6 = bind(Domain::IPV6, port.protocol, (Ipv6Addr::UNSPECIFIED, port.number).into());
    v4.is_ok() && v6.is_ok()
}

/// The sysctls of the namespace that the calling thread is in: /proc/sys/net shows those of the
/// reader (`net_ctl_permissions`, net/sysctl_net.c).
pub fn rules() -> PortRules {
    let read =
        |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    PortRules::parse(&read("ip_local_port_range"), &read("ip_local_reserved_ports"))
}

/// Binds one family and closes the socket. A dual-stack socket would hide a conflict of the other
/// family.
fn bind(domain: Domain, protocol: Protocol, address: SocketAddr) -> std::io::Result<()> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
    };
    let socket = match Socket::new(domain, kind, None) {
        Ok(socket) => socket,
        // Without IPv6 no other socket can hold the port there.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(()),
        Err(error) => return Err(error),
    };
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into()).or_else(|error| match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) if domain == Domain::IPV6 => Ok(()),
        _ => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn listeners_and_udp_sockets_take_their_ports() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let udp = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let tcp_port = listener.local_addr().unwrap().port();
        let udp_port = udp.local_addr().unwrap().port();
        assert!(taken(Protocol::Tcp).unwrap().contains(&tcp_port));
        assert!(taken(Protocol::Udp).unwrap().contains(&udp_port));
        assert!(!can_bind(Port::tcp(tcp_port)));
        assert!(!can_bind(Port::udp(udp_port)));
        drop((listener, udp));
        assert!(!taken(Protocol::Tcp).unwrap().contains(&tcp_port));
        assert!(can_bind(Port::tcp(tcp_port)));
        // A second time: the first left nothing behind.
        assert!(can_bind(Port::tcp(tcp_port)));
    }

    #[test]
    fn a_socket_that_is_bound_and_does_not_listen_takes_its_port() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        assert!(!can_bind(Port::tcp(port)));
    }

    #[test]
    fn the_rules_are_those_of_the_kernel() {
        let (first, last) = rules().ephemeral.unwrap();
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        assert!((first..=last).contains(&port));
    }
}
