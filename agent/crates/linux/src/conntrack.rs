//! Tracked connections of a network namespace, from the kernel's connection tracking.
//!
//! Dumps over nfnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h). The kernel filters for
//! entries with a translated source or destination; kernels without that filter list all of them.

use std::fs;

use agent_common::address::{self, Address};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NlasIterator};
use rustix::net::netlink::NETFILTER;

use super::netlink::{
    BUFFER, DiagError, Message, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, finished, next, open,
    receive, send,
};

// include/uapi/linux/netfilter/nfnetlink.h: the subsystem is the high byte of a message's type.
const CTNETLINK: u16 = 1 << 8;
const GET: u16 = CTNETLINK | 1;
const NEW: u16 = CTNETLINK;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const STATUS_MASK: u16 = 26;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;
/// `IPS_SRC_NAT`: the source was translated.
const SOURCE_TRANSLATED: u32 = 1 << 4;
/// `IPS_DST_NAT`: the destination was translated.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `struct nfgenmsg`, which precedes the attributes.
const HEADER: usize = 4;

/// An address and a port.
pub type End = (Address, u16);

/// A TCP connection that the kernel tracks, translated or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tracked {
    /// The client.
    pub client: End,
    /// What the client connected to.
    pub requested: End,
    /// What the connection was translated to; the same if it was not.
    pub backend: End,
    /// The client as the backend sees it.
    pub seen_as: End,
}

/// Which connections to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All.
    All,
    /// Those with a translated destination.
    Destination,
    /// Those with a translated source.
    Source,
}

/// How many connections the namespace of the calling thread tracks; 0 too if it tracks none.
pub fn tracked() -> u64 {
    let text = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Calls `each` with every TCP connection of the namespace of the calling thread that passes the
/// filter, or with all if the kernel does not know filters. Needs CAP_NET_ADMIN.
pub fn connections(filter: Filter, mut each: impl FnMut(Tracked)) -> Result<(), DiagError> {
    let socket = open(NETFILTER)?;
    send(&socket, &request(1, filter))?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let datagram = receive(&socket, &mut buffer)?;
        if read_datagram(datagram, 1, &mut each)? {
            return Ok(());
        }
    }
}

