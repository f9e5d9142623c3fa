//! Payload bytes and retransmits.

use std::fmt;

use agent_common::counters::EdgeCounters;
use agent_common::retransmit::{ESTABLISHED, PHASE_NAMES};

use super::View;
use super::metric::{EDGE, Kind, Metric, Samples, edge_and};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_tcp_sent_bytes_total",
        kind: Kind::Counter,
        help: "Payload bytes sent, without retransmits.",
        labels: EDGE,
        fed_by: "iterate_table, iterate_sockets, inet_sock_set_state",
        render: sent,
    },
    Metric {
        name: "portolan_tcp_received_bytes_total",
        kind: Kind::Counter,
        help: "Payload bytes received in order.",
        labels: EDGE,
        fed_by: "iterate_table, iterate_sockets, inet_sock_set_state",
        render: received,
    },
    Metric {
        name: "portolan_tcp_retransmits_total",
        kind: Kind::Counter,
        help: "Retransmitted segments, by phase of the connection.",
        labels: edge_and!("phase"),
        fed_by: "iterate_table, iterate_sockets, inet_sock_set_state",
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
    for row in view.rows.iter().filter(|row| row.has_connections()) {
        for (phase, (name, count)) in PHASE_NAMES.iter().zip(row.counters.retransmits).enumerate() {
            // `established` exists from the start, so that a ratio has its numerator; phases in
            // which nothing was ever sent again have no series.
            if count > 0 || phase == usize::from(ESTABLISHED) {
                samples.integer(Some(&row.labels.with([("phase", *name)])), count)?;
            }
        }
    }
    Ok(())
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
