//! Listening sockets: their services, and events before a connection exists.
//!
//! Sockets of one service on one port (several addresses, SO_REUSEPORT, prefork) are one series.
//! Of their accept queues the fullest is shown: a worker that does not accept is not hidden by
//! others that do.

use std::collections::BTreeMap;
use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::health::AcceptQueue;
use model::port::Protocol;
use model::service::Service;
use model::snapshot::{ListenerView, Role};

/// The hook that sees SYN-ACKs sent again.
const SYNACK_HOOK: &str = "tcp_retransmit_synack";

const LISTENER: &[&str] = &["service", "service_namespace", "port", "protocol"];

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_listen_overflows_total",
        kind: Kind::Counter,
        help: "Connection requests a listener dropped, mostly because its accept queue was full.",
        labels: LISTENER,
        fed_by: "iterate_table, iterate_sockets, inet_sock_set_state",
        render: overflows,
    },
    Metric {
        name: "portolan_tcp_synack_retransmits_total",
        kind: Kind::Counter,
        help: "SYN-ACK retransmits of a listener.",
        labels: LISTENER,
        fed_by: SYNACK_HOOK,
        render: synack_retransmits,
    },
    Metric {
        name: "portolan_port_listeners",
        kind: Kind::Gauge,
        help: "Server sockets: listening TCP sockets, and UDP sockets bound to a port that the program chose.",
        labels: LISTENER,
        fed_by: "iterate_table, iterate_sockets, bound_sockets, bootstrap_udp",
        render: listeners,
    },
    Metric {
        name: "portolan_listen_backlog",
        kind: Kind::Gauge,
        help: "Connections waiting to be accepted, in the fullest accept queue of the service on that port: of several sockets (SO_REUSEPORT) the one that is closest to its limit.",
        labels: LISTENER,
        fed_by: "iterate_table, iterate_sockets",
        render: backlog,
    },
    Metric {
        name: "portolan_listen_backlog_max",
        kind: Kind::Gauge,
        help: "Limit of connections waiting to be accepted, of the same accept queue as `portolan_listen_backlog`.",
        labels: LISTENER,
        fed_by: "iterate_table, iterate_sockets",
        render: backlog_max,
    },
];

fn overflows(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let rows = view.rows_of_listeners();
    write(
        samples,
        Protocol::Tcp,
        rows.map(|(server, port, counters)| (server, port, counters.listen_drops)),
    )
}

fn synack_retransmits(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    if view.lacks(SYNACK_HOOK) {
        return Ok(());
    }
    let rows = view.rows_of_listeners();
    write(
        samples,
        Protocol::Tcp,
        rows.map(|(server, port, counters)| (server, port, counters.synack_retransmits)),
    )
}

fn listeners(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let sockets = view.listeners().map(|listener| (&listener.service, listener.port, 1));
    write(samples, Protocol::Tcp, sockets)?;
    let verified = view.snapshot.ports.iter().filter(|port| port.unverified_user.is_none());
    let receivers = verified.filter(|port| port.protocol == Protocol::Udp);
    let values = receivers.map(|port| (&port.holder.service, port.port, u64::from(port.sockets)));
    write(samples, Protocol::Udp, values)
}

fn backlog(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    fullest(view, samples, |queue| queue.length)
}

fn backlog_max(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    fullest(view, samples, |queue| queue.limit)
}

/// Writes a value of the fullest accept queue of each service and port.
fn fullest(view: &View, samples: &mut Samples<'_>, value: fn(AcceptQueue) -> u32) -> fmt::Result {
    let mut queues: BTreeMap<(&str, &str, u16), (&ListenerView, AcceptQueue)> = BTreeMap::new();
    for listener in view.listeners() {
        let ListenerView { service, port, .. } = listener;
        let queue = listener.accept_queue();
        let fullest =
            queues.entry((&service.name, &service.namespace, *port)).or_insert((listener, queue));
        if queue.is_fuller(fullest.1) {
            *fullest = (listener, queue);
        }
    }
    let values = queues
        .into_values()
        .map(|(listener, queue)| (&listener.service, listener.port, u64::from(value(queue))));
    write(samples, Protocol::Tcp, values)
}

/// Sums samples with the same labels, and writes them.
fn write<'a>(
    samples: &mut Samples<'_>,
    protocol: Protocol,
    values: impl Iterator<Item = (&'a Service, u16, u64)>,
) -> fmt::Result {
    let mut sums: BTreeMap<(&str, &str, u16), u64> = BTreeMap::new();
    for (service, port, value) in values {
        *sums.entry((&service.name, &service.namespace, port)).or_default() += value;
    }
    for ((name, namespace, port), sum) in sums {
        let service = [("service", name), ("service_namespace", namespace)];
        let labels = (service, ([("port", port)], [("protocol", protocol.as_str())]));
        samples.integer(Some(&labels), sum)?;
    }
    Ok(())
}

// === impl View ===

impl View {
    /// Without those that a user can have made up.
    fn listeners(&self) -> impl Iterator<Item = &ListenerView> {
        self.snapshot.listeners.iter().filter(|listener| listener.unverified_user.is_none())
    }

    fn rows_of_listeners(
        &self,
    ) -> impl Iterator<Item = (&Service, u16, &agent_common::counters::EdgeCounters)> {
        self.snapshot
            .verified_edges()
            .filter(|edge| edge.labels.role == Role::Listener)
            .map(|edge| (&edge.labels.server, edge.labels.port, &*edge.counters))
    }
}