fn request(sequence: u32, filter: Filter) -> Vec<u8> {
    let status = match filter {
        Filter::All => 0,
        Filter::Destination => DESTINATION_TRANSLATED,
        Filter::Source => SOURCE_TRANSLATED,
    };
    let mut bytes = vec![0; 4];
    bytes.extend(GET.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    // Family: any; version 0; no resource.
    bytes.extend([0; HEADER]);
    // The kernel refuses a mask of zero.
    let attributes = if status == 0 { &[][..] } else { &[STATUS, STATUS_MASK] };
    for kind in attributes {
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(status.to_be_bytes());
    }
    let length = (bytes.len() as u32).to_ne_bytes();
    bytes.iter_mut().zip(length).for_each(|(byte, value)| *byte = value);
    bytes
}

/// Reads the messages of one datagram; returns whether the dump is complete.
pub fn read_datagram(
    mut bytes: &[u8],
    sequence: u32,
    each: &mut impl FnMut(Tracked),
) -> Result<bool, DiagError> {
    while let Some(Message { kind, sequence: of, payload, .. }) = next(&mut bytes)? {
        if of != sequence {
            continue;
        }
        match kind {
            NLMSG_DONE => return finished(payload).map(|()| true),
            NLMSG_ERROR => return finished(payload).and(Err(DiagError::Truncated)),
            NLMSG_OVERRUN => return Err(DiagError::Truncated),
            NEW => Tracked::parse(payload).into_iter().for_each(&mut *each),
            _ => {}
        }
    }
    Ok(false)
}

impl Tracked {
    /// Whether the destination was translated.
    pub fn is_translated(&self) -> bool {
        self.requested != self.backend
    }

    /// Reads a `struct nfgenmsg` and its attributes.
    fn parse(payload: &[u8]) -> Option<Self> {
        let (mut original, mut reply) = (None, None);
        for attribute in NlasIterator::new(payload.get(HEADER..)?).flatten() {
            match attribute.kind() {
                TUPLE_ORIGINAL => original = Tuple::parse(attribute.value()),
                TUPLE_REPLY => reply = Tuple::parse(attribute.value()),
                _ => {}
            }
        }
        let (original, reply) = (original?, reply?);
        // The reply's tuple is as the answering side sees it.
        Some(Self {
            client: original.source,
            requested: original.destination,
            backend: reply.source,
            seen_as: reply.destination,
        })
    }
}

/// One direction of a TCP connection.
#[derive(Debug)]
struct Tuple {
    source: (Address, u16),
    destination: (Address, u16),
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (mut addresses, mut ports) = (Vec::new(), (None, None));
        for part in NlasIterator::new(bytes).flatten() {
            match part.kind() {
                // Source, then destination: 1 and 2 for IPv4, 3 and 4 for IPv6.
                TUPLE_IP => {
                    addresses = NlasIterator::new(part.value())
                        .flatten()
                        .filter_map(|nla| Some((nla.kind(), ip(nla.value())?)))
                        .collect();
                }
                TUPLE_PROTO => {
                    for nla in NlasIterator::new(part.value()).flatten() {
                        let port = nla.value().first_chunk().map(|port| u16::from_be_bytes(*port));
                        match nla.kind() {
                            PROTO_NUMBER if nla.value() != [libc::IPPROTO_TCP as u8] => {
                                return None;
                            }
                            PROTO_SOURCE_PORT => ports.0 = port,
                            PROTO_DESTINATION_PORT => ports.1 = port,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let at = |odd: bool| {
            addresses.iter().find(|(kind, _)| (kind % 2 == 1) == odd).map(|(_, address)| *address)
        };
        Some(Self { source: (at(true)?, ports.0?), destination: (at(false)?, ports.1?) })
    }
}

fn ip(bytes: &[u8]) -> Option<Address> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(address::from_ip(v4.into()));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| address::from_ip(v6.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn tuple(kind: u16, from: (&str, u16), to: (&str, u16), protocol: u8) -> Vec<u8> {
        const NESTED: u16 = 0x8000;
        let octets = |text: &str| match text.parse::<IpAddr>().unwrap() {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let first = if from.0.contains(':') { 3 } else { 1 };
        let ips = [nla(first, &octets(from.0)), nla(first + 1, &octets(to.0))].concat();
        let ports = [
            nla(PROTO_NUMBER, &[protocol]),
            nla(PROTO_SOURCE_PORT, &from.1.to_be_bytes()),
            nla(PROTO_DESTINATION_PORT, &to.1.to_be_bytes()),
        ]
        .concat();
        nla(
            kind | NESTED,
            &[nla(TUPLE_IP | NESTED, &ips), nla(TUPLE_PROTO | NESTED, &ports)].concat(),
        )
    }

    #[test]
    fn a_connection_has_its_ends_as_both_sides_see_them() {
        let check = |ends: [(&str, u16); 4], protocol, expected: bool| {
            let [client, requested, backend, seen_as] = ends;
            let payload = [
                vec![0; HEADER],
                tuple(TUPLE_ORIGINAL, client, requested, protocol),
                tuple(TUPLE_REPLY, backend, seen_as, protocol),
            ]
            .concat();
            let [client, requested, backend, seen_as] =
                ends.map(|(ip, port)| (address::from_ip(ip.parse().unwrap()), port));
            let tracked = Tracked { client, requested, backend, seen_as };
            assert_eq!(Tracked::parse(&payload), expected.then_some(tracked), "{ends:?}");
            assert_eq!(tracked.is_translated(), requested != backend);
        };
        let (client, server) = (("10.1.0.9", 40000), ("10.1.0.2", 8080));
        check([client, ("10.96.0.10", 80), server, client], 6, true);
        check([client, ("10.96.0.10", 80), server, ("10.1.0.1", 1024)], 6, true);
        let (six, seven) = (("fd00::9", 40000), ("fd00::2", 80));
        check([six, ("fd00:96::a", 80), seven, six], 6, true);
        check([client, server, server, client], 6, true);
        check([client, ("10.96.0.10", 53), server, client], 17, false);
    }

    #[test]
    fn the_kernel_understands_the_request() {
        for filter in [Filter::All, Filter::Destination, Filter::Source] {
            // Without privileges or without the module the error says so, and is not `Malformed`.
            if let Err(error) = connections(filter, |_| {}) {
                assert!(!error.to_string().contains("Invalid"), "{filter:?}: {error}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_datagram(&bytes, 0, &mut |_| {});
            let _ = Tracked::parse(&bytes);
        }
    }
}
