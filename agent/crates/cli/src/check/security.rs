//! Security: connections that the segments do not allow, data stores that are exposed.

use std::collections::BTreeMap;

use api_types::{Finding, PortState, SegmentEvent, Severity, ViolationReason, code};

use super::answers::Answers;
use super::name::Name;
use super::report::{Checks, Found};
use super::section::Section;
use crate::human;

/// Ports by which data stores are known. Most of them ask for no password as they are installed.
const STORES: [(u16, &str); 14] = [
    (1433, "SQL Server"),
    (2375, "Docker without TLS"),
    (2379, "etcd"),
    (3306, "MySQL"),
    (5432, "PostgreSQL"),
    (5672, "RabbitMQ"),
    (5984, "CouchDB"),
    (6379, "Redis"),
    (8086, "InfluxDB"),
    (9042, "Cassandra"),
    (9092, "Kafka"),
    (9200, "Elasticsearch"),
    (11_211, "memcached"),
    (27_017, "MongoDB"),
];

pub(super) fn check(answers: &Answers, checks: &mut Checks) {
    violations(answers, checks);
    exposed(answers, checks);
}

/// Violations in the window, one for each pair of services and port.
fn violations(answers: &Answers, checks: &mut Checks) {
    let Some(segments) = &answers.segments else {
        checks.skip(Section::Security, "segments", "none are declared");
        return;
    };
    let since = answers.edges.window.since;
    let mut of_edges: BTreeMap<(Name, Name, u16, ViolationReason), Vec<&SegmentEvent>> =
        BTreeMap::new();
    for event in segments.events.iter().filter(|event| event.last_seen >= since) {
        let client = Name::new(&event.client_namespace, &event.client);
        let server = Name::new(&event.server_namespace, &event.server);
        of_edges.entry((client, server, event.port, event.reason)).or_default().push(event);
    }
    let is_well = of_edges.is_empty();
    for ((client, server, port, reason), events) in of_edges {
        let Some(first) = events.first() else { continue };
        let count: u64 = events.iter().map(|event| event.connections).sum();
        let subject = format!("{client} → {}", server.at(port));
        let rule = format!("{} -> {}", first.client_segment, first.server_segment);
        let (wrong, remediation) = match reason {
            ViolationReason::NotAllowed => (
                "not allowed by the segments",
                format!("stop {client}, or allow it: add \"{rule}\" to segments.allow"),
            ),
            ViolationReason::Plaintext => (
                "in plain text, and the segments require TLS",
                format!(
                    "let {client} connect with TLS (https, sslmode=require); {server} has to offer it. The rule is in segments.require_tls"
                ),
            ),
        };
        let title = format!(
            "{client} ({}) → {} ({}): {wrong} ({})",
            first.client_segment,
            server.at(port),
            first.server_segment,
            human::counted(count, "connection")
        );
        let mut finding = Finding::new(code::VIOLATION, Severity::Error, &subject, title)
            .with("client_segment", first.client_segment.as_str())
            .with("server_segment", first.server_segment.as_str())
            .with("reason", reason.as_str())
            .with("connections", count)
            .with("port", u64::from(port));
        finding.since = events.iter().map(|event| event.first_seen).min();
        finding.remediation = Some(remediation);
        checks.found.push(Found {
            finding,
            clients: vec![client],
            server: Some(server),
            port: Some(port),
        });
    }
    if is_well {
        let segments = human::counted(segments.segments.len() as u64, "segment");
        checks.pass(Section::Security, format!("segments: {segments}, no violation"));
    }
}

/// Data stores that listen on every interface of the host, and are in no segment.
fn exposed(answers: &Answers, checks: &mut Checks) {
    let Some(host) = answers.ports.host_netns else {
        checks.skip(
            Section::Security,
            "exposed data stores",
            "the host's network namespace is not known to the agent",
        );
        return;
    };
    let is_declared = |name: &Name| {
        answers.segments.iter().flat_map(|declared| &declared.segments).any(|segment| {
            let full = human::full_name(&name.namespace, &name.name);
            segment.services.iter().any(|one| *one == name.name || *one == full)
                || segment.namespaces.contains(&name.namespace)
        })
    };
    let mut found = 0;
    for port in &answers.ports.ports {
        let Some((_, what)) = STORES.iter().find(|(number, _)| *number == port.port) else {
            continue;
        };
        let name = Name::from(&port.holder.service);
        let is_open = port.netns == host
            && port.state == PortState::Listening
            && port.address.is_unspecified();
        if !is_open || is_declared(&name) {
            continue;
        }
        found += 1;
        let at = std::net::SocketAddr::new(port.address, port.port);
        let title =
            format!("{name} listens on {at} ({what}): every interface of the host reaches it");
        let mut finding =
            Finding::new(code::STORE_EXPOSED, Severity::Info, &name.at(port.port), title)
                .with("address", at.to_string())
                .with("port", u64::from(port.port));
        finding.remediation = Some(
            "bind it to an internal address, let a firewall restrict the port, or declare a segment that says who may connect"
                .to_owned(),
        );
        checks.found.push(Found {
            server: Some(name),
            port: Some(port.port),
            ..Found::new(finding)
        });
    }
    if found == 0 {
        checks.pass(
            Section::Security,
            "no data store listens on all interfaces of the host without a segment",
        );
    }
}
