//! Edges of several hosts: those of the same ends are one.

use std::collections::BTreeMap;

use api_types::{Cause, Edge, Edges, Latency, OperationCounts, Role};
use serde::Serialize;

use super::addresses::{Book, Caller, Ends};
use super::{Combine, Host, together};

/// Changes before a fault that are shown.
const MOST_CHANGES: usize = 5;

/// What makes two edges one: ends, side, address, and the user who can have made it up.
type Key = (Ends, Role, Option<String>, Option<u32>);

/// An edge, and who has it.
struct Row {
    edge: Edge,
    hosts: Vec<usize>,
}

/// The answer as JSON.
#[derive(Serialize)]
struct Document<'a> {
    timestamp: api_types::Timestamp,
    window: api_types::Window,
    hosts: &'a [Host],
    edges: Vec<Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    edge: &'a Edge,
    /// Who counted it.
    hosts: Vec<&'a str>,
}

impl Combine for Edges {
    fn combine(
        answers: Vec<(usize, Self)>,
        book: &Book,
        hosts: &[Host],
    ) -> serde_json::Result<(Self, String)> {
        let timestamp = answers.iter().map(|(_, one)| one.timestamp).max();
        let window = together(answers.iter().map(|(_, one)| one.window));
        let all = answers
            .into_iter()
            .flat_map(|(host, one)| one.edges.into_iter().map(move |edge| (host, edge)));
        let rows = rows(all, book);
        let (Some(timestamp), Some(window)) = (timestamp, window) else {
            return Err(serde::ser::Error::custom("no host has answered"));
        };
        let name = |host: &usize| hosts.get(*host).map(|one| &*one.host);
        let shown = rows.iter().map(|row| Shown {
            edge: &row.edge,
            hosts: row.hosts.iter().filter_map(name).collect(),
        });
        let document = Document { timestamp, window, hosts, edges: shown.collect() };
        let json = serde_json::to_string(&document)?;
        let edges = rows.into_iter().map(|row| row.edge).collect();
        Ok((Self { timestamp, window, edges }, json))
    }
}

/// The edges of all hosts, each side of each once.
fn rows(all: impl Iterator<Item = (usize, Edge)>, book: &Book) -> Vec<Row> {
    let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
    for (host, mut edge) in all {
        name_ends(host, &mut edge, book);
        let key = (ends(&edge), edge.role, edge.address.clone(), edge.unverified_user);
        match rows.get_mut(&key) {
            Some(row) => {
                add(&mut row.edge, edge);
                row.hosts.push(host);
            }
            None => {
                rows.insert(key, Row { edge, hosts: vec![host] });
            }
        }
    }
    // The client's side is the one that is shown; what only servers know is added to it.
    let keys: Vec<Key> = rows.keys().filter(|key| key.1 == Role::Server).cloned().collect();
    for key in keys {
        let (ends, _, _, user) = &key;
        let of_client = |one: &&Key| one.0 == *ends && one.1 == Role::Client && one.3 == *user;
        let Some(client) = rows.keys().find(of_client).cloned() else { continue };
        let Some(server) = rows.get_mut(&key) else { continue };
        server.edge.other_side = true;
        let (responses, protocols) = (server.edge.responses.clone(), server.edge.protocols.clone());
        let errors = server.edge.why.iter().filter(|one| is_of_response(one));
        let errors: Vec<Cause> = errors.cloned().collect();
        // By address the two sides have other rows.
        let Some(row) = rows.get_mut(&client).filter(|_| client.2.is_none()) else { continue };
        if row.edge.responses.is_empty() && row.edge.protocols.is_empty() {
            row.edge.responses = responses;
            row.edge.protocols = protocols;
            add_causes(&mut row.edge.why, errors);
        }
    }
    rows.into_values().collect()
}

fn is_of_response(cause: &Cause) -> bool {
    cause.cause.starts_with("response_")
}

pub(super) fn ends(edge: &Edge) -> Ends {
    let client = (edge.client_namespace.clone(), edge.client.clone());
    (client, (edge.server_namespace.clone(), edge.server.clone()), edge.port)
}

/// Gives the end on another host the name that it has there.
fn name_ends(host: usize, edge: &mut Edge, book: &Book) {
    let known = ends(edge);
    match edge.role {
        Role::Client => {
            if let Some(server) = book.server(host, &known) {
                edge.server.clone_from(&server.name);
                edge.server_namespace.clone_from(&server.namespace);
                (edge.server_kind, edge.server_source) = (server.kind, server.source);
            }
        }
        Role::Server => match book.client(host, &known) {
            Some(Caller::Is(client)) => {
                edge.client.clone_from(&client.name);
                edge.client_namespace.clone_from(&client.namespace);
                (edge.client_kind, edge.client_source) = (client.kind, client.source);
            }
            // Each of them is an edge on their host.
            Some(Caller::IsOneOfSeveral) => edge.other_side = true,
            None => {}
        },
        Role::Listener | Role::Unknown => {}
    }
}

