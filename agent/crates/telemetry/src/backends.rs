//! Connections and requests of each backend of a service: the counters from which shares are
//! computed.
//!
//! Shares cannot be added up over hosts; counters can.

use std::collections::BTreeMap;
use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples, edge_and};
use model::relations::{Backend, ServiceName};
use model::snapshot::{RelatedView, Role};
use model::tally::Tally;

/// The hook without which there are no requests.
const REQUEST_HOOK: &str = "sk_data_ready";

const BACKEND: &[&str] = edge_and!("backend");

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_backend_connections_total",
        kind: Kind::Counter,
        help: "Connections established, by address of the backend; absent for servers that are named by their address.",
        labels: BACKEND,
        fed_by: "inet_sock_set_state, bootstrap_tcp",
        render: connections,
    },
    Metric {
        name: "portolan_backend_requests_total",
        kind: Kind::Counter,
        help: "Requests, by address of the backend; absent for servers that are named by their address.",
        labels: BACKEND,
        fed_by: "sk_data_ready, sock_send_length",
        render: requests,
    },
    Metric {
        name: "portolan_backend_weight",
        kind: Kind::Gauge,
        help: "Expected share of a backend relative to the other backends of its server: for backends declared in balance.weights or known from the endpoints of Kubernetes Services, with or without traffic. Any other backend counts as 1 while it has traffic.",
        labels: BACKEND,
        fed_by: "the configuration, Kubernetes",
        render: weights,
    },
];

fn connections(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    write(view, samples, |tally| tally.connections)
}

fn requests(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    if view.lacks(REQUEST_HOOK) {
        return Ok(());
    }
    write(view, samples, |tally| tally.requests.count())
}

fn weights(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let RelatedView { weights, known, .. } = &view.snapshot.related;
    let mut groups: BTreeMap<_, BTreeMap<Backend, Option<u32>>> = BTreeMap::new();
    for ((client, server, port, role, backend), _) in sums(view, |_| 0) {
        let group = groups.entry((client, server, port, role)).or_default();
        group.insert(backend, weights.declared_for(&backend));
    }
    for ((client, server, port, role), mut backends) in groups {
        // Traffic from clients of other hosts is counted there.
        if role == Role::Client {
            for backend in known.there(server, port, &backends) {
                backends.insert(backend, Some(weights.of(&backend)));
            }
        }
        for (backend, weight) in backends {
            if let Some(weight) = weight {
                sample(samples, (client, server, port, role, backend), u64::from(weight))?;
            }
        }
    }
    Ok(())
}

type Key<'a> = (&'a ServiceName, &'a ServiceName, u16, Role, Backend);

fn write(view: &View, samples: &mut Samples<'_>, of: fn(&Tally) -> u64) -> fmt::Result {
    sums(view, of).into_iter().try_for_each(|(key, sum)| sample(samples, key, sum))
}

/// Relations with the same labels are one series.
fn sums(view: &View, of: fn(&Tally) -> u64) -> BTreeMap<Key<'_>, u64> {
    let mut sums = BTreeMap::new();
    let relations = &view.snapshot.related.relations.rows;
    for (relation, history) in relations.iter().filter(|(relation, _)| relation.named) {
        let key =
            (&relation.client, &relation.server, relation.port, relation.role, relation.backend);
        *sums.entry(key).or_default() += of(&history.total);
    }
    sums
}

fn sample(
    samples: &mut Samples<'_>,
    (client, server, port, role, backend): Key<'_>,
    value: u64,
) -> fmt::Result {
    let ends = [
        ("client", &*client.name),
        ("client_namespace", &*client.namespace),
        ("server", &*server.name),
        ("server_namespace", &*server.namespace),
    ];
    let backend = backend.to_string();
    let labels =
        ((ends, [("port", port)]), [("role", role.as_str()), ("backend", backend.as_str())]);
    samples.integer(Some(&labels), value)
}
