//! Listening sockets: their services, and events before a connection exists.
//!
//! Sockets of one service on one port (several addresses, SO_REUSEPORT, prefork) are one series.

use std::collections::BTreeMap;
use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::port::Protocol;
use model::service::Service;
use model::snapshot::{ListenerView, Role};

const LISTENER: &[&str] = &["service", "service_namespace", "port", "protocol"];

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_listen_overflows_total",
        kind: Kind::Counter,
        help: "Connection requests a listener dropped, mostly because its accept queue was full.",
        labels: LISTENER,
        fed_by: "iterate_sockets, inet_sock_set_state",
        render: overflows,
    },
    Metric {
        name: "portolan_tcp_synack_retransmits_total",
        kind: Kind::Counter,
        help: "SYN-ACK retransmits of a listener.",
        labels: LISTENER,
        fed_by: "tcp_retransmit_synack",
        render: synack_retransmits,
    },
    Metric {
        name: "portolan_port_listeners",
        kind: Kind::Gauge,
        help: "Server sockets: listening TCP sockets, and UDP sockets bound to a port that the program chose.",
        labels: LISTENER,
        fed_by: "iterate_sockets, bound_sockets, bootstrap_udp",
        render: listeners,
    },
    Metric {
        name: "portolan_listen_backlog",
        kind: Kind::Gauge,
        help: "Connections waiting to be accepted.",
        labels: LISTENER,
        fed_by: "iterate_sockets",
        render: backlog,
    },
    Metric {
        name: "portolan_listen_backlog_max",
        kind: Kind::Gauge,
        help: "Limit of connections waiting to be accepted.",
        labels: LISTENER,
        fed_by: "iterate_sockets",
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
    let rows = view.rows_of_listeners();
    write(
        samples,
        Protocol::Tcp,
        rows.map(|(server, port, counters)| (server, port, counters.synack_retransmits)),
    )
}

fn listeners(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    gauge(view, samples, |_| 1)?;
    let receivers = view.snapshot.ports.iter().filter(|port| port.protocol == Protocol::Udp);
    let values = receivers.map(|port| (&port.holder.service, port.port, u64::from(port.sockets)));
    write(samples, Protocol::Udp, values)
}

fn backlog(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    gauge(view, samples, |listener| u64::from(listener.backlog))
}

fn backlog_max(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    gauge(view, samples, |listener| u64::from(listener.max_backlog))
}

fn gauge(view: &View, samples: &mut Samples<'_>, value: fn(&ListenerView) -> u64) -> fmt::Result {
    let listeners = view.snapshot.listeners.iter();
    write(
        samples,
        Protocol::Tcp,
        listeners.map(|listener| (&listener.service, listener.port, value(listener))),
    )
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
    fn rows_of_listeners(
        &self,
    ) -> impl Iterator<Item = (&Service, u16, &agent_common::counters::EdgeCounters)> {
        self.snapshot
            .verified_edges()
            .filter(|edge| edge.labels.role == Role::Listener)
            .map(|edge| (&edge.labels.server, edge.labels.port, &*edge.counters))
    }
}
