//! Which routers a connection passes: SYNs to the port itself whose TTL grows, and the ICMP answers
//! to them, which the kernel hands to the socket that sent them (`IP_RECVERR`, man 7 ip).
//!
//! Needs no privilege, and asks about the network namespace of the calling thread. A firewall that
//! treats ports differently answers as it does to the service's clients, which `ping` cannot show.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};

/// SYNs that are under way at the same time. Routers answer few per second.
const BATCH: u8 = 6;

/// What became of a SYN with a certain TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// A router at which the TTL ended.
    Router(IpAddr),
    /// The server, which accepts the connection or refuses it.
    Server,
    /// Somebody answers that the packet is not let through.
    Rejected {
        /// Who answers.
        by: IpAddr,
        /// What the ICMP message says.
        why: &'static str,
    },
    /// No answer in time.
    Silent,
}

/// The hops to `target`, in their order, up to the server, up to a hop that rejects, or `longest`.
/// Each SYN is waited for at most `patience`, which ends before the kernel repeats it if it is less
/// than a second. Silence at the end is left out.
///
/// # Errors
/// If sockets cannot be made or options cannot be set.
pub fn trace(target: SocketAddr, longest: u8, patience: Duration) -> io::Result<Vec<Hop>> {
    let mut hops = Vec::new();
    let mut first = 1;
    while first <= longest {
        let last = longest.min(first.saturating_add(BATCH - 1));
        let batch = batch(target, first..=last, patience)?;
        let end = batch.iter().position(|hop| matches!(hop, Hop::Server | Hop::Rejected { .. }));
        let is_silent = batch.iter().all(|hop| *hop == Hop::Silent);
        hops.extend(batch.into_iter().take(end.map_or(usize::MAX, |end| end + 1)));
        if end.is_some() || is_silent {
            break;
        }
        first = last + 1;
    }
    while hops.last() == Some(&Hop::Silent) {
        hops.pop();
    }
    Ok(hops)
}

/// One SYN with each TTL.
fn batch(
    target: SocketAddr,
    ttls: std::ops::RangeInclusive<u8>,
    patience: Duration,
) -> io::Result<Vec<Hop>> {
    let sent: Vec<(Socket, Option<Hop>)> =
        ttls.map(|ttl| send(target, ttl)).collect::<io::Result<_>>()?;
    let (sockets, mut hops): (Vec<Socket>, Vec<Option<Hop>>) = sent.into_iter().unzip();
    let deadline = Instant::now() + patience;
    while hops.iter().any(Option::is_none) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let open = hops.iter().enumerate().filter(|(_, hop)| hop.is_none());
        let open: Vec<usize> = open.map(|(at, _)| at).collect();
        let mut waiting: Vec<PollFd<'_>> = open
            .iter()
            .filter_map(|at| sockets.get(*at))
            .map(|socket| PollFd::new(socket, PollFlags::OUT | PollFlags::ERR))
            .collect();
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut waiting, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let ready: Vec<bool> = waiting.iter().map(|one| !one.revents().is_empty()).collect();
        for (at, _) in open.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            if let (Some(hop), Some(socket)) = (hops.get_mut(at), sockets.get(at)) {
                *hop = Some(outcome(socket)?);
            }
        }
    }
    Ok(hops.into_iter().map(|hop| hop.unwrap_or(Hop::Silent)).collect())
}

/// Sends a SYN with this TTL; returns its outcome if that is known at once.
fn send(target: SocketAddr, ttl: u8) -> io::Result<(Socket, Option<Hop>)> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if target.is_ipv4() {
        socket.set_ttl_v4(u32::from(ttl))?;
        set(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_RECVERR)?;
    } else {
        socket.set_unicast_hops_v6(u32::from(ttl))?;
        set(socket.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVERR)?;
    }
    let Err(error) = socket.connect(&SockAddr::from(target)) else {
        return Ok((socket, Some(Hop::Server)));
    };
    let hop = match error.raw_os_error() {
        Some(libc::EINPROGRESS) => None,
        Some(libc::ECONNREFUSED) => Some(Hop::Server),
        // Without a route, nothing was sent; or an answer came at once.
        _ => Some(answer(&socket).unwrap_or(Hop::Silent)),
    };
    Ok((socket, hop))
}

/// Why a socket is ready.
fn outcome(socket: &Socket) -> io::Result<Hop> {
    if let Some(hop) = answer(socket) {
        return Ok(hop);
    }
    Ok(match socket.take_error()? {
        None => Hop::Server,
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => Hop::Server,
        Some(_) => Hop::Silent,
    })
}

/// The ICMP answer to the SYN of a socket.
fn answer(socket: &Socket) -> Option<Hop> {
    let mut control = [0; 256];
    queued(socket.as_raw_fd(), &mut control).and_then(read)
}

