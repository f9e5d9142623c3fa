//! Settings of namespaces against what services do there: routes, port ranges, accept queues.

use std::collections::HashMap;
use std::net::IpAddr;

use api_types::{Evidence, Finding, PortState, Severity, code};
use linux::links::Link;
use linux::network::{Network, is_shared};

use super::subnets::Subnet;
use super::{Answers, Checks, Name, Section, Seen, namespaces};
use crate::check::report::Found;
use crate::human;

/// Services that a title names.
const NAMED: usize = 3;

pub(super) fn check(seen: &Seen, answers: Option<&Answers>, checks: &mut Checks) {
    let Some(answers) = answers else {
        checks.skip(Section::Network, "routes and settings", "no agent says who needs them");
        return;
    };
    routes(seen, answers, checks);
    ephemeral(seen, answers, checks);
    backlogs(seen, answers, checks);
    reuse(seen, answers, checks);
    dead_links(seen, answers, checks);
}

/// Says of servers without an answer that the link of their network namespace is down.
fn dead_links(seen: &Seen, answers: &Answers, checks: &mut Checks) {
    let codes = [code::CONNECTS_TIME_OUT, code::CONNECTS_UNREACHABLE];
    for one in checks.found.iter_mut().filter(|one| codes.contains(&&*one.finding.code)) {
        let (Some(server), Some(port)) = (&one.server, one.port) else { continue };
        let mut links: Vec<(&Network, &Link)> = Vec::new();
        for network in networks_of(server, port, seen, answers) {
            let has_address =
                |link: &&Link| network.addresses.iter().any(|one| one.index == link.index);
            let own = network.links.iter().filter(|link| !link.is_loopback).filter(has_address);
            links.extend(own.map(|link| (network, link)));
        }
        let is_up = |link: &Link| link.is_up && link.has_carrier;
        let Some((network, link)) = links.first() else { continue };
        if links.iter().any(|(_, link)| is_up(link)) {
            continue;
        }
        let (name, of) = (&link.name, seen.title(network));
        let what = if link.is_up {
            "has no carrier: the other end of its link is down"
        } else {
            "is down"
        };
        one.finding.title = format!("{}; {name} of {of} {what}", one.finding.title);
        one.finding.remediation = Some(format!(
            "set the link up: `ip -d link show {name}` in {of} shows its other end, `ip link set DEVICE up`"
        ));
    }
}

/// Network namespaces of this host in which a server listens.
fn networks_of<'a>(
    server: &Name,
    port: u16,
    seen: &'a Seen,
    answers: &Answers,
) -> Vec<&'a Network> {
    let listens = answers.listeners.listeners.iter().filter(|one| {
        one.port == port
            && (&*one.service_namespace, &*one.service) == (&*server.namespace, &*server.name)
    });
    let netns: Vec<u32> = listens.map(|one| one.netns).collect();
    seen.networks.iter().filter(|one| netns.contains(&one.inode)).collect()
}

/// Clients whose connects are unreachable, in namespaces without a default route. Servers on a link
/// of the client need none.
fn routes(seen: &Seen, answers: &Answers, checks: &mut Checks) {
    let services: HashMap<u32, Name> = answers
        .ports
        .ephemeral_ports
        .iter()
        .map(|one| (one.netns, Name::from(&one.service)))
        .collect();
    let without = seen.networks.iter().filter(|one| one.has_default_route == Some(false));
    let without: Vec<&Network> = without.collect();
    let mut found = Vec::new();
    for network in &without {
        let Some(service) = services.get(&network.inode) else { continue };
        let is_concerned = checks.found.iter().any(|one| {
            one.finding.code == code::CONNECTS_UNREACHABLE
                && one.finding.severity > Severity::Info
                && one.clients.contains(service)
                && !is_on_link(one, network, seen, answers)
        });
        if !is_concerned {
            continue;
        }
        let title = format!(
            "{service} ({}) has no default route, and connects that are unreachable",
            seen.title(network)
        );
        let subject = service.to_string();
        let mut finding = Finding::new(code::NO_DEFAULT_ROUTE, Severity::Error, &subject, title);
        finding.remediation = Some(
            "look at `ip route` in that network namespace: add the route, or connect the container to the network of its server"
                .to_owned(),
        );
        found.push(Found { server: Some(service.clone()), ..Found::new(finding) });
    }
    if found.is_empty() {
        let with = seen.networks.len() - without.len();
        let text = format!(
            "routes: {with} of {} with a default route, none missed",
            namespaces(seen.networks.len())
        );
        checks.pass(Section::Network, text);
    }
    checks.found.extend(found);
}

