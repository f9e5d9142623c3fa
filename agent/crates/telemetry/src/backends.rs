//! What each backend of a service got: the counters from which shares are computed.
//!
//! Shares themselves would be wrong to add up over hosts; counters are not.

use std::collections::BTreeMap;
use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::relations::{Backend, ServiceName};
use model::snapshot::{RelatedView, Role};
use model::tally::Tally;

const BACKEND: &[&str] =
    &["client", "client_namespace", "server", "server_namespace", "port", "role", "backend"];

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_backend_connections_total",
        kind: Kind::Counter,
        help: "Connections that became established, by the address behind the server's name; absent for servers that are called by their address.",
        labels: BACKEND,
        fed_by: "inet_sock_set_state, bootstrap_tcp",
        render: connections,
    },
    Metric {
        name: "portolan_backend_requests_total",
        kind: Kind::Counter,
        help: "Requests, by the address behind the server's name; absent for servers that are called by their address.",
        labels: BACKEND,
        fed_by: "sk_data_ready, sock_send_length",
        render: requests,
    },
    Metric {
        name: "portolan_backend_weight",
        kind: Kind::Gauge,
        help: "What a backend should get relative to the others of its server: of those that are declared (balance.weights) or otherwise known to be there (endpoints of Kubernetes Services), whether they got anything or not. Of others nothing is known: they count as 1 as long as they get something.",
        labels: BACKEND,
        fed_by: "the configuration, Kubernetes",
        render: weights,
    },
];

fn connections(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    write(view, samples, |tally| tally.connections)
}

fn requests(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
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
        // What clients of other hosts get elsewhere is seen there.
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

/// Relations that differ only in what is no label are one series.
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
