//! Links between namespaces: MTUs of both ends, and addresses that are used twice.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api_types::{Finding, Severity, code};
use linux::links::Link;
use linux::network::{Network, is_shared};

use super::{Checks, Section, Seen};
use crate::check::report::Found;
use crate::human;

/// An interface: inode of its namespace, and its number there.
type Port = (u32, u32);

/// Which interfaces are in one network: each knows another of it, the first itself.
struct Segments(BTreeMap<Port, Port>);

pub(super) fn check(seen: &Seen, checks: &mut Checks) {
    let links = links(seen);
    let pairs = pairs(seen, &links);
    mtu(seen, &links, &pairs, checks);
    twice(seen, &links, &pairs, checks);
}

/// Every interface.
fn links(seen: &Seen) -> BTreeMap<Port, (&Network, &Link)> {
    let all = seen.networks.iter();
    all.flat_map(|network| {
        network.links.iter().map(move |link| ((network.inode, link.index), (network, link)))
    })
    .collect()
}

/// The two ends of each veth, once.
fn pairs(seen: &Seen, links: &BTreeMap<Port, (&Network, &Link)>) -> Vec<(Port, Port)> {
    let mut pairs = Vec::new();
    for network in &seen.networks {
        for link in network.links.iter().filter(|link| link.kind == "veth") {
            let Some(index) = link.peer else { continue };
            let netns = match link.peer_namespace {
                None => Some(network.inode),
                Some(_) => network
                    .peers
                    .iter()
                    .find(|(own, _)| *own == link.index)
                    .map(|(_, netns)| *netns),
            };
            let Some(netns) = netns else { continue };
            let (here, there) = ((network.inode, link.index), (netns, index));
            let is_back = links.get(&there).is_some_and(|(_, it)| it.peer == Some(link.index));
            if here < there && is_back {
                pairs.push((here, there));
            }
        }
    }
    pairs
}

fn mtu(
    seen: &Seen,
    links: &BTreeMap<Port, (&Network, &Link)>,
    pairs: &[(Port, Port)],
    checks: &mut Checks,
) {
    let mut is_well = true;
    for (here, there) in pairs {
        let (Some((one, a)), Some((other, b))) = (links.get(here), links.get(there)) else {
            continue;
        };
        if a.mtu == b.mtu {
            continue;
        }
        is_well = false;
        let subject =
            format!("{} of {} – {} of {}", a.name, seen.title(one), b.name, seen.title(other));
        let title = format!(
            "{subject}: MTU {} at one end, {} at the other: large packets are lost without a notice",
            a.mtu, b.mtu
        );
        let mut finding = Finding::new(code::MTU_DIFFERS, Severity::Warning, &subject, title)
            .with("mtu", u64::from(a.mtu))
            .with("peer_mtu", u64::from(b.mtu));
        finding.remediation =
            Some("set both ends to the same MTU: `ip link set DEVICE mtu N`".to_owned());
        checks.found.push(Found::new(finding));
    }
    if is_well && !pairs.is_empty() {
        let pairs = human::counted(pairs.len() as u64, "veth pair");
        checks.pass(Section::Network, format!("MTU: {pairs}, the same at both ends"));
    }
}

fn twice(
    seen: &Seen,
    links: &BTreeMap<Port, (&Network, &Link)>,
    pairs: &[(Port, Port)],
    checks: &mut Checks,
) {
    let mut segments = Segments(BTreeMap::new());
    for (here, there) in pairs {
        segments.join(*here, *there);
    }
    for (port, (_, link)) in links {
        if let Some(master) = link.master {
            segments.join(*port, (port.0, master));
        }
    }
    let mut holders: BTreeMap<(Port, IpAddr), Vec<Port>> = BTreeMap::new();
    for network in &seen.networks {
        for one in network.addresses.iter().filter(|one| !is_shared(one.address)) {
            let port = (network.inode, one.index);
            if links.get(&port).is_some_and(|(_, link)| link.is_up) {
                let segment = segments.root(port);
                holders.entry((segment, one.address)).or_default().push(port);
            }
        }
    }
    let (mut addresses, mut is_well) = (0u64, true);
    for ((_, address), ports) in holders {
        addresses += 1;
        let Some(first) = ports.first() else { continue };
        if ports.iter().all(|port| port.0 == first.0) {
            continue;
        }
        is_well = false;
        let name = |port: &Port| {
            let (network, link) = links.get(port)?;
            Some(format!("{} ({})", seen.title(network), link.name))
        };
        let names: Vec<String> = ports.iter().filter_map(name).collect();
        let title = format!("{address} is used twice in one network: by {}", names.join(" and "));
        let subject = address.to_string();
        let mut finding = Finding::new(code::ADDRESS_TWICE, Severity::Error, &subject, title)
            .with("holders", names.join(", "));
        finding.remediation = Some(
            "give one of them another address: packets reach now the one, now the other".to_owned(),
        );
        checks.found.push(Found::new(finding));
    }
    if is_well && addresses > 0 {
        let text = format!("{}: none is used twice in one network", plural(addresses));
        checks.pass(Section::Network, text);
    }
}

