//! The operator's rules: names by program, cgroup, port, label or address.
//!
//! A rule is one line: `WHAT:PATTERN -> NAME`, where NAME may be `NAMESPACE/NAME`.
//!
//! | what | matches |
//! |---|---|
//! | `executable` | the path of the program, if the host has this file there; or the last part of the path, if the pattern has no `/` |
//! | `cgroup` | the path in the cgroup v2 hierarchy |
//! | `port` | an owner that listens on this port |
//! | `label` | a label of the container or pod, `KEY=PATTERN` |
//! | `address` | the remote end of an edge, by address or network |
//!
//! `*` in a pattern matches any text. The first rule that matches wins, before any source.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use agent_common::address::{self, Address};
use agent_common::owner::OwnerRow;
use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::Owner;
use super::inventory::Workload;
use linux::executable::Executable;
use model::pattern::fits;
use model::service::{Kind, Service, Source, is_printable};

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    matches: Match,
    service: Service,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Match {
    Executable(String),
    Cgroup(String),
    Port(u16),
    Label(String, String),
    Address(IpNet),
}

/// A network with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    network: IpNet,
    service: Service,
}

/// All rules, in their order.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    networks: Vec<Network>,
}

impl Rules {
    /// With these rules and networks.
    pub fn new(rules: Vec<Rule>, networks: Vec<Network>) -> Self {
        Self { rules, networks }
    }

    /// Keys of labels that some rule matches.
    pub fn labels(&self) -> Arc<[String]> {
        let mut keys: Vec<String> = self
            .rules
            .iter()
            .filter_map(|rule| match &rule.matches {
                Match::Label(key, _) => Some(key.clone()),
                _ => None,
            })
            .collect();
        keys.sort();
        keys.dedup();
        keys.into()
    }

    /// Whether some rule is about listening ports.
    pub fn look_at_ports(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.matches, Match::Port(_)))
    }

    /// Whether some rule matches programs: the link to the executable is read only then.
    pub(super) fn look_at_programs(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.matches, Match::Executable(_)))
    }

    /// The name of an owner, if some rule is about it.
    pub fn owner(&self, owner: &Owner<'_>, workload: Option<&Workload>) -> Option<Service> {
        let rule = self.rules.iter().find(|rule| match &rule.matches {
            Match::Executable(pattern) => fits_program(pattern, owner),
            Match::Cgroup(pattern) => {
                owner.cgroup_info.is_some_and(|cgroup_info| fits(pattern, &cgroup_info.path))
            }
            Match::Port(port) => owner.ports.contains(port),
            Match::Label(key, pattern) => workload.is_some_and(|workload| {
                workload.labels.iter().any(|(name, value)| name == key && fits(pattern, value))
            }),
            Match::Address(_) => false,
        })?;
        Some(rule.service.clone())
    }

    /// The name of a container or pod, if some rule is about its labels.
    pub fn workload(&self, workload: &Workload) -> Option<Service> {
        let rule = self.rules.iter().find(|rule| match &rule.matches {
            Match::Label(key, pattern) => {
                workload.labels.iter().any(|(name, value)| name == key && fits(pattern, value))
            }
            _ => false,
        })?;
        Some(rule.service.clone())
    }

    /// The name of an address, if some rule is about it.
    pub fn address(&self, address: Address) -> Option<Service> {
        let ip = address::to_ip(address);
        let rule = self.rules.iter().find(
            |rule| matches!(&rule.matches, Match::Address(network) if network.contains(&ip)),
        )?;
        Some(rule.service.clone())
    }

    /// The smallest declared network that an address belongs to.
    pub fn network(&self, address: Address) -> Option<Service> {
        let ip = address::to_ip(address);
        let around = self.networks.iter().filter(|declared| declared.network.contains(&ip));
        let smallest = around.max_by_key(|declared| declared.network.prefix_len())?;
        Some(smallest.service.clone())
    }
}

