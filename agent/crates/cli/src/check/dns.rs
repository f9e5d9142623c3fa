//! DNS: the servers that this host is configured to ask.

use std::net::IpAddr;

use api_types::{Finding, PortState, Protocol, Severity, code};

use super::answers::Answers;
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

/// `resolver` is that of this host, if the agent is here, too. `is_tried`: the servers were asked.
pub(super) fn check(
    answers: &Answers,
    resolver: Option<&Resolver>,
    is_tried: bool,
    checks: &mut Checks,
) {
    let section = Section::Dns;
    let Some(resolver) = resolver else {
        checks.skip(section, "DNS servers", "the agent is on another host");
        return;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_from_resolv_conf() {
        let text = "# nameserver 192.0.2.9\nsearch x\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver x\n";
        let expected = ["127.0.0.53", "fe80::1"].map(|text| text.parse::<IpAddr>().expect("one"));
        assert_eq!(servers(text), expected);
    }
}
