//! Links of a network namespace with their counters, peers and addresses, through rtnetlink (man 7).

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NlasIterator};
use rustix::net::Protocol;

use super::netlink::{
    BUFFER, DiagError, Message, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN, finished, next, open,
    receive, send,
};

// include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h and net_namespace.h.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ID: u16 = 88;
const GET_ID: u16 = 90;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_PEER: u16 = 5;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const LINK_STATISTICS: u16 = 23;
const LINK_PEER_NAMESPACE: u16 = 37;
const INFO_KIND: u16 = 1;
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ID: u16 = 1;
const ID_OF_DESCRIPTOR: u16 = 3;
const IS_UP: u32 = 1;
const HAS_CARRIER: u32 = 0x1_0000;
const IS_LOOPBACK: u32 = 8;
/// `struct ifinfomsg`, `struct ifaddrmsg` and `struct rtgenmsg`, padded, which precede attributes.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ID_HEADER: usize = 4;

/// rtnetlink is what a netlink socket is for without a protocol.
const ROUTE: Option<Protocol> = None;

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is up.
    pub is_up: bool,
    /// Whether it has a carrier: the other end of its cable, or of veth, is up.
    pub has_carrier: bool,
    /// Whether it is a loopback.
    pub is_loopback: bool,
    /// What it is: `veth`, `bridge`; empty for hardware.
    pub kind: String,
    /// Number of the interface that it is connected to, of veth the other end.
    pub peer: Option<u32>,
    /// The namespace of that, by the id that this namespace has for it; `None` is this one.
    pub peer_namespace: Option<i32>,
    /// Number of the bridge that it is a port of.
    pub master: Option<u32>,
    /// Its counters.
    pub counters: Counters,
}

/// Counters of an interface since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets received and sent.
    pub packets: u64,
    /// Errors in both directions.
    pub errors: u64,
    /// Drops in both directions.
    pub drops: u64,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    /// Number of the interface.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of the prefix of its network.
    pub prefix: u8,
}

/// The interfaces of the calling thread's namespace.
pub fn list() -> Result<Vec<Link>, DiagError> {
    let mut links = Vec::new();
    exchange(&request(GET_LINK, NLM_F_DUMP, &[0; LINK_HEADER]), NEW_LINK, |payload| {
        links.extend(Link::parse(payload));
    })?;
    Ok(links)
}

/// The addresses of its interfaces.
pub fn addresses() -> Result<Vec<LinkAddress>, DiagError> {
    let mut found = Vec::new();
    exchange(&request(GET_ADDRESS, NLM_F_DUMP, &[0; ADDRESS_HEADER]), NEW_ADDRESS, |payload| {
        found.extend(LinkAddress::parse(payload));
    })?;
    Ok(found)
}

/// The id that the calling thread's namespace has for another one; `None` if it has none.
pub fn id_of(namespace: BorrowedFd<'_>) -> Result<Option<i32>, DiagError> {
    let mut body = vec![0; ID_HEADER];
    body.extend(8u16.to_ne_bytes());
    body.extend(ID_OF_DESCRIPTOR.to_ne_bytes());
    body.extend(namespace.as_raw_fd().to_ne_bytes());
    let mut id = None;
    exchange(&request(GET_ID, NLM_F_ACK, &body), NEW_ID, |payload| id = parse_id(payload))?;
    Ok(id)
}

fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = 16 + body.len() as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

/// Sends a request, and gives the payload of every message of a kind to `each`.
fn exchange(request: &[u8], kind: u16, mut each: impl FnMut(&[u8])) -> Result<(), DiagError> {
    let socket = open(ROUTE)?;
    send(&socket, request)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let datagram = receive(&socket, &mut buffer)?;
        if read_datagram(datagram, kind, &mut each)? {
            return Ok(());
        }
    }
}

/// Reads the messages of one datagram; returns whether the answer is complete.
fn read_datagram(
    mut bytes: &[u8],
    kind: u16,
    each: &mut impl FnMut(&[u8]),
) -> Result<bool, DiagError> {
    while let Some(Message { kind: it, payload, .. }) = next(&mut bytes)? {
        match it {
            // An error of 0 is the acknowledgement.
            NLMSG_DONE | NLMSG_ERROR => return finished(payload).map(|()| true),
            NLMSG_OVERRUN => return Err(DiagError::Truncated),
            _ if it == kind => each(payload),
            _ => {}
        }
    }
    Ok(false)
}

/// Reads what the kernel says of links, addresses and ids; for tests with arbitrary bytes.
pub fn parse(payload: &[u8]) -> (Option<Link>, Option<LinkAddress>, Option<i32>) {
    (Link::parse(payload), LinkAddress::parse(payload), parse_id(payload))
}

// === impl Link ===