impl Rule {
    /// The name it gives.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Parses a rule; the error says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "contains \"{text}\": {why}; write rules like executable:/opt/shop/* -> shop, port:9100 -> node-exporter or label:app=web -> prod/web"
            )
        };
        let (matches, name) = text.split_once("->").ok_or_else(|| wrong("it has no ->"))?;
        let (what, pattern) =
            matches.trim().split_once(':').ok_or_else(|| wrong("it has no WHAT:PATTERN"))?;
        let pattern = pattern.trim();
        if pattern.is_empty() {
            return Err(wrong("its pattern is empty"));
        }
        let matches = match what.trim() {
            "executable" => Match::Executable(pattern.to_owned()),
            "cgroup" => Match::Cgroup(pattern.to_owned()),
            "port" => {
                let port = pattern.parse().ok().filter(|port| *port != 0);
                Match::Port(port.ok_or_else(|| wrong("a port is a number from 1 to 65535"))?)
            }
            "label" => {
                let (key, value) =
                    pattern.split_once('=').ok_or_else(|| wrong("a label is KEY=PATTERN"))?;
                Match::Label(key.trim().to_owned(), value.trim().to_owned())
            }
            "address" => Match::Address(
                network(pattern).ok_or_else(|| wrong("not an address and not a network"))?,
            ),
            other => {
                return Err(wrong(&format!(
                    "{other} is not one of executable, cgroup, port, label, address"
                )));
            }
        };
        let service = named(name, Source::Rule).ok_or_else(|| wrong("it has no name"))?;
        Ok(Self { matches, service, text: text.to_owned() })
    }
}

impl Network {
    /// Parses `CIDR -> NAME`; the error says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("contains \"{text}\"; write networks with names like 10.20.0.0/16 -> warehouse")
        };
        let (cidr, name) = text.split_once("->").ok_or_else(wrong)?;
        let network = network(cidr.trim()).ok_or_else(wrong)?;
        let service = named(name, Source::Network).ok_or_else(wrong)?;
        Ok(Self { network, service })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Service { name, namespace, .. } = &self.service;
        let slash = if namespace.is_empty() { "" } else { "/" };
        write!(f, "{} -> {namespace}{slash}{name}", self.network)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn named(name: &str, source: Source) -> Option<Service> {
    let name = name.trim();
    let (namespace, name) = name.rsplit_once('/').unwrap_or(("", name));
    let (namespace, name) = (namespace.trim(), name.trim());
    let fit = |text: &str| text.chars().all(is_printable) && text.chars().count() <= 64;
    (!name.is_empty() && fit(name) && fit(namespace))
        .then(|| Service::new(name, source).within(namespace).of_kind(Kind::Declared))
}

fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().map(|net| net.trunc()).or_else(address)
}

/// The executable of a row's process while it runs. Reads /proc.
pub(super) fn executable(row: &OwnerRow) -> Option<Executable> {
    // A reused pid belongs to another process.
    let same = linux::procfs::Stat::read(row.tgid).is_ok_and(|stat| stat.comm == row.key.comm);
    same.then(|| linux::executable::of(row.tgid)).flatten()
}

/// The command that started the program of a row.
fn started_as(row: &OwnerRow) -> Option<String> {
    let comm = row.key.comm.split(|byte| *byte == 0).next().unwrap_or_default();
    let argv = row.argv.get(..row.argv_len as usize).unwrap_or(&row.argv);
    let first = argv.split(|byte| *byte == 0).next().filter(|first| !first.is_empty());
    let bytes = first.unwrap_or(comm);
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
}

