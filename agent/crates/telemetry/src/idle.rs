//! How long connections are idle, between two requests and before either end closes them.

use std::fmt;

use agent_common::histogram::Histogram;

use super::View;
use super::metric::{EDGE, Kind, Metric, Samples, edge_and};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_tcp_idle_close_seconds",
        kind: Kind::Histogram,
        help: "How long connections had been idle, for at least half a second, when an end closed them: the keep-alive timeout of a server (`closed_by=\"server\"`) or of a client's pool. Absent where there were none.",
        labels: edge_and!("closed_by"),
        fed_by: "inet_sock_set_state, sk_data_ready, sock_send_length",
        render: close,
    },
    Metric {
        name: "portolan_tcp_idle_reuse_seconds",
        kind: Kind::Histogram,
        help: "How long connections had been idle, for at least half a second, before a request that got a response. Absent where there were none.",
        labels: EDGE,
        fed_by: "sk_data_ready, sock_send_length",
        render: reuse,
    },
];

fn close(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in &view.rows {
        let counters = &row.counters;
        let by_end: [(_, &Histogram); 2] = [
            ("client", &counters.idle_closed_by_client_ms),
            ("server", &counters.idle_closed_by_server_ms),
        ];
        for (end, times) in by_end.into_iter().filter(|(_, times)| times.count() > 0) {
            samples.idle_times(&row.labels.with([("closed_by", end)]), times)?;
        }
    }
    Ok(())
}

fn reuse(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in view.rows.iter().filter(|row| row.counters.idle_reuse_ms.count() > 0) {
        samples.idle_times(&row.labels, &row.counters.idle_reuse_ms)?;
    }
    Ok(())
}
