//! Flows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api_types::{Flow, Flows, ServiceLabels, Timestamp, Window};
use model::flows;
use model::relations::ServiceName;
use model::snapshot::Snapshot;

use super::edges::since_start;
use super::{ToApi, whole_seconds};

/// The response: the flows with an end that is `wanted`.
pub fn flows(snapshot: &Snapshot, wanted: impl Fn(&ServiceName) -> bool) -> Flows {
    let view = &snapshot.related.flows;
    let mut rows: Vec<&(Arc<flows::Flow>, flows::Seen)> =
        view.rows.iter().filter(|(flow, _)| wanted(&flow.client) || wanted(&flow.server)).collect();
    rows.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let ends: BTreeSet<&ServiceName> =
        rows.iter().flat_map(|(flow, _)| [&flow.client, &flow.server]).collect();
    let known = &snapshot.related.directory.labels;
    let labels = ends.into_iter().filter_map(|ServiceName { namespace, name }| {
        let labels: BTreeMap<_, _> = known
            .written(name, namespace)
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        (!labels.is_empty()).then(|| ServiceLabels {
            service: name.to_string(),
            service_namespace: namespace.to_string(),
            labels,
        })
    });
    let timestamp = Timestamp::from_seconds(snapshot.taken_seconds);
    Flows {
        timestamp,
        window: Window::before(timestamp, since_start(snapshot)),
        labels: labels.collect(),
        flows: rows.into_iter().map(flow).collect(),
        forgotten: view.forgotten,
    }
}

fn flow((flow, seen): &(Arc<flows::Flow>, flows::Seen)) -> Flow {
    let flows::Flow {
        client,
        server,
        port,
        role,
        counts,
        client_address,
        server_address,
        virtual_service,
    } = &**flow;
    let flows::Seen { connections, failed, first_seconds, last_seconds, .. } = *seen;
    Flow {
        client: client.name.to_string(),
        client_namespace: client.namespace.to_string(),
        client_kind: seen.client.0.to_api(),
        client_source: seen.client.1.to_api(),
        client_address: *client_address,
        server: server.name.to_string(),
        server_namespace: server.namespace.to_string(),
        server_kind: seen.server.0.to_api(),
        server_source: seen.server.1.to_api(),
        server_address: *server_address,
        port: *port,
        virtual_service: virtual_service.as_ref().map(|service| service.name.to_string()),
        virtual_service_namespace: virtual_service
            .as_ref()
            .map(|service| service.namespace.to_string()),
        role: role.to_api(),
        other_side: !counts,
        connections,
        failed,
        first_seen: whole_seconds(first_seconds),
        last_seen: whole_seconds(last_seconds),
    }
}
