//! Where the kernel sends packets for a destination: the route, its next hop and the interface
//! (rtnetlink, man 7).
//!
//! Each question is one message and one answer, about the network namespace of the calling thread.
//! Messages: include/uapi/linux/rtnetlink.h, if_link.h, neighbour.h.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use netlink_packet_core::{NLM_F_REQUEST, NlasIterator};

use crate::netlink::{
    BUFFER, DiagError, Message, NLMSG_ERROR, NLMSG_OVERRUN, finished, next, open, receive, send,
};

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const NEW_NEIGHBOUR: u16 = 28;
const GET_NEIGHBOUR: u16 = 30;

/// `struct rtmsg`, `struct ifinfomsg` and `struct ndmsg`, which precede the attributes.
const ROUTE_HEADER: usize = 12;
const LINK_HEADER: usize = 16;
const NEIGHBOUR_HEADER: usize = 12;

// RTA_*, RTAX_MTU, IFLA_*, NDA_DST.
const DESTINATION: u16 = 1;
const OUT_INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const PREFERRED_SOURCE: u16 = 7;
const METRICS: u16 = 8;
const METRIC_MTU: u16 = 2;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const NEIGHBOUR_DESTINATION: u16 = 1;

// RTN_*.
const LOCAL: u8 = 2;
const BLACKHOLE: u8 = 6;
const UNREACHABLE: u8 = 7;
const PROHIBIT: u8 = 8;

// NUD_*.
const INCOMPLETE: u16 = 0x01;
const FAILED: u16 = 0x20;
const NO_ARP: u16 = 0x40;

/// The route to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whether the destination is an address of this namespace.
    pub is_local: bool,
    /// The next hop; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that the kernel takes.
    pub source: Option<IpAddr>,
    /// Name of the interface.
    pub interface: Option<String>,
    /// The largest packet: of the route if it has a limit, else of the interface.
    pub mtu: Option<u32>,
    /// Whether the next hop, or the destination on the link, answers ARP or neighbour discovery.
    pub neighbour: Neighbour,
}

/// What is known of the next hop's link address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Neighbour {
    /// Nothing: it was not needed recently, or the link needs none.
    #[default]
    Unknown,
    /// It has one.
    Found,
    /// It was asked for, and did not answer.
    Silent,
}

/// Why there is no route.
#[derive(Debug, thiserror::Error)]
pub enum NoRoute {
    /// No route matches.
    #[error("no route")]
    Missing,
    /// A route says that it is unreachable.
    #[error("a route of type unreachable")]
    Unreachable,
    /// A route or rule prohibits it.
    #[error("a route or rule of type prohibit")]
    Prohibited,
    /// A route discards packets without a word.
    #[error("a route of type blackhole")]
    Blackhole,
    /// It could not be asked for.
    #[error(transparent)]
    Unknown(#[from] DiagError),
}

/// The route from the namespace of the calling thread to `destination`.
pub fn lookup(destination: IpAddr) -> Result<Route, NoRoute> {
    let socket = open(None::<rustix::net::Protocol>).map_err(DiagError::from)?;
    let answer = ask(&socket, &route_request(destination), NEW_ROUTE).map_err(NoRoute::of)?;
    let Found { kind, gateway, source, interface, mtu } =
        Found::parse(&answer).ok_or(DiagError::Truncated)?;
    match kind {
        BLACKHOLE => return Err(NoRoute::Blackhole),
        UNREACHABLE => return Err(NoRoute::Unreachable),
        PROHIBIT => return Err(NoRoute::Prohibited),
        _ => {}
    }
    let link = interface.and_then(|index| link(&socket, index));
    let (name, link_mtu) = link.unzip();
    let next = gateway.unwrap_or(destination);
    let neighbour = match interface {
        Some(index) if kind != LOCAL => neighbour(&socket, index, next),
        _ => Neighbour::Unknown,
    };
    let mtu = mtu.or(link_mtu.flatten());
    Ok(Route { is_local: kind == LOCAL, gateway, source, interface: name, mtu, neighbour })
}

/// A route as the kernel describes it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    kind: u8,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    interface: Option<u32>,
    mtu: Option<u32>,
}

// === impl NoRoute ===

impl NoRoute {
    /// The meaning of the errno that a lookup ends with (`fib_props`, net/ipv4/fib_semantics.c).
    fn of(error: DiagError) -> Self {
        let DiagError::Refused(refused) = &error else { return Self::Unknown(error) };
        match refused.raw_os_error() {
            Some(libc::ENETUNREACH) => Self::Missing,
            Some(libc::EHOSTUNREACH) => Self::Unreachable,
            Some(libc::EACCES) => Self::Prohibited,
            Some(libc::EINVAL) => Self::Blackhole,
            _ => Self::Unknown(error),
        }
    }
}

// === impl Found ===

impl Found {
    /// Reads a `struct rtmsg` and its attributes.
    fn parse(payload: &[u8]) -> Option<Self> {
        let kind = *payload.get(7)?;
        let mut found = Self { kind, gateway: None, source: None, interface: None, mtu: None };
        for attribute in NlasIterator::new(payload.get(ROUTE_HEADER..)?).flatten() {
            let value = attribute.value();
            match attribute.kind() {
                OUT_INTERFACE => found.interface = number(value),
                GATEWAY => found.gateway = address(value),
                PREFERRED_SOURCE => found.source = address(value),
                METRICS => {
                    let mut metrics = NlasIterator::new(value).flatten();
                    found.mtu = metrics
                        .find(|metric| metric.kind() == METRIC_MTU)
                        .and_then(|metric| number(metric.value()));
                }
                _ => {}
            }
        }
        Some(found)
    }
}

