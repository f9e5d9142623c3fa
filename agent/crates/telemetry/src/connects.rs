//! Connections: attempts by result, how many are open, how many were there before the agent.

use std::fmt;

use agent_common::edge::{CONNECT_OK, CONNECT_RESULT_NAMES};

use super::View;
use super::metric::{EDGE, Kind, Metric, Samples, edge_and};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_tcp_connects_total",
        kind: Kind::Counter,
        help: "Connection attempts that ended, by result; on the server's side completed and failed handshakes. Result `stopping`: refused while the server stopped.",
        labels: edge_and!("result"),
        fed_by: "inet_sock_set_state, connect4, connect6",
        render: connects,
    },
    Metric {
        name: "portolan_tcp_active_connections",
        kind: Kind::Gauge,
        help: "Open connections: established and not yet closed.",
        labels: EDGE,
        fed_by: "inet_sock_set_state, bootstrap_tcp",
        render: active,
    },
    Metric {
        name: "portolan_tcp_preexisting_connections_total",
        kind: Kind::Counter,
        help: "Pre-existing connections: established before the agent started; absent where there were none.",
        labels: EDGE,
        fed_by: "bootstrap_tcp",
        render: preexisting,
    },
];

fn connects(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in view.rows.iter().filter(|row| row.has_connections()) {
        for (result, (name, count)) in
            CONNECT_RESULT_NAMES.iter().zip(row.counters.connects).enumerate()
        {
            // `ok` exists from the start, so that a ratio has its denominator; results that never
            // occurred have no series.
            if count > 0 || result == usize::from(CONNECT_OK) {
                samples.integer(Some(&row.labels.with([("result", *name)])), count)?;
            }
        }
    }
    Ok(())
}

fn active(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in view.rows.iter().filter(|row| row.has_connections()) {
        samples.integer(Some(&row.labels), row.counters.active())?;
    }
    Ok(())
}

fn preexisting(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in view.rows.iter().filter(|row| row.counters.preexisting > 0) {
        samples.integer(Some(&row.labels), row.counters.preexisting)?;
    }
    Ok(())
}
