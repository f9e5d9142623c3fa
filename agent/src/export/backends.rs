//! What each backend of a service got: the counters from which shares are computed.
//!
//! Shares themselves would be wrong to add up over hosts; counters are not.

use std::collections::BTreeMap;
use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use crate::model::relations::{Backend, ServiceName};
use crate::model::snapshot::Role;
use crate::model::tally::Tally;

const BACKEND: &[&str] =
    &["client", "client_namespace", "server", "server_namespace", "port", "role", "backend"];

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_backend_connections_total",
        kind: Kind::Counter,
        help: "Connections that became established, by the address behind the server's name; absent for servers that are called by their address.",
        labels: BACKEND,
        fed_by: "inet_sock_set_state, seed",
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
];

fn connections(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    write(view, samples, |tally| tally.connections)
}

fn requests(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    write(view, samples, |tally| tally.requests.count())
}

/// Relations that differ only in what is no label are one series.
fn write(view: &View, samples: &mut Samples<'_>, of: fn(&Tally) -> u64) -> fmt::Result {
    type Key<'a> = (&'a ServiceName, &'a ServiceName, u16, Role, Backend);
    let mut sums: BTreeMap<Key<'_>, u64> = BTreeMap::new();
    let relations = &view.snapshot.related.relations.rows;
    for (relation, history) in relations.iter().filter(|(relation, _)| relation.named) {
        let key =
            (&relation.client, &relation.server, relation.port, relation.role, relation.backend);
        *sums.entry(key).or_default() += of(&history.total);
    }
    for ((client, server, port, role, backend), sum) in sums {
        let ends = [
            ("client", &*client.name),
            ("client_namespace", &*client.namespace),
            ("server", &*server.name),
            ("server_namespace", &*server.namespace),
        ];
        let backend = backend.to_string();
        let labels =
            ((ends, [("port", port)]), [("role", role.as_str()), ("backend", backend.as_str())]);
        samples.integer(Some(&labels), sum)?;
    }
    Ok(())
}
