//! `--probe`: what only a connection shows, tried by this command with its caller's rights: the
//! certificates of this host's TLS servers, and whether its DNS servers answer.
//!
//! Bounded: one handshake with each of at most [`MOST`] listeners on ports that are known for TLS,
//! from the listener's own network namespace, and one question to each DNS server.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use api_types::{Finding, Port, PortState, Protocol, Severity, code};
use linux::namespaces::{self, Namespace};

use super::answers::Answers;
use super::name::Name;
use super::report::{Checks, Found};
use super::section::Section;
use crate::diagnose::{self, Certificate, TlsFault};
use crate::human;

/// Further TLS servers are left out.
const MOST: usize = 64;
/// Handshakes at the same time.
const AT_ONCE: usize = 8;
/// A certificate that expires so soon has to be renewed now.
const DAYS: i64 = 14;

/// A TLS server, and what it presented.
#[derive(Debug)]
struct Presented {
    server: Name,
    address: SocketAddr,
    result: Result<Certificate, TlsFault>,
}

/// What was tried.
#[derive(Debug, Default)]
pub(super) struct Probed {
    servers: Vec<Presented>,
    /// Servers that were left out, and why.
    skipped: Vec<String>,
    resolvers: Vec<(IpAddr, Result<(), String>)>,
}

/// Listeners of this host on ports that are known for TLS.
pub(super) fn tls_listeners(answers: &Answers) -> Vec<&Port> {
    let is_one = |port: &&Port| {
        port.protocol == Protocol::Tcp
            && port.state == PortState::Listening
            && diagnose::TLS_PORTS.contains(&port.port)
    };
    answers.ports.ports.iter().filter(is_one).collect()
}

/// Tries all of it.
pub(super) fn run(answers: &Answers, resolvers: &[IpAddr]) -> Probed {
    let (spaces, _) = namespaces::all();
    let mut probed = Probed::default();
    let listeners = tls_listeners(answers);
    if listeners.len() > MOST {
        probed.skipped.push(format!("more than {MOST} TLS servers: only these were tried"));
    }
    let mut targets: Vec<(Name, &Namespace, SocketAddr)> = Vec::new();
    for port in listeners.into_iter().take(MOST) {
        let server = Name::from(&port.holder.service);
        match spaces.iter().find(|space| space.inode == port.netns) {
            Some(space) => targets.push((server, space, reached_at(port))),
            None => probed.skipped.push(format!(
                "{}: its network namespace cannot be entered: run this as root",
                server.at(port.port)
            )),
        }
    }
    for some in targets.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let running: Vec<_> = some
                .iter()
                .map(|(_, space, address)| {
                    scope.spawn(move || diagnose::certificate(space, *address))
                })
                .collect();
            for ((server, _, address), running) in some.iter().zip(running) {
                let result =
                    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                let (server, address) = (server.clone(), *address);
                probed.servers.push(Presented { server, address, result });
            }
        });
    }
    probed.resolvers =
        resolvers.iter().map(|server| (*server, diagnose::resolver_answers(*server))).collect();
    probed
}

/// Where a listener is reached from its own namespace.
fn reached_at(port: &Port) -> SocketAddr {
    let address = match port.address {
        IpAddr::V4(address) if address.is_unspecified() => [127, 0, 0, 1].into(),
        IpAddr::V6(address) if address.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, port.port)
}

/// Judges what was tried.
pub(super) fn check(probed: &Probed, checks: &mut Checks) {
    certificates(probed, checks);
    resolvers(probed, checks);
}