/// Whether every address that is known of the server of a finding is in a network that `client` has an
/// interface in.
fn is_on_link(found: &Found, client: &Network, seen: &Seen, answers: &Answers) -> bool {
    let (Some(server), Some(port)) = (&found.server, found.port) else { return false };
    let addresses: Vec<IpAddr> = if let Ok(address) = server.name.parse() {
        vec![address]
    } else {
        let networks = networks_of(server, port, seen, answers).into_iter();
        let all = networks.flat_map(|one| &one.addresses).map(|one| one.address);
        all.filter(|address| !is_shared(*address)).collect()
    };
    let subnet = |address, prefix| Subnet { owner: String::new(), address, prefix };
    let is_near = |address: &IpAddr| {
        let own = client.addresses.iter();
        let mut own = own.map(|one| subnet(one.address, one.prefix));
        own.any(|own| own.overlaps(&subnet(*address, u8::MAX)))
    };
    !addresses.is_empty() && addresses.iter().all(is_near)
}

/// Listeners at ports that the kernel may give to outgoing connections first.
fn ephemeral(seen: &Seen, answers: &Answers, checks: &mut Checks) {
    let mut is_well = true;
    for network in &seen.networks {
        let Some((first, last)) = network.local_ports else { continue };
        let is_reserved =
            |port: u16| network.reserved_ports.iter().any(|(a, b)| (*a..=*b).contains(&port));
        let inside = answers.ports.ports.iter().filter(|one| {
            one.netns == network.inode
                && one.state == PortState::Listening
                && (first..=last).contains(&one.port)
                && !is_reserved(one.port)
        });
        let mut names: Vec<String> =
            inside.map(|one| Name::from(&one.holder.service).at(one.port)).collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            continue;
        }
        is_well = false;
        let name = seen.title(network);
        let subject = format!("listeners of {name}");
        let shown = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = names.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let title = format!(
            "{name}: services listen between {first} and {last}, where the kernel takes ports for outgoing connections: {shown}{more}"
        );
        let mut finding = Finding::new(code::LISTENS_IN_EPHEMERAL, Severity::Info, &subject, title)
            .with("first", u64::from(first))
            .with("last", u64::from(last))
            .with("listeners", names.len() as u64);
        finding.remediation = Some(
            "if such a service fails to start now and then: add its port to net.ipv4.ip_local_reserved_ports, or use a lower one"
                .to_owned(),
        );
        checks.found.push(Found::new(finding));
    }
    if is_well {
        checks.pass(Section::Ports, "no service listens in the range of local ports");
    }
}

/// Accept queues that are as long as the kernel allows, of services that need more.
fn backlogs(seen: &Seen, answers: &Answers, checks: &mut Checks) {
    let mut found = Vec::new();
    let full = checks.found.iter().filter(|one| one.finding.code == code::ACCEPT_QUEUE);
    for one in full {
        let (Some(server), Some(port)) = (&one.server, one.port) else { continue };
        let listeners = answers.listeners.listeners.iter().filter(|listener| {
            listener.port == port
                && *server == Name::new(&listener.service_namespace, &listener.service)
        });
        for listener in listeners {
            let network = seen.networks.iter().find(|one| one.inode == listener.netns);
            let Some(limit) = network.and_then(|network| network.somaxconn) else { continue };
            if listener.max_backlog < limit {
                continue;
            }
            let subject = server.at(port);
            let title = format!(
                "{subject}: its accept queue is as long as net.core.somaxconn allows ({})",
                human::count(u64::from(limit))
            );
            let mut finding = Finding::new(code::BACKLOG_CAPPED, Severity::Info, &subject, title)
                .with("somaxconn", u64::from(limit));
            finding.remediation = Some(
                "raise net.core.somaxconn in its network namespace, and start the service again"
                    .to_owned(),
            );
            found.push(Found {
                server: Some(server.clone()),
                port: Some(port),
                ..Found::new(finding)
            });
            break;
        }
    }
    checks.found.extend(found);
}

/// Says of local ports that run out whether the kernel may use those in TIME_WAIT again.
fn reuse(seen: &Seen, answers: &Answers, checks: &mut Checks) {
    let of_netns = |name: &Name| {
        let ranges = &answers.ports.ephemeral_ports;
        ranges.iter().find(|one| Name::from(&one.service) == *name).map(|one| one.netns)
    };
    let codes = [code::LOCAL_PORTS_LOW, code::NO_LOCAL_PORT];
    for one in checks.found.iter_mut().filter(|one| codes.contains(&&*one.finding.code)) {
        let name = one.server.as_ref().or(one.clients.first());
        let netns = name.and_then(of_netns);
        let network = seen.networks.iter().find(|network| Some(network.inode) == netns);
        if let Some(value) = network.and_then(|network| network.tw_reuse) {
            let value = Evidence::Number(u64::from(value));
            one.finding.evidence.insert("tcp_tw_reuse".to_owned(), value);
        }
    }
}
