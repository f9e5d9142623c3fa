//! What waits in connections: data that is not read or not acknowledged, and connections that only
//! the peer has closed.

use std::fmt;

use agent_common::queues::Queues;

use super::View;
use super::metric::{EDGE, Kind, Metric, Samples};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_tcp_receive_queue_bytes",
        kind: Kind::Gauge,
        help: "Payload bytes that arrived on open connections and that the program of this side has not read.",
        labels: EDGE,
        fed_by: "iterate_table, iterate_sockets",
        render: receive,
    },
    Metric {
        name: "portolan_tcp_send_queue_bytes",
        kind: Kind::Gauge,
        help: "Payload bytes that the program of this side wrote on open connections and that the other end has not acknowledged, sent or not.",
        labels: EDGE,
        fed_by: "iterate_table, iterate_sockets",
        render: send,
    },
    Metric {
        name: "portolan_tcp_close_wait_connections",
        kind: Kind::Gauge,
        help: "Connections that the other end closed at least a minute ago and that the program of this side has not closed (CLOSE_WAIT).",
        labels: EDGE,
        fed_by: "iterate_table, iterate_sockets",
        render: close_wait,
    },
];

fn receive(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    gauges(view, samples, |queues| queues.receive_bytes)
}

fn send(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    gauges(view, samples, |queues| queues.send_bytes)
}

fn close_wait(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    gauges(view, samples, |queues| queues.close_wait)
}

fn gauges(view: &View, samples: &mut Samples<'_>, choose: fn(&Queues) -> u64) -> fmt::Result {
    for row in view.rows.iter().filter(|row| row.has_connections()) {
        if let Some(queues) = &row.queues {
            samples.integer(Some(&row.labels), choose(queues))?;
        }
    }
    Ok(())
}
