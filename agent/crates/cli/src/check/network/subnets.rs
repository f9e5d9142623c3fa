//! Networks of container engines whose subnets overlap with each other or with the host's own.

use std::net::IpAddr;
use std::path::Path;

use api_types::{Finding, Severity, code};
use client::Client;
use serde::Deserialize;

use super::{Checks, Section, Seen};
use crate::check::report::Found;
use crate::human;

/// The sockets of engines, where they are by default.
const ENGINES: [(&str, &str); 2] =
    [("docker", "/run/docker.sock"), ("podman", "/run/podman/podman.sock")];
/// Interfaces that engines make for their networks.
const OF_ENGINES: [&str; 2] = ["bridge", "veth"];

/// A network with a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    /// Who has it, in titles.
    pub owner: String,
    pub address: IpAddr,
    pub prefix: u8,
}

/// A network as an engine lists it (`GET /networks`).
#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "IPAM", default)]
    ipam: Option<Ipam>,
}

#[derive(Default, Deserialize)]
struct Ipam {
    #[serde(rename = "Config", default)]
    config: Option<Vec<Range>>,
}

#[derive(Deserialize)]
struct Range {
    #[serde(rename = "Subnet", default)]
    subnet: String,
}

/// The networks of the engines that run here; why one that is here does not answer.
pub(super) fn read() -> Result<Vec<Subnet>, String> {
    let mut found = Vec::new();
    for (engine, socket) in ENGINES {
        let socket = Path::new(socket);
        if !socket.exists() {
            continue;
        }
        let body = Client::for_socket(socket).get("/networks");
        let body = body.map_err(|error| format!("{engine}: {error}"))?;
        found.extend(parse(engine, &body).map_err(|error| format!("{engine}: {error}"))?);
    }
    Ok(found)
}

fn parse(engine: &str, body: &str) -> serde_json::Result<Vec<Subnet>> {
    let listed: Vec<Listed> = serde_json::from_str(body)?;
    let of = |network: Listed| {
        let ranges = network.ipam.unwrap_or_default().config.unwrap_or_default();
        let owner = format!("the network {} of {engine}", network.name);
        ranges.into_iter().filter_map(move |range| {
            let (address, prefix) = range.subnet.split_once('/')?;
            let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
            Some(Subnet { owner: owner.clone(), address, prefix })
        })
    };
    Ok(listed.into_iter().flat_map(of).collect())
}

pub(super) fn check(seen: &Seen, checks: &mut Checks) {
    let engines = match &seen.subnets {
        Ok(engines) if engines.is_empty() => return,
        Ok(engines) => engines,
        Err(reason) => {
            checks.skip(Section::Network, "subnets of containers", reason.as_str());
            return;
        }
    };
    let own = own(seen);
    let mut is_well = true;
    for (at, one) in engines.iter().enumerate() {
        let others = engines.iter().skip(at + 1).chain(&own);
        for other in others.filter(|other| one.overlaps(other)) {
            is_well = false;
            let subject = format!("{} and {}", one.owner, other.owner);
            let title = format!(
                "{} ({}/{}) and {} ({}/{}) have overlapping subnets",
                one.owner, one.address, one.prefix, other.owner, other.address, other.prefix
            );
            let mut finding =
                Finding::new(code::SUBNETS_OVERLAP, Severity::Warning, &subject, title);
            finding.remediation = Some(
                "give one of them another range: `subnet` of the network, or default-address-pools of the engine"
                    .to_owned(),
            );
            checks.found.push(Found::new(finding));
        }
    }
    if is_well {
        let subnets = human::counted(engines.len() as u64, "subnet");
        checks.pass(Section::Network, format!("{subnets} of container engines, none overlaps"));
    }
}

/// Networks that the host's own interfaces are in.
fn own(seen: &Seen) -> Vec<Subnet> {
    let host = seen.networks.iter().filter(|one| Some(one.inode) == seen.host);
    host.flat_map(|network| {
        network.addresses.iter().filter_map(|one| {
            let link = network.links.iter().find(|link| link.index == one.index)?;
            let is_foreign = link.is_loopback || OF_ENGINES.contains(&&*link.kind);
            // A prefix as long as the address stands for one host, not for a network.
            let is_single = one.prefix >= if one.address.is_ipv4() { 32 } else { 128 };
            (!is_foreign && !is_single && !linux::network::is_shared(one.address)).then(|| Subnet {
                owner: format!("the host's interface {}", link.name),
                address: one.address,
                prefix: one.prefix,
            })
        })
    })
    .collect()
}

// === impl Subnet ===

impl Subnet {
    /// Whether any address is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (bits, all) = match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a) ^ u32::from(b)), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b), 128),
            _ => return false,
        };
        let prefix = u32::from(self.prefix.min(other.prefix)).min(all);
        // Equal in the bits of the shorter prefix.
        bits.checked_shr(all - prefix).unwrap_or_default() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').expect("a prefix");
        Subnet {
            owner: text.to_owned(),
            address: address.parse().expect("an address"),
            prefix: prefix.parse().expect("a prefix"),
        }
    }

    #[test]
    fn subnets_overlap_if_one_has_the_other() {
        let check = |a, b, expected| {
            assert_eq!(subnet(a).overlaps(&subnet(b)), expected, "{a} {b}");
            assert_eq!(subnet(b).overlaps(&subnet(a)), expected, "{b} {a}");
        };
        check("172.17.0.0/16", "172.17.3.0/24", true);
        check("172.17.0.0/16", "172.18.0.0/16", false);
        check("10.0.0.0/8", "10.255.255.255/32", true);
        check("0.0.0.0/0", "10.0.0.0/8", true);
        check("fd00::/64", "fd00:0:0:1::/64", false);
        check("fd00::/48", "fd00:0:0:1::/64", true);
        check("::/0", "10.0.0.0/8", false);
    }

    #[test]
    fn networks_are_read_as_engines_list_them() {
        let body = r#"[
            {"Name": "bridge", "IPAM": {"Driver": "default", "Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]}},
            {"Name": "host", "IPAM": {"Config": null}},
            {"Name": "none"},
            {"Name": "odd", "IPAM": {"Config": [{"Subnet": "x"}, {}]}}
        ]"#;
        let found = parse("docker", body).expect("networks");
        let expected =
            Subnet { owner: "the network bridge of docker".to_owned(), ..subnet("172.17.0.0/16") };
        assert_eq!(found, [expected]);
        assert!(parse("docker", "{}").is_err());
    }
}