/// Name and MTU of an interface.
fn link(socket: &OwnedFd, index: u32) -> Option<(String, Option<u32>)> {
    let mut body = vec![0; LINK_HEADER];
    body.iter_mut().skip(4).zip(index.to_ne_bytes()).for_each(|(to, from)| *to = from);
    let answer = ask(socket, &message(GET_LINK, &body), NEW_LINK).ok()?;
    link_of(&answer)
}

/// Reads a `struct ifinfomsg` and its attributes.
fn link_of(payload: &[u8]) -> Option<(String, Option<u32>)> {
    let (mut name, mut mtu) = (None, None);
    for attribute in NlasIterator::new(payload.get(LINK_HEADER..)?).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            LINK_NAME => {
                let text = value.strip_suffix(b"\0").unwrap_or(value);
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            LINK_MTU => mtu = number(value),
            _ => {}
        }
    }
    Some((name?, mtu))
}

fn neighbour(socket: &OwnedFd, index: u32, address: IpAddr) -> Neighbour {
    let mut body = vec![0; NEIGHBOUR_HEADER];
    body.iter_mut().take(1).for_each(|to| *to = family(address));
    body.iter_mut().skip(4).zip(index.to_ne_bytes()).for_each(|(to, from)| *to = from);
    push_address(&mut body, NEIGHBOUR_DESTINATION, address);
    // ENOENT: it was not needed so far.
    let answer = ask(socket, &message(GET_NEIGHBOUR, &body), NEW_NEIGHBOUR);
    answer.ok().and_then(|payload| neighbour_of(&payload)).unwrap_or_default()
}

/// Reads a `struct ndmsg`.
fn neighbour_of(payload: &[u8]) -> Option<Neighbour> {
    let state = u16::from_ne_bytes(*payload.get(8..)?.first_chunk()?);
    Some(match state {
        0 => Neighbour::Unknown,
        state if state & NO_ARP != 0 => Neighbour::Unknown,
        state if state & (FAILED | INCOMPLETE) != 0 => Neighbour::Silent,
        _ => Neighbour::Found,
    })
}

fn route_request(destination: IpAddr) -> Vec<u8> {
    let bits = if destination.is_ipv4() { 32 } else { 128 };
    let mut body = vec![family(destination), bits];
    body.resize(ROUTE_HEADER, 0);
    push_address(&mut body, DESTINATION, destination);
    message(GET_ROUTE, &body)
}

/// A request with this body.
fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = 16 + body.len();
    let mut bytes = (length as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// Sends a request; returns the body of its answer, a message of type `expected`.
fn ask(socket: &OwnedFd, request: &[u8], expected: u16) -> Result<Vec<u8>, DiagError> {
    send(socket, request)?;
    let mut buffer = vec![0; BUFFER];
    let datagram = receive(socket, &mut buffer)?;
    body(datagram, expected).map(<[u8]>::to_vec)
}

/// The body of the first message of a datagram.
fn body(mut datagram: &[u8], expected: u16) -> Result<&[u8], DiagError> {
    let Message { kind, payload, .. } = next(&mut datagram)?.ok_or(DiagError::Truncated)?;
    match kind {
        NLMSG_ERROR => finished(payload).and(Err(DiagError::Truncated)),
        NLMSG_OVERRUN => Err(DiagError::Truncated),
        _ if kind == expected => Ok(payload),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// Appends an attribute; addresses need no padding.
fn push_address(bytes: &mut Vec<u8>, kind: u16, address: IpAddr) {
    let mut push = |value: &[u8]| {
        bytes.extend((4 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
    };
    match address {
        IpAddr::V4(address) => push(&address.octets()),
        IpAddr::V6(address) => push(&address.octets()),
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_loopback_is_local_and_has_a_name_and_an_mtu() {
        let route = lookup([127, 0, 0, 1].into()).expect("every namespace has one");
        assert!(route.is_local && route.gateway.is_none(), "{route:?}");
        assert_eq!(route.interface.as_deref(), Some("lo"));
        assert_eq!(route.source, Some([127, 0, 0, 1].into()));
        assert!(route.mtu.is_some_and(|mtu| mtu >= 1280), "{route:?}");
        assert_eq!(route.neighbour, Neighbour::Unknown);
    }

    #[test]
    fn what_the_kernel_answers_has_a_meaning() {
        let refused = |errno| DiagError::Refused(io::Error::from_raw_os_error(errno));
        assert!(matches!(NoRoute::of(refused(libc::ENETUNREACH)), NoRoute::Missing));
        assert!(matches!(NoRoute::of(refused(libc::EHOSTUNREACH)), NoRoute::Unreachable));
        assert!(matches!(NoRoute::of(refused(libc::EACCES)), NoRoute::Prohibited));
        assert!(matches!(NoRoute::of(refused(libc::EINVAL)), NoRoute::Blackhole));
        assert!(matches!(NoRoute::of(DiagError::Truncated), NoRoute::Unknown(_)));
        let state = |state: u16| {
            let mut payload = vec![0; NEIGHBOUR_HEADER];
            payload[8..10].copy_from_slice(&state.to_ne_bytes());
            neighbour_of(&payload)
        };
        assert_eq!(state(0x02), Some(Neighbour::Found));
        assert_eq!(state(0x20), Some(Neighbour::Silent));
        assert_eq!(state(0x01), Some(Neighbour::Silent));
        assert_eq!(state(0x40), Some(Neighbour::Unknown));
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = body(&bytes, NEW_ROUTE);
            let _ = Found::parse(&bytes);
            let _ = link_of(&bytes);
            let _ = neighbour_of(&bytes);
        }
    }
}
