//! A ruleset for nft: what was observed may connect, everything else is dropped.
//!
//! Rules are by address: nft knows no services. The same file holds on a host, in a container's
//! network namespace and on a router, because the same rules are asked for what comes in, goes out
//! and is passed on. [`read`] reads what [`text`] writes, and nothing else.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use api_types::Kind;

use super::observed::{Edge, End, Observed};
use super::verdict::{Judge, Verdict};
use crate::quote::comment;

/// The table; the file replaces it as a whole.
pub(crate) const TABLE: &str = "inet portolan-policy";

const COMMON: &str = "\
  chain common {
    ct state established,related accept
    ct state invalid counter drop
    meta l4proto { icmp, ipv6-icmp } accept
";

const HOOKS: &str = "\
  chain input {
    type filter hook input priority filter; policy drop;
    iifname \"lo\" accept
    jump common
    jump observed
    counter
  }
  chain output {
    type filter hook output priority filter; policy drop;
    oifname \"lo\" accept
    jump common
    jump observed
    counter
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    jump common
    jump observed
    counter
  }
}
";

/// One rule: these clients may connect to these servers at this port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    clients: BTreeSet<IpAddr>,
    servers: BTreeSet<IpAddr>,
    port: u16,
}

/// The rules of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ruleset(Vec<Rule>);

/// Why an edge is not in the policy.
fn reason(edge: &Edge) -> Option<&'static str> {
    let is_unknown = |end: &End| end.addresses.is_empty();
    if edge.connections == 0 {
        return Some(
            "no connection was established: attempts that failed are no reason to allow it",
        );
    }
    if edge.asked.is_some() {
        return Some(
            "the address and port were translated on the way (a Service, a published port): the agent of the server's host has the real ones",
        );
    }
    if edge.client.kind == Kind::Internet {
        return Some("clients from the internet have no addresses here");
    }
    if edge.server.kind == Kind::DnsName {
        return Some("the server is a name from DNS, whose addresses change");
    }
    if is_unknown(&edge.client) || is_unknown(&edge.server) {
        return Some("the address of an end is not known");
    }
    if !is_local(edge) && Rule::of(edge).is_empty() {
        return Some("the known addresses of its ends are not of one family");
    }
    None
}

/// Whether its connections use the loopback: to addresses there, or to the client's own.
fn is_local(edge: &Edge) -> bool {
    let (clients, servers) = (&edge.client.addresses, &edge.server.addresses);
    servers.iter().all(IpAddr::is_loopback) || clients.len() == 1 && clients == servers
}

/// The file, and how many edges it does not allow.
pub(crate) fn text(observed: &Observed, dns: &BTreeSet<IpAddr>) -> (String, usize) {
    let mut rules = String::new();
    let mut left_out = String::new();
    let (mut missing, mut local) = (0, 0);
    // Writing into a String cannot fail.
    for edge in &observed.edges {
        if let Some(reason) = reason(edge) {
            missing += 1;
            let evidence = comment(&edge.evidence());
            let _ = writeln!(left_out, "    # NOT ALLOWED {evidence}: {reason}");
            if let (Kind::Internet, false) = (edge.client.kind, edge.server.addresses.is_empty()) {
                for servers in families(&edge.server.addresses) {
                    let (family, list) = (family(&servers), list(&servers));
                    let port = edge.port;
                    let _ = writeln!(
                        left_out,
                        "    # to allow it from everywhere: {family} daddr {list} tcp dport {port} counter accept"
                    );
                }
            }
            continue;
        }
        if is_local(edge) {
            local += 1;
            continue;
        }
        let _ = writeln!(rules, "    # {}", comment(&edge.evidence()));
        for (end, what) in [(&edge.client, "client"), (&edge.server, "server")] {
            if end.is_ephemeral() {
                let _ = writeln!(
                    rules,
                    "    # the {what} is a container: its address is another one when it is made again"
                );
            }
        }
        for rule in Rule::of(edge) {
            let _ = writeln!(rules, "    {}", rule.text());
        }
    }
    let header = header(observed, missing, local);
    let dns = dns_rules(dns);
    let text = format!(
        "{header}table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{COMMON}{dns}  }}\n  chain observed {{\n{rules}{left_out}  }}\n{HOOKS}"
    );
    (text, missing)
}

fn header(observed: &Observed, missing: usize, local: usize) -> String {
    let mut text = format!(
        "# Made by `portolan policy generate --for nftables`.
# Observed: {}; {} edges by {} agent(s).
# Check it:  nft --check --file FILE         What it would cut: portolan policy test FILE
# Load it:   nft --file FILE                 It replaces the table {TABLE} and no other.
# Take back: nft delete table {TABLE}
# Before you load it on a host that you reach over the network, plan the way back:
#   (sleep 120; nft delete table {TABLE}) &
# Dropped: whatever is not below. Only TCP was observed: UDP besides DNS (NTP, QUIC, VXLAN, syslog) needs
# rules of yours. Health checks that came in the window are edges like others.
# Connections within one network namespace (lo) are not filtered: {local} edges need no rule.
",
        comment(&observed.window()),
        observed.edges.len(),
        observed.agents,
    );
    let _ = writeln!(text, "# {missing} edges are not allowed: look for NOT ALLOWED.");
    for gap in observed.gaps() {
        let _ = writeln!(text, "# {}", comment(&gap));
    }
    text
}

