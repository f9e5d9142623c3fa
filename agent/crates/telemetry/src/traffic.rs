//! Payload bytes and retransmits.

use std::fmt;

use agent_common::counters::EdgeCounters;

use super::View;
use super::metric::{EDGE, Kind, Metric, Samples};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_tcp_sent_bytes_total",
        kind: Kind::Counter,
        help: "Payload bytes sent, without retransmits.",
        labels: EDGE,
        fed_by: "iterate_sockets, inet_sock_set_state",
        render: sent,
    },
    Metric {
        name: "portolan_tcp_received_bytes_total",
        kind: Kind::Counter,
        help: "Payload bytes received in order.",
        labels: EDGE,
        fed_by: "iterate_sockets, inet_sock_set_state",
        render: received,
    },
    Metric {
        name: "portolan_tcp_retransmits_total",
        kind: Kind::Counter,
        help: "Retransmitted segments.",
        labels: EDGE,
        fed_by: "iterate_sockets, inet_sock_set_state",
        render: retransmits,
    },
];

fn sent(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    counters(view, samples, |counters| counters.sent_bytes)
}

fn received(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    counters(view, samples, |counters| counters.received_bytes)
}

fn retransmits(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    counters(view, samples, |counters| counters.retransmits)
}

fn counters(
    view: &View,
    samples: &mut Samples<'_>,
    choose: fn(&EdgeCounters) -> u64,
) -> fmt::Result {
    for row in view.rows.iter().filter(|row| row.has_connections()) {
        samples.integer(Some(&row.labels), choose(&row.counters))?;
    }
    Ok(())
}