/// Switches an option on.
fn set(socket: RawFd, level: i32, option: i32) -> io::Result<()> {
    let on: i32 = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` outlives the call, and `length` is its size.
    let result = unsafe { libc::setsockopt(socket, level, option, (&raw const on).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The control messages of the first queued error.
fn queued(socket: RawFd, control: &mut [u8]) -> Option<&[u8]> {
    // SAFETY: all zeros is a message header without buffers.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    let mut packet = [0_u8; 64];
    let mut part = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = control.len();
    // SAFETY: the header describes buffers that outlive the call, with their sizes.
    let result = unsafe { libc::recvmsg(socket, &raw mut header, libc::MSG_ERRQUEUE) };
    if result < 0 { None } else { control.get(..header.msg_controllen) }
}

/// Finds the `struct sock_extended_err` and the address behind it among control messages.
fn read(mut control: &[u8]) -> Option<Hop> {
    const WORD: usize = size_of::<usize>();
    /// `struct cmsghdr`: length, level, type.
    const HEADER: usize = WORD + 8;
    loop {
        let length = usize::from_ne_bytes(control.get(..WORD)?.try_into().ok()?);
        let number = |at: usize| {
            let bytes = control.get(at..at.checked_add(4)?)?;
            Some(i32::from_ne_bytes(bytes.try_into().ok()?))
        };
        let kind = (number(WORD)?, number(WORD + 4)?);
        let data = control.get(HEADER..length)?;
        if matches!(
            kind,
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        ) {
            return extended(data);
        }
        control = control.get(length.checked_next_multiple_of(WORD)?..)?;
    }
}

/// Reads a `struct sock_extended_err` (include/uapi/linux/errqueue.h) and the `sockaddr` behind it.
fn extended(data: &[u8]) -> Option<Hop> {
    const LENGTH: usize = 16;
    let (origin, kind, code) = (*data.get(4)?, *data.get(5)?, *data.get(6)?);
    let from = data.get(LENGTH..)?;
    let family = u16::from_ne_bytes(from.get(..2)?.try_into().ok()?);
    let by = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(from.get(4..8)?).ok()?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(from.get(8..24)?).ok()?)),
        _ => return None,
    };
    let why = match (origin, kind, code) {
        (libc::SO_EE_ORIGIN_ICMP, 11, 0) | (libc::SO_EE_ORIGIN_ICMP6, 3, 0) => {
            return Some(Hop::Router(by));
        }
        (libc::SO_EE_ORIGIN_ICMP, 3, 9 | 10 | 13) | (libc::SO_EE_ORIGIN_ICMP6, 1, 1 | 5 | 6) => {
            "a rule prohibits it"
        }
        (libc::SO_EE_ORIGIN_ICMP, 3, 0 | 6 | 11) | (libc::SO_EE_ORIGIN_ICMP6, 1, 0) => {
            "it has no route to that network"
        }
        (libc::SO_EE_ORIGIN_ICMP, 3, 1 | 7 | 12) | (libc::SO_EE_ORIGIN_ICMP6, 1, 3) => {
            "the host cannot be reached"
        }
        (libc::SO_EE_ORIGIN_ICMP, 3, 3) | (libc::SO_EE_ORIGIN_ICMP6, 1, 4) => {
            "the port cannot be reached"
        }
        (libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6, ..) => "it is not let through",
        _ => return None,
    };
    Some(Hop::Rejected { by, why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::TcpListener;

    /// A control message with an extended error from `by`.
    fn message(level: i32, option: i32, [origin, kind, code]: [u8; 3], by: IpAddr) -> Vec<u8> {
        let mut data = vec![0; 16];
        data[4..7].copy_from_slice(&[origin, kind, code]);
        match by {
            IpAddr::V4(by) => {
                data.extend((libc::AF_INET as u16).to_ne_bytes());
                data.extend([0, 0]);
                data.extend(by.octets());
            }
            IpAddr::V6(by) => {
                data.extend((libc::AF_INET6 as u16).to_ne_bytes());
                data.extend([0; 6]);
                data.extend(by.octets());
            }
        }
        let length = size_of::<usize>() + 8 + data.len();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(option.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn answers_of_routers_are_told_from_rejections() {
        let (v4, v6): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap());
        let of_v4 = |kind, code| message(libc::IPPROTO_IP, libc::IP_RECVERR, [2, kind, code], v4);
        let of_v6 =
            |kind, code| message(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, [3, kind, code], v6);
        assert_eq!(read(&of_v4(11, 0)), Some(Hop::Router(v4)));
        assert_eq!(read(&of_v6(3, 0)), Some(Hop::Router(v6)));
        let prohibited = |by| Some(Hop::Rejected { by, why: "a rule prohibits it" });
        assert_eq!((read(&of_v4(3, 13)), read(&of_v6(1, 1))), (prohibited(v4), prohibited(v6)));
        // Behind another control message.
        let other = message(libc::SOL_SOCKET, 29, [0; 3], v4);
        assert_eq!(read(&[other, of_v4(11, 0)].concat()), Some(Hop::Router(v4)));
        // An error of this host is not one of a hop.
        assert_eq!(read(&message(libc::IPPROTO_IP, libc::IP_RECVERR, [1, 0, 0], v4)), None);
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_says_is_read_without_a_panic(bytes: Vec<u8>) {
            let _ = (read(&bytes), extended(&bytes));
        }
    }

    #[test]
    fn a_server_on_this_host_is_the_first_hop_whether_it_accepts_or_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let patience = Duration::from_secs(2);
        assert_eq!(trace(target, 4, patience).unwrap(), [Hop::Server]);
        drop(listener);
        assert_eq!(trace(target, 4, patience).unwrap(), [Hop::Server]);
    }
}