fn dns_rules(servers: &BTreeSet<IpAddr>) -> String {
    let both = "meta l4proto { tcp, udp } th dport 53 accept";
    if servers.is_empty() {
        return format!(
            "    # DNS, to any server: which ones is not observed; --dns ADDRESS limits it\n    {both}\n"
        );
    }
    let rules = families(servers);
    let rules = rules.map(|one| format!("    {} daddr {} {both}\n", family(&one), list(&one)));
    rules.collect::<Vec<_>>().concat()
}

/// Addresses by family, IPv4 first.
fn families(addresses: &BTreeSet<IpAddr>) -> impl Iterator<Item = BTreeSet<IpAddr>> {
    let of = |v4| addresses.iter().copied().filter(|one| one.is_ipv4() == v4).collect();
    [of(true), of(false)].into_iter().filter(|addresses: &BTreeSet<IpAddr>| !addresses.is_empty())
}

fn family(addresses: &BTreeSet<IpAddr>) -> &'static str {
    if addresses.first().is_some_and(IpAddr::is_ipv4) { "ip" } else { "ip6" }
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", all.join(", "))
}

// === impl Rule ===

impl Rule {
    /// The rules for an edge: one for each family.
    fn of(edge: &Edge) -> Vec<Self> {
        let (clients, servers) = (&edge.client.addresses, &edge.server.addresses);
        let mut rules = Vec::new();
        for servers in families(servers) {
            let same = |client: &&IpAddr| {
                servers.first().is_some_and(|server| server.is_ipv4() == client.is_ipv4())
            };
            let clients: BTreeSet<IpAddr> = clients.iter().filter(same).copied().collect();
            if !clients.is_empty() {
                rules.push(Self { clients, servers, port: edge.port });
            }
        }
        rules
    }

    fn text(&self) -> String {
        let family = family(&self.servers);
        format!(
            "{family} saddr {} {family} daddr {} tcp dport {} counter accept",
            list(&self.clients),
            list(&self.servers),
            self.port
        )
    }

    /// Reads what [`Rule::text`] writes.
    fn read(line: &str) -> Option<Self> {
        let (family, rest) = line.split_once(" saddr { ")?;
        let (clients, rest) = rest.split_once(" } ")?;
        let rest = rest.strip_prefix(family)?.strip_prefix(" daddr { ")?;
        let (servers, rest) = rest.split_once(" } tcp dport ")?;
        let port = rest.strip_suffix(" counter accept")?.parse().ok()?;
        let addresses = |list: &str| -> Option<BTreeSet<IpAddr>> {
            list.split(", ").map(|address| address.parse().ok()).collect()
        };
        let rule = Self { clients: addresses(clients)?, servers: addresses(servers)?, port };
        (rule.text() == line).then_some(rule)
    }
}

/// Reads a file that [`text`] wrote; its rules may have been edited, its frame not.
pub(crate) fn read(text: &str) -> Result<Ruleset, String> {
    let frame = format!(
        "table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{COMMON}  }}\n  chain observed {{\n  }}\n{HOOKS}"
    );
    let mut expected = frame.lines();
    let mut next = expected.next();
    let mut rules = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let bare = line.trim();
        if Some(line) == next {
            next = expected.next();
        } else if let Some(rule) = Rule::read(bare) {
            rules.push(rule);
        } else if !(bare.is_empty() || bare.starts_with('#') || is_dns(bare)) {
            return Err(format!(
                "line {}: only rules that `portolan policy generate --for nftables` writes can be tested (`ip saddr {{ A }} ip daddr {{ B }} tcp dport PORT counter accept`)",
                number + 1
            ));
        }
    }
    match next {
        None => Ok(Ruleset(rules)),
        Some(line) => Err(format!(
            "the line `{}` of `portolan policy generate --for nftables` is missing: make the file again",
            line.trim()
        )),
    }
}

fn is_dns(line: &str) -> bool {
    let rule = line.strip_suffix("meta l4proto { tcp, udp } th dport 53 accept");
    rule.is_some_and(|servers| {
        let list =
            ["ip daddr { ", "ip6 daddr { "].iter().find_map(|begin| servers.strip_prefix(begin));
        let list = list.and_then(|list| list.strip_suffix(" } "));
        servers.is_empty()
            || list.is_some_and(|list| list.split(", ").all(|one| one.parse::<IpAddr>().is_ok()))
    })
}

impl Judge for Ruleset {
    fn judge(&self, edge: &Edge) -> Verdict {
        if edge.asked.is_some() {
            return Verdict::Undecided("address and port were translated on the way".to_owned());
        }
        let (Some(client), Some(server)) =
            (edge.client.addresses.first(), edge.server.addresses.first())
        else {
            return match edge.server.addresses.first() {
                // No rule of ours admits a client without an address.
                Some(_) if edge.client.kind == Kind::Internet => {
                    Verdict::Cut("no rule for clients from the internet".to_owned())
                }
                _ => Verdict::Undecided("the address of an end is not known".to_owned()),
            };
        };
        let is_local = server.is_loopback() || client == server;
        let admits = |rule: &Rule| {
            rule.port == edge.port && rule.clients.contains(client) && rule.servers.contains(server)
        };
        if is_local || self.0.iter().any(admits) {
            Verdict::Allowed
        } else {
            Verdict::Cut(format!("no rule for {client} to {server} port {}", edge.port))
        }
    }
}

#[cfg(test)]
mod tests;
