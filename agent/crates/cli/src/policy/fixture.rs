//! Flows of a shop, for tests: pods, programs, an address, the internet.

use std::collections::BTreeMap;

use api_types::{Flow, Flows, Kind, Role, ServiceLabels, Source, Timestamp, Window};

use super::observed::{Edge, Observed};

/// When the agent was asked, and when it began: an hour before.
const NOW: f64 = 1_800_000_000.0;

/// An end: `shop/web@10.0.0.1` is a Deployment, `db@10.0.0.2` a program.
fn end(text: &str) -> (String, String, Kind, Option<std::net::IpAddr>) {
    let (full, address) = text.split_once('@').unwrap_or((text, ""));
    let (namespace, name) = full.split_once('/').unwrap_or(("", full));
    let kind = match (namespace, name) {
        ("", "internet") => Kind::Internet,
        ("", name) if name.parse::<std::net::IpAddr>().is_ok() => Kind::Address,
        ("", name) if name.contains('.') => Kind::DnsName,
        ("", _) => Kind::Process,
        _ => Kind::Deployment,
    };
    (name.to_owned(), namespace.to_owned(), kind, address.parse().ok())
}

/// A flow, as its client's side has it.
pub(super) fn flow(client: &str, server: &str, port: u16, connections: u64) -> Flow {
    let (client, client_namespace, client_kind, client_address) = end(client);
    let (server, server_namespace, server_kind, server_address) = end(server);
    Flow {
        client,
        client_namespace,
        client_kind,
        client_source: Source::Process,
        client_address,
        server,
        server_namespace,
        server_kind,
        server_source: Source::Process,
        server_address,
        port,
        virtual_service: None,
        virtual_service_namespace: None,
        role: Role::Client,
        other_side: false,
        connections,
        failed: 0,
        first_seen: Timestamp::from_seconds(NOW - 3000.0),
        last_seen: Timestamp::from_seconds(NOW - 60.0),
    }
}

/// An answer with these flows, and the label `app` for each service of a namespace.
pub(super) fn answer(flows: Vec<Flow>) -> Flows {
    let timestamp = Timestamp::from_seconds(NOW);
    let mut labels = BTreeMap::new();
    for flow in &flows {
        for (namespace, name) in
            [(&flow.client_namespace, &flow.client), (&flow.server_namespace, &flow.server)]
        {
            if !namespace.is_empty() {
                let label = BTreeMap::from([("app".to_owned(), name.clone())]);
                labels.insert((namespace.clone(), name.clone()), label);
            }
        }
    }
    let labels = labels.into_iter().map(|((service_namespace, service), labels)| ServiceLabels {
        service,
        service_namespace,
        labels,
    });
    Flows {
        timestamp,
        window: Window::before(timestamp, 3600.0),
        flows,
        labels: labels.collect(),
        forgotten: 0,
    }
}

/// A shop: a client from the internet, a program that was refused, a Service, and three edges that any
/// policy can express by address.
pub(super) fn shop() -> Flows {
    let refused =
        Flow { connections: 0, failed: 3, ..flow("shop/web@10.0.0.1", "shop/old@10.0.0.9", 81, 0) };
    let translated = Flow {
        virtual_service: Some("api".to_owned()),
        virtual_service_namespace: Some("shop".to_owned()),
        ..flow("shop/web@10.0.0.1", "shop/api@10.96.0.7", 80, 7)
    };
    answer(vec![
        flow("internet", "shop/web@10.0.0.1", 443, 1200),
        flow("shop/web@10.0.0.1", "shop/api@10.0.0.2", 8080, 40),
        flow("shop/web@10.0.0.1", "shop/api@10.0.0.3", 8080, 2),
        flow("shop/api@10.0.0.2", "data/db@fd00::5", 5432, 12),
        flow("shop/api@fd00::2", "data/db@fd00::5", 5432, 3),
        flow("cron@127.0.0.1", "mail@127.0.0.1", 25, 1),
        flow("shop/api@10.0.0.2", "pay.example@203.0.113.7", 443, 5),
        refused,
        translated,
    ])
}

/// What was observed in the shop.
pub(super) fn observed() -> Observed {
    Observed::of(&[shop()], None)
}

/// A single flow as an edge.
pub(super) fn edge(client: &str, server: &str, port: u16) -> Edge {
    Edge::of(&flow(client, server, port, 1))
}