fn certificates(probed: &Probed, checks: &mut Checks) {
    let section = Section::Security;
    for why in &probed.skipped {
        checks.skip(section, "certificates of TLS servers", why.as_str());
    }
    let (mut good, mut soonest) = (0u64, None::<i64>);
    for Presented { server, address, result } in &probed.servers {
        let subject = server.at(address.port());
        let (severity, said) = match result {
            Ok(Certificate { days_left: Some(days), .. }) if *days < DAYS => {
                let left = human::counted((*days).max(0).unsigned_abs(), "day");
                (Severity::Warning, format!("its certificate expires in {left}"))
            }
            Ok(Certificate { days_left, .. }) => {
                good += 1;
                soonest = soonest.into_iter().chain(*days_left).min();
                continue;
            }
            Err(TlsFault::Expired { days_ago }) => {
                let ago = days_ago.map_or_else(String::new, |days| {
                    format!(" {} ago", human::counted(days.max(0).unsigned_abs(), "day"))
                });
                (Severity::Error, format!("its certificate expired{ago}"))
            }
            Err(TlsFault::NotYetValid) => {
                (Severity::Error, "its certificate is not valid yet: compare the clocks".to_owned())
            }
            // A port that is known for TLS may be used for something else; a server that asks for
            // the client's certificate, or that is busy, has a verdict of `diagnose`.
            Err(_) => {
                let reason = format!("{subject}: no certificate was presented at {address}");
                checks.skip(section, "certificates of TLS servers", reason);
                continue;
            }
        };
        let title = format!("{subject} ({address}): {said}");
        let mut finding = Finding::new(code::SERVICE_CERTIFICATE, severity, &subject, title)
            .with("address", address.to_string())
            .with("port", u64::from(address.port()));
        finding.remediation =
            Some(format!("renew the certificate of {server}, and let the server load it"));
        checks.found.push(Found {
            server: Some(server.clone()),
            port: Some(address.port()),
            ..Found::new(finding)
        });
    }
    if good > 0 {
        let soonest = soonest.map_or_else(String::new, |days| {
            format!(", the first expires in {}", human::counted(days.unsigned_abs(), "day"))
        });
        let text = format!("certificates: {} valid{soonest}", human::counted(good, "TLS server"));
        checks.pass(section, text);
    }
}

fn resolvers(probed: &Probed, checks: &mut Checks) {
    let (well, silent): (Vec<_>, Vec<_>) =
        probed.resolvers.iter().partition(|(_, result)| result.is_ok());
    for (server, result) in silent {
        let why = result.as_ref().err().map_or("", String::as_str);
        let subject = server.to_string();
        let title = format!("the DNS server {server} of /etc/resolv.conf does not answer: {why}");
        let mut finding = Finding::new(code::RESOLVER_SILENT, Severity::Error, &subject, title);
        finding.remediation = Some(format!(
            "look at the way to {server} (UDP port 53) and at the server, or name another one in /etc/resolv.conf"
        ));
        checks.found.push(Found::new(finding));
    }
    if !well.is_empty() {
        let servers = human::counted(well.len() as u64, "DNS server");
        checks.pass(Section::Dns, format!("{servers} of /etc/resolv.conf answer"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(result: Result<Certificate, TlsFault>) -> Presented {
        let address = SocketAddr::from(([127, 0, 0, 1], 8443));
        Presented { server: Name::new("", "shop"), address, result }
    }

    #[test]
    fn certificates_that_end_and_servers_that_are_silent_are_findings() {
        let valid = |days| Ok(Certificate { days_left: Some(days), ..Certificate::default() });
        let check = |result, expected: Option<(Severity, &str)>| {
            let mut checks = Checks::default();
            let probed = Probed { servers: vec![presented(result)], ..Probed::default() };
            check(&probed, &mut checks);
            let found = checks.found.first().map(|one| &one.finding);
            let found = found.map(|one| (one.severity, one.title.as_str()));
            assert_eq!(found.map(|it| it.0), expected.map(|it| it.0), "{checks:?}");
            let says = expected.map_or("", |it| it.1);
            assert!(found.is_none_or(|it| it.1.contains(says)), "{checks:?}");
            checks
        };
        let well = check(valid(90), None);
        assert_eq!(
            well.passed[0].text,
            "certificates: 1 TLS server valid, the first expires in 90 days"
        );
        check(valid(13), Some((Severity::Warning, "expires in 13 days")));
        let expired = TlsFault::Expired { days_ago: Some(2) };
        check(Err(expired), Some((Severity::Error, "expired 2 days ago")));
        let other = check(Err(TlsFault::NotTls), None);
        assert_eq!(other.skipped.len(), 1, "{other:?}");
        let mut checks = Checks::default();
        let (well, silent) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let resolvers = vec![(well, Ok(())), (silent, Err("no answer".to_owned()))];
        super::check(&Probed { resolvers, ..Probed::default() }, &mut checks);
        assert_eq!(checks.found[0].finding.subject, "10.0.0.2");
        assert_eq!((checks.found.len(), checks.passed.len()), (1, 1), "{checks:?}");
    }
}
