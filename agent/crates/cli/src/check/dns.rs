//! DNS: lookups as they ended, and the servers that this host is configured to ask.

use std::net::IpAddr;

use api_types::{Edge, Finding, PortState, Protocol, Role, Severity, code};

use super::answers::Answers;
use super::limits::{
    ABSENT_NAMES, ABSENT_NAMES_SHARE, FAILED_LOOKUPS_ERROR, FAILED_LOOKUPS_SHARE, FEW,
};
use super::name::Name;
use super::report::{Checks, Found};
use super::section::Section;

/// The port of DNS.
const PORT: u16 = 53;
/// Where a container engine redirects to a port of its own.
const REDIRECTED: [u8; 4] = [127, 0, 0, 11];
/// At most so much of resolv.conf is read.
const LONGEST: usize = 64 << 10;

/// What this process would ask.
#[derive(Debug)]
pub(super) struct Resolver {
    /// The name servers, or why they cannot be read.
    servers: Result<Vec<IpAddr>, String>,
    /// Inode of the network namespace that they are asked from.
    netns: Option<u32>,
}

impl Resolver {
    /// Reads /etc/resolv.conf.
    pub fn read() -> Self {
        const PATH: &str = "/etc/resolv.conf";
        let text = std::fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"));
        let servers = text.map(|text| servers(text.get(..LONGEST).unwrap_or(&text)));
        let netns = linux::Namespace::current().ok().map(|own| own.inode);
        Self { servers, netns }
    }
}

impl Resolver {
    /// The servers, as far as they could be read.
    pub fn servers(&self) -> &[IpAddr] {
        self.servers.as_deref().unwrap_or_default()
    }
}

/// Addresses behind `nameserver` (man 5 resolv.conf).
fn servers(text: &str) -> Vec<IpAddr> {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next())??;
        address.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(of).collect()
}

/// `resolver` is that of this host if the agent is here, too, or why not. `is_tried`: the servers were asked.
pub(super) fn check(
    answers: &Answers,
    resolver: Result<&Resolver, &str>,
    is_tried: bool,
    checks: &mut Checks,
) {
    lookups(answers, checks);
    let section = Section::Dns;
    let resolver = match resolver {
        Ok(resolver) => resolver,
        Err(why) => return checks.skip(section, "DNS servers", why),
    };
    let servers = match &resolver.servers {
        Ok(servers) if servers.is_empty() => {
            checks.skip(section, "DNS servers", "/etc/resolv.conf names none");
            return;
        }
        Ok(servers) => servers,
        Err(reason) => {
            checks.skip(section, "DNS servers", reason.as_str());
            return;
        }
    };
    let listens = |address: &IpAddr| {
        answers.ports.ports.iter().any(|port| {
            port.port == PORT
                && Some(port.netns) == resolver.netns
                && port.protocol == Protocol::Udp
                && port.state != PortState::Connected
                && (port.address == *address || port.address.is_unspecified())
        })
    };
    let is_own = |address: &&IpAddr| address.is_loopback() && **address != IpAddr::from(REDIRECTED);
    let absent: Vec<&IpAddr> =
        servers.iter().filter(is_own).filter(|address| !listens(address)).collect();
    for address in &absent {
        let title =
            format!("/etc/resolv.conf names {address}, and no program has port {PORT} there");
        let subject = address.to_string();
        let mut finding = Finding::new(code::RESOLVER_ABSENT, Severity::Error, &subject, title)
            .with("port", u64::from(PORT));
        finding.remediation = Some(
            "start the local resolver (systemctl status systemd-resolved), or name another server in /etc/resolv.conf"
                .to_owned(),
        );
        checks.found.push(Found::new(finding));
    }
    if absent.is_empty() && servers.iter().any(|address| is_own(&address)) {
        checks.pass(section, "the local DNS server of /etc/resolv.conf listens");
    }
    if !is_tried && servers.iter().any(|address| !is_own(&address)) {
        checks.skip(section, "whether remote DNS servers answer", "--probe asks them");
    }
}

/// Lookups of a client at a server.
struct Lookups<'a> {
    edge: &'a Edge,
    all: u64,
}

/// Lookups that got no answer, and clients that mostly ask for names that do not exist.
fn lookups(answers: &Answers, checks: &mut Checks) {
    for edge in answers.edges.edges.iter().filter(|edge| edge.role == Role::Client) {
        let all = edge.dns.values().flat_map(|results| results.values()).sum();
        let lookups = Lookups { edge, all };
        checks.found.extend(lookups.failing());
        checks.found.extend(lookups.of_absent_names());
    }
}