impl Link {
    /// Reads a `struct ifinfomsg` and its attributes.
    fn parse(payload: &[u8]) -> Option<Self> {
        let index = number(payload.get(4..)?)?;
        let flags = number(payload.get(8..)?)?;
        let mut link = Self {
            index,
            is_up: flags & IS_UP != 0,
            has_carrier: flags & HAS_CARRIER != 0,
            is_loopback: flags & IS_LOOPBACK != 0,
            ..Self::default()
        };
        for attribute in NlasIterator::new(payload.get(LINK_HEADER..)?).flatten() {
            let value = attribute.value();
            match attribute.kind() {
                LINK_NAME => link.name = text(value),
                LINK_MTU => link.mtu = number(value)?,
                LINK_PEER => link.peer = number(value).filter(|peer| *peer != 0),
                LINK_MASTER => link.master = number(value).filter(|master| *master != 0),
                LINK_PEER_NAMESPACE => {
                    link.peer_namespace = number(value).map(u32::cast_signed);
                }
                LINK_STATISTICS => link.counters = Counters::parse(value)?,
                LINK_INFO => {
                    let mut info = NlasIterator::new(value).flatten();
                    let kind = info.find(|one| one.kind() == INFO_KIND);
                    link.kind = kind.map(|one| text(one.value())).unwrap_or_default();
                }
                _ => {}
            }
        }
        Some(link)
    }
}

// === impl Counters ===

impl Counters {
    /// Reads a `struct rtnl_link_stats64`.
    fn parse(value: &[u8]) -> Option<Self> {
        let at = |field: usize| {
            let bytes = value.get(field * 8..)?.first_chunk::<8>()?;
            Some(u64::from_ne_bytes(*bytes))
        };
        let both = |field: usize| Some(at(field)?.saturating_add(at(field + 1)?));
        Some(Self { packets: both(0)?, errors: both(4)?, drops: both(6)? })
    }

    /// The growth since an earlier reading.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(earlier.packets),
            errors: self.errors.saturating_sub(earlier.errors),
            drops: self.drops.saturating_sub(earlier.drops),
        }
    }
}

// === impl LinkAddress ===

impl LinkAddress {
    /// Reads a `struct ifaddrmsg` and its attributes.
    fn parse(payload: &[u8]) -> Option<Self> {
        let prefix = *payload.get(1)?;
        let index = number(payload.get(4..)?)?;
        let (mut address, mut local) = (None, None);
        for attribute in NlasIterator::new(payload.get(ADDRESS_HEADER..)?).flatten() {
            match attribute.kind() {
                ADDRESS => address = ip(attribute.value()),
                ADDRESS_LOCAL => local = ip(attribute.value()),
                _ => {}
            }
        }
        // Of a point-to-point link the first is the other end.
        Some(Self { index, address: local.or(address)?, prefix })
    }
}

/// The id in a `struct rtgenmsg` and its attributes; -1 is none.
fn parse_id(payload: &[u8]) -> Option<i32> {
    let mut attributes = NlasIterator::new(payload.get(ID_HEADER..)?).flatten();
    let id = attributes.find(|attribute| attribute.kind() == ID)?;
    number(id.value()).map(u32::cast_signed).filter(|id| *id >= 0)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use proptest::prelude::*;

    #[test]
    fn the_loopback_is_listed_with_its_address() {
        let links = list().unwrap();
        let loopback = links.iter().find(|link| link.is_loopback).unwrap();
        assert_eq!((loopback.name.as_str(), loopback.index), ("lo", 1));
        assert!(loopback.mtu > 1000, "{loopback:?}");
        let addresses = addresses().unwrap();
        let own = LinkAddress { index: 1, address: [127, 0, 0, 1].into(), prefix: 8 };
        assert!(!loopback.is_up || addresses.contains(&own), "{addresses:?}");
    }

    #[test]
    fn a_namespace_without_links_to_it_has_no_id() {
        let own = File::open("/proc/self/ns/net").unwrap();
        // Whether it has one depends on what runs here; the kernel has to answer.
        assert!(id_of(own.as_fd()).is_ok());
        let other = File::open("/proc/self/ns/mnt").unwrap();
        assert!(matches!(id_of(other.as_fd()), Err(DiagError::Refused(_))));
    }

    #[test]
    fn counters_grow_from_reading_to_reading() {
        let mut bytes = Vec::new();
        for field in [10u64, 20, 0, 0, 1, 2, 3, 4] {
            bytes.extend(field.to_ne_bytes());
        }
        let now = Counters::parse(&bytes).unwrap();
        assert_eq!(now, Counters { packets: 30, errors: 3, drops: 7 });
        let earlier = Counters { packets: 10, errors: 5, drops: 0 };
        assert_eq!(now.since(earlier), Counters { packets: 20, errors: 0, drops: 7 });
        assert_eq!(Counters::parse(&bytes[..60]), None);
    }

    proptest! {
        #[test]
        fn any_payload_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = read_datagram(&bytes, NEW_LINK, &mut |_| {});
        }
    }
}