/// Adds what another host counted.
fn add(edge: &mut Edge, other: Edge) {
    let Edge {
        client: _,
        client_namespace: _,
        client_kind: _,
        client_source: _,
        server: _,
        server_namespace: _,
        server_kind: _,
        server_source: _,
        virtual_service,
        virtual_service_namespace,
        port: _,
        role: _,
        other_side,
        address: _,
        why,
        changes_before,
        unverified_user: _,
        connects,
        active,
        opened,
        closed,
        preexisting,
        sent_bytes,
        received_bytes,
        retransmits,
        retransmits_by_phase,
        timeouts,
        dsacks,
        limited_seconds,
        receive_queue_bytes,
        send_queue_bytes,
        close_wait,
        resets_sent,
        resets_received,
        aborts,
        unanswered,
        unanswered_stopping,
        waits,
        responses,
        protocols,
        dns,
        operations,
        operations_unanswered,
        listen_overflows,
        synack_retransmits,
        connect,
        rtt,
        request,
        dns_lookup,
    } = other;
    if edge.virtual_service.is_none() {
        edge.virtual_service = virtual_service;
        edge.virtual_service_namespace = virtual_service_namespace;
    }
    edge.other_side &= other_side;
    add_causes(&mut edge.why, why);
    edge.changes_before.extend(changes_before);
    edge.changes_before.sort_by_key(|change| std::cmp::Reverse(change.time));
    edge.changes_before.dedup();
    edge.changes_before.truncate(MOST_CHANGES);
    add_counts(&mut edge.connects, connects);
    add_counts(&mut edge.retransmits_by_phase, retransmits_by_phase);
    add_counts(&mut edge.resets_sent, resets_sent);
    add_counts(&mut edge.resets_received, resets_received);
    add_counts(&mut edge.aborts, aborts);
    add_counts(&mut edge.protocols, protocols);
    for (protocol, statuses) in responses {
        add_counts(edge.responses.entry(protocol).or_default(), statuses);
    }
    add_counts(&mut edge.operations_unanswered, operations_unanswered);
    for (protocol, by_name) in operations {
        let sums = edge.operations.entry(protocol).or_default();
        for (name, OperationCounts { statuses, duration }) in by_name {
            match sums.get_mut(&name) {
                Some(sum) => {
                    add_counts(&mut sum.statuses, statuses);
                    add_latency(&mut sum.duration, duration);
                }
                None => {
                    sums.insert(name, OperationCounts { statuses, duration });
                }
            }
        }
    }
    for (of_type, results) in dns {
        add_counts(edge.dns.entry(of_type).or_default(), results);
    }
    for (by, seconds) in limited_seconds {
        *edge.limited_seconds.entry(by).or_default() += seconds;
    }
    for (sum, n) in [
        (&mut edge.active, active),
        (&mut edge.opened, opened),
        (&mut edge.closed, closed),
        (&mut edge.preexisting, preexisting),
        (&mut edge.sent_bytes, sent_bytes),
        (&mut edge.received_bytes, received_bytes),
        (&mut edge.retransmits, retransmits),
        (&mut edge.timeouts, timeouts),
        (&mut edge.dsacks, dsacks),
        (&mut edge.unanswered, unanswered),
        (&mut edge.unanswered_stopping, unanswered_stopping),
        (&mut edge.waits, waits),
        (&mut edge.listen_overflows, listen_overflows),
        (&mut edge.synack_retransmits, synack_retransmits),
    ] {
        *sum = sum.saturating_add(n);
    }
    for (sum, n) in [
        (&mut edge.receive_queue_bytes, receive_queue_bytes),
        (&mut edge.send_queue_bytes, send_queue_bytes),
        (&mut edge.close_wait, close_wait),
    ] {
        *sum = match (*sum, n) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (known, None) | (None, known) => known,
        };
    }
    for (sum, latency) in [
        (&mut edge.connect, connect),
        (&mut edge.rtt, rtt),
        (&mut edge.request, request),
        (&mut edge.dns_lookup, dns_lookup),
    ] {
        add_latency(sum, latency);
    }
}

fn add_counts(sum: &mut BTreeMap<String, u64>, counts: BTreeMap<String, u64>) {
    for (name, n) in counts {
        let sum = sum.entry(name).or_default();
        *sum = sum.saturating_add(n);
    }
}

/// Agents give no buckets: of quantiles the highest is taken, and that of both together is not above
/// it.
fn add_latency(sum: &mut Latency, latency: Latency) {
    let Latency { count, sum_seconds, p50_seconds, p99_seconds } = latency;
    sum.count = sum.count.saturating_add(count);
    sum.sum_seconds += sum_seconds;
    sum.p50_seconds = higher(sum.p50_seconds, p50_seconds);
    sum.p99_seconds = higher(sum.p99_seconds, p99_seconds);
}

/// The higher of two quantiles.
pub(super) fn higher(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (known, None) | (None, known) => known,
    }
}

/// Adds causes; what matters most stays first, as the agent orders them.
fn add_causes(causes: &mut Vec<Cause>, more: Vec<Cause>) {
    /// Beginnings of causes, the gravest first.
    const GRAVITY: [&str; 9] = [
        "connect_",
        "listen_drop",
        "request_",
        "response_",
        "dns_",
        "abort_",
        "reset_",
        "close_wait",
        "",
    ];
    for cause in more {
        match causes.iter_mut().find(|one| one.cause == cause.cause) {
            Some(one) => one.count = one.count.saturating_add(cause.count),
            None => causes.push(cause),
        }
    }
    causes.sort_by_key(|one| {
        let gravity = GRAVITY.iter().position(|begin| one.cause.starts_with(begin));
        let is_counted = matches!(gravity, Some(0 | 5 | 6));
        (gravity, is_counted.then_some(std::cmp::Reverse(one.count)))
    });
}