impl Lookups<'_> {
    fn ended(&self, result: &str) -> u64 {
        self.edge.dns.values().filter_map(|results| results.get(result)).sum()
    }

    fn failing(&self) -> Option<Found> {
        let counts = ["timeout", "SERVFAIL", "REFUSED"].map(|result| (result, self.ended(result)));
        let failed: u64 = counts.iter().map(|(_, count)| count).sum();
        if failed < FEW || (failed as f64) < self.all as f64 * FAILED_LOOKUPS_SHARE {
            return None;
        }
        let is_broken = failed >= FAILED_LOOKUPS_ERROR && failed > self.all - failed;
        let severity = if is_broken { Severity::Error } else { Severity::Warning };
        let seen = counts.iter().filter(|(_, count)| *count > 0);
        let seen: Vec<String> = seen.map(|(result, count)| format!("{count} {result}")).collect();
        let says = format!("{failed} of {} DNS lookups fail ({})", self.all, seen.join(", "));
        let fix = format!(
            "ask the server by hand (dig @{}); timeouts: is it up, and does a firewall drop UDP port 53? SERVFAIL: the servers that it asks in turn",
            self.edge.server
        );
        Some(self.found(code::LOOKUPS_FAIL, severity, &says, fix, ("failed_lookups", failed)))
    }

    fn of_absent_names(&self) -> Option<Found> {
        let absent = self.ended("NXDOMAIN");
        if absent < ABSENT_NAMES || (absent as f64) < self.all as f64 * ABSENT_NAMES_SHARE {
            return None;
        }
        let says = format!("{absent} of {} DNS lookups are for names that do not exist", self.all);
        let fix = "if the names are completed by a search path, end them with a dot, or lower ndots (resolv.conf, dnsConfig of a pod)".to_owned();
        let counted = ("absent_names", absent);
        Some(self.found(code::ABSENT_NAMES, Severity::Info, &says, fix, counted))
    }

    fn found(
        &self,
        code: &'static str,
        severity: Severity,
        says: &str,
        fix: String,
        counted: (&'static str, u64),
    ) -> Found {
        let Edge { client, client_namespace, server, server_namespace, port, .. } = self.edge;
        let client = Name::new(client_namespace, client);
        let server = Name::new(server_namespace, server);
        let subject = format!("{client} → {}", server.at(*port));
        let mut finding = Finding::new(code, severity, &subject, format!("{subject}: {says}"))
            .with("clients", client.to_string())
            .with(counted.0, counted.1)
            .with("lookups", self.all)
            .with("server", server.to_string())
            .with("port", u64::from(*port));
        finding.remediation = Some(fix);
        Found { finding, clients: vec![client], server: Some(server), port: Some(*port) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{edge, healthy};
    use super::*;

    #[track_caller]
    fn check_lookups(counts: &[(&str, &str, u64)], expected: &[(&str, Severity)]) {
        let mut answers = healthy();
        let edge = edge(&mut answers);
        for (kind, result, count) in counts {
            edge.dns.entry((*kind).to_owned()).or_default().insert((*result).to_owned(), *count);
        }
        let mut checks = Checks::default();
        lookups(&answers, &mut checks);
        let found: Vec<_> = checks
            .found
            .iter()
            .map(|found| (&*found.finding.code, found.finding.severity))
            .collect();
        assert_eq!(found, expected, "{counts:?}");
    }

    #[test]
    fn lookups_that_fail_are_found_and_so_are_names_that_do_not_exist() {
        check_lookups(&[], &[]);
        check_lookups(&[("A", "NOERROR", 100), ("AAAA", "timeout", 2)], &[]);
        check_lookups(&[("A", "NOERROR", 100), ("AAAA", "timeout", 3)], &[]);
        let fails = |severity| [(code::LOOKUPS_FAIL, severity)];
        let some = [("A", "NOERROR", 40), ("AAAA", "timeout", 2), ("A", "SERVFAIL", 1)];
        check_lookups(&some, &fails(Severity::Warning));
        check_lookups(&[("A", "NOERROR", 9), ("A", "timeout", 10)], &fails(Severity::Error));
        check_lookups(&[("A", "timeout", 9)], &fails(Severity::Warning));
        check_lookups(&[("A", "NXDOMAIN", 99)], &[]);
        let absent = [("A", "NXDOMAIN", 80), ("AAAA", "NXDOMAIN", 80), ("A", "NOERROR", 40)];
        check_lookups(&absent, &[(code::ABSENT_NAMES, Severity::Info)]);
        check_lookups(&[("A", "NXDOMAIN", 100), ("A", "NOERROR", 200)], &[]);
    }

    #[test]
    fn name_servers_are_read_from_resolv_conf() {
        let text = "# nameserver 192.0.2.9\nsearch x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver x\n";
        let expected = ["127.0.0.53", "fe80::1"].map(|text| text.parse::<IpAddr>().expect("one"));
        assert_eq!(servers(text), expected);
    }
}