/// Whether a pattern is about the program of an owner. A path is believed only of a file of the
/// host: a process says of itself how it was started, and has any path in a mount namespace of its
/// own. A name anyone can give to a program anyway.
fn fits_program(pattern: &str, owner: &Owner<'_>) -> bool {
    if pattern.contains('/') {
        let program = owner.program.filter(|program| program.is_hosts);
        return program.is_some_and(|program| fits(pattern, &program.path));
    }
    let started = || started_as(owner.row);
    let program = owner.program.map(|program| program.path.clone()).or_else(started);
    program.is_some_and(|program| fits(pattern, program.rsplit('/').next().unwrap_or(&program)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup_info::CgroupInfo;
    use agent_common::wire::Wire as _;
    use model::service::Entity;
    use proptest::prelude::*;

    fn rules(lines: &[&str]) -> Rules {
        Rules::new(lines.iter().map(|line| Rule::parse(line).unwrap()).collect(), Vec::new())
    }

    #[test]
    fn a_star_stands_for_any_text() {
        let check =
            |pattern, text, expected| assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        check("nginx", "nginx", true);
        check("nginx", "nginx2", false);
        check("nginx*", "nginx2", true);
        check("*nginx", "/usr/sbin/nginx", true);
        check("/a/*/c", "/a/b/c", true);
        check("/a/*/c", "/a/b/d", false);
        check("*", "", true);
        check("a*b*c", "a-b-b-c", true);
        check("a*a", "a", false);
    }

    #[test]
    fn owners_are_named_by_what_they_are_known_for() {
        let rules = rules(&[
            "executable:/opt/shop/* -> prod/shop",
            "executable:biller -> billing",
            "cgroup:/system.slice/backup* -> backup",
            "port:9100 -> node-exporter",
            "label:app=web-* -> prod/web",
        ]);
        let mut row = OwnerRow::zeroed();
        let check = |row: &OwnerRow,
                     program: Option<&Executable>,
                     cgroup_info: &str,
                     ports: &[u16],
                     label: &str,
                     expected: Option<&str>| {
            let cgroup_info = CgroupInfo::of(cgroup_info);
            let owner = Owner { row, cgroup_info: Some(&cgroup_info), program, ports };
            let labels = Arc::from([("app".to_owned(), label.to_owned())]);
            let workload = Workload {
                service: Service::any(),
                entity: Entity(1),
                instance: Arc::default(),
                labels,
            };
            let found = rules.owner(&owner, Some(&workload));
            let name = found.map(|found| format!("{}/{}", found.namespace, found.name));
            assert_eq!(name.as_deref(), expected);
        };
        check(&row, None, "/", &[], "", None);
        check(&row, None, "/system.slice/backup-all.service", &[], "", Some("/backup"));
        check(&row, None, "/", &[80, 9100], "", Some("/node-exporter"));
        check(&row, None, "/", &[80], "web-blue", Some("prod/web"));
        row.argv[..15].copy_from_slice(b"/opt/shop/bin/x");
        row.argv_len = 15;
        let program = |path: &str, is_hosts| Executable { path: path.to_owned(), is_hosts };
        let own = program("/opt/shop/bin/x", true);
        check(&row, Some(&own), "/", &[9100], "", Some("prod/shop"));
        // A path of another mount namespace, and what a process says of itself.
        check(&row, Some(&program("/opt/shop/bin/x", false)), "/", &[], "", None);
        check(&row, None, "/", &[], "", None);
        check(&row, Some(&program("/srv/biller", false)), "/", &[], "", Some("/billing"));
        row.argv[..15].copy_from_slice(b"/bin/biller\0abc");
        check(&row, None, "/", &[9100], "", Some("/billing"));
    }

    #[test]
    fn addresses_are_named_by_rule_or_by_the_smallest_network() {
        let networks = ["10.0.0.0/8 -> office", "10.20.0.0/16 -> stock/warehouse"];
        let rules = Rules::new(
            vec![Rule::parse("address:10.3.0.7 -> mainframe").unwrap()],
            networks.iter().map(|text| Network::parse(text).unwrap()).collect(),
        );
        let ip = |text: &str| address::from_ip(text.parse().unwrap());
        let name = |found: Option<Service>| found.map(|found| found.name.to_string());
        assert_eq!(name(rules.address(ip("10.3.0.7"))).as_deref(), Some("mainframe"));
        assert_eq!(rules.address(ip("10.3.0.8")), None);
        assert_eq!(name(rules.network(ip("10.3.0.8"))).as_deref(), Some("office"));
        assert_eq!(name(rules.network(ip("10.20.1.1"))).as_deref(), Some("warehouse"));
        assert_eq!(rules.network(ip("11.0.0.1")), None);
    }

    #[test]
    fn the_error_of_an_invalid_rule_says_what_is_expected() {
        let check = |text, expected: &str| {
            let error = Rule::parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("nginx", "it has no ->");
        check("nginx -> x", "it has no WHAT:PATTERN");
        check("exe:nginx -> x", "exe is not one of executable, cgroup, port, label, address");
        check("port:0 -> x", "a port is a number from 1 to 65535");
        check("label:app -> x", "a label is KEY=PATTERN");
        check("address:10.0.0.0/33 -> x", "not an address and not a network");
        check("port:80 -> ", "it has no name");
        check("executable: -> x", "its pattern is empty");
        assert!(Network::parse("10.0.0.0/8").unwrap_err().contains("10.20.0.0/16 -> warehouse"));
        let shown = Network::parse("10.1.2.3/8->a/b").unwrap().to_string();
        assert_eq!(shown, "10.0.0.0/8 -> a/b");
    }

    proptest! {
        #[test]
        fn any_rule_is_read_without_panic(text in "\\PC{0,60}", pattern in "[a*]{0,6}", word in "a{0,6}") {
            let _ = Rule::parse(&text);
            let _ = Network::parse(&text);
            prop_assert!(!fits(&pattern, &word) || pattern.matches('a').count() <= word.len());
        }
    }
}
