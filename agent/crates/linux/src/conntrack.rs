//! Translated connections of a network namespace, from the kernel's connection tracking.
//!
//! One dump over nfnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h). The kernel filters
//! for entries whose destination was translated; kernels without that filter list all of them.

use std::fs;

use agent_common::address::{self, Address};
use hashbrown::HashSet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use rustix::net::netlink;

use super::diag::{self, DiagError, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN};

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
/// `IPS_DST_NAT`: the destination was translated.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `struct nfgenmsg`, which precedes the attributes.
const HEADER: usize = 4;

/// A destination NAT: the original destination and the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// The address and port that the client connected to.
    pub original: (Address, u16),
    /// The address and port of the backend.
    pub backend: (Address, u16),
}

/// How many connections the namespace of the calling thread tracks; 0 too if it tracks none.
pub fn tracked() -> u64 {
    let text = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The translations of TCP connections in the namespace of the calling thread, each once, at most
/// `limit` of them. Needs CAP_NET_ADMIN.
pub fn translations(limit: usize) -> Result<HashSet<Translation>, DiagError> {
    let socket = diag::open(netlink::NETFILTER)?;
    let request = request(1);
    diag::send(&socket, &request)?;
    let mut found = HashSet::new();
    let mut buffer = vec![0; diag::BUFFER];
    loop {
        let datagram = diag::receive(&socket, &mut buffer)?;
        if read_datagram(datagram, 1, limit, &mut found)? {
            return Ok(found);
        }
    }
}

fn request(sequence: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(GET.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    // Family: any; version 0; no resource.
    bytes.extend([0; HEADER]);
    for kind in [STATUS, STATUS_MASK] {
        bytes.extend(8u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(DESTINATION_TRANSLATED.to_be_bytes());
    }
    let length = (bytes.len() as u32).to_ne_bytes();
    bytes.iter_mut().zip(length).for_each(|(byte, value)| *byte = value);
    bytes
}

/// Reads the messages of one datagram; returns whether the dump is complete.
pub fn read_datagram(
    mut bytes: &[u8],
    sequence: u32,
    limit: usize,
    found: &mut HashSet<Translation>,
) -> Result<bool, DiagError> {
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(|_| DiagError::Truncated)?;
        let length = message.length() as usize;
        let payload = bytes.get(16..length).ok_or(DiagError::Truncated)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        if message.sequence_number() != sequence {
            continue;
        }
        match message.message_type() {
            NLMSG_DONE => return diag::finished(payload).map(|()| true),
            NLMSG_ERROR => return diag::finished(payload).and(Err(DiagError::Truncated)),
            NLMSG_OVERRUN => return Err(DiagError::Truncated),
            NEW if found.len() < limit => found.extend(Translation::parse(payload)),
            _ => {}
        }
    }
    Ok(false)
}

impl Translation {
    /// Reads a `struct nfgenmsg` and its attributes; nothing if nothing was translated.
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
        let (original, backend) = (original.destination, reply.source);
        (original != backend).then_some(Self { original, backend })
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
    fn a_translated_connection_gives_its_backend() {
        let check = |original: (&str, u16), backend: (&str, u16), protocol, expected: bool| {
            let client =
                if original.0.contains(':') { ("fd00::9", 40000) } else { ("10.1.0.9", 40000) };
            let payload = [
                vec![0; HEADER],
                tuple(TUPLE_ORIGINAL, client, original, protocol),
                tuple(TUPLE_REPLY, backend, client, protocol),
            ]
            .concat();
            let end = |(ip, port): (&str, u16)| (address::from_ip(ip.parse().unwrap()), port);
            let translation = Translation { original: end(original), backend: end(backend) };
            assert_eq!(Translation::parse(&payload), expected.then_some(translation));
        };
        check(("10.96.0.10", 80), ("10.1.0.2", 8080), 6, true);
        check(("fd00:96::a", 80), ("fd00::2", 80), 6, true);
        check(("10.1.0.2", 80), ("10.1.0.2", 80), 6, false);
        check(("10.96.0.10", 53), ("10.1.0.2", 53), 17, false);
    }

    #[test]
    fn the_kernel_understands_the_request() {
        // Without privileges or without the module the error says so, and is not `Malformed`.
        match translations(10) {
            Ok(found) => assert!(found.len() <= 10),
            Err(error) => assert!(!error.to_string().contains("Invalid"), "{error}"),
        }
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_datagram(&bytes, 0, 10, &mut HashSet::new());
            let _ = Translation::parse(&bytes);
        }
    }
}