fn plural(addresses: u64) -> String {
    match addresses {
        1 => "1 address".to_owned(),
        n => format!("{} addresses", human::count(n)),
    }
}

// === impl Segments ===

impl Segments {
    /// The one that stands for the network of an interface.
    fn root(&self, port: Port) -> Port {
        let mut at = port;
        while let Some(next) = self.0.get(&at).filter(|next| **next != at) {
            at = *next;
        }
        at
    }

    fn join(&mut self, one: Port, other: Port) {
        let (one, other) = (self.root(one), self.root(other));
        if one != other {
            self.0.insert(one, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::links::LinkAddress;

    /// A namespace with an interface that is one end of a veth.
    fn end(inode: u32, peer: u32, mtu: u32, address: &str) -> Network {
        let link = Link {
            index: 2,
            name: "eth0".to_owned(),
            mtu,
            is_up: true,
            kind: "veth".to_owned(),
            peer: Some(2),
            peer_namespace: Some(0),
            ..Link::default()
        };
        let address = address.parse().expect("an address");
        Network {
            inode,
            links: vec![link],
            peers: vec![(2, peer)],
            addresses: vec![LinkAddress { index: 2, address, prefix: 24 }],
            ..Network::default()
        }
    }

    fn codes(networks: Vec<Network>) -> Vec<String> {
        let mut checks = Checks::default();
        check(&Seen { networks, ..Seen::default() }, &mut checks);
        checks.found.into_iter().map(|found| found.finding.code).collect()
    }

    #[test]
    fn an_address_at_both_ends_of_a_link_is_used_twice() {
        let well = vec![end(7, 8, 1500, "10.0.0.1"), end(8, 7, 1500, "10.0.0.2")];
        assert_eq!(codes(well), [""; 0]);
        let twice = vec![end(7, 8, 1500, "10.0.0.1"), end(8, 7, 1500, "10.0.0.1")];
        assert_eq!(codes(twice), ["PN606"]);
        // Of two networks that are not connected both may have it.
        let apart = vec![
            end(7, 8, 1500, "10.0.0.1"),
            end(8, 7, 1500, "10.0.0.2"),
            end(17, 18, 1500, "10.0.0.1"),
            end(18, 17, 1500, "10.0.0.2"),
        ];
        assert_eq!(codes(apart), [""; 0]);
        let shared = vec![end(7, 8, 1500, "169.254.0.1"), end(8, 7, 1500, "169.254.0.1")];
        assert_eq!(codes(shared), [""; 0]);
    }

    #[test]
    fn containers_of_one_bridge_are_one_network() {
        let bridge = |address: &str| {
            let port = |index, peer: u32| Link {
                index,
                name: format!("veth{index}"),
                mtu: 1500,
                is_up: true,
                kind: "veth".to_owned(),
                peer: Some(2),
                peer_namespace: Some(peer.cast_signed()),
                master: Some(9),
                ..Link::default()
            };
            let bridge = Link {
                index: 9,
                name: "br0".to_owned(),
                mtu: 1500,
                is_up: true,
                kind: "bridge".to_owned(),
                ..Link::default()
            };
            let address = address.parse().expect("an address");
            Network {
                inode: 1,
                links: vec![port(3, 7), port(4, 8), bridge],
                peers: vec![(3, 7), (4, 8)],
                addresses: vec![LinkAddress { index: 9, address, prefix: 24 }],
                ..Network::default()
            }
        };
        let container = |inode, own, address: &str| {
            let mut network = end(inode, 1, 1500, address);
            network.links[0].peer = Some(own);
            network
        };
        let check = |gateway: &str, addresses: [&str; 2], expected: &[&str]| {
            let networks =
                vec![bridge(gateway), container(7, 3, addresses[0]), container(8, 4, addresses[1])];
            assert_eq!(codes(networks), expected, "{gateway} {addresses:?}");
        };
        check("10.0.0.1", ["10.0.0.2", "10.0.0.3"], &[]);
        check("10.0.0.1", ["10.0.0.2", "10.0.0.2"], &["PN606"]);
        check("10.0.0.1", ["10.0.0.1", "10.0.0.3"], &["PN606"]);
    }

    #[test]
    fn ends_with_different_mtu_are_a_finding() {
        let networks = vec![end(7, 8, 1500, "10.0.0.1"), end(8, 7, 1400, "10.0.0.2")];
        assert_eq!(codes(networks), ["PN605"]);
    }
}
