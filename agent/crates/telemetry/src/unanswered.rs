//! Requests without an answer, and long ones in a row.

use std::fmt;

use super::View;
use super::metric::{EDGE, Kind, Metric, Samples, edge_and};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_requests_unanswered_total",
        kind: Kind::Counter,
        help: "Requests without a response: the connection ended, or the client closed it after it had waited at least 50 ms. Cause `stopping`: the server's listener had just ended; `other`: anything else. Absent where there were none.",
        labels: edge_and!("cause"),
        fed_by: "inet_sock_set_state, sk_data_ready, sock_send_length",
        render: unanswered,
    },
    Metric {
        name: "portolan_requests_waited_total",
        kind: Kind::Counter,
        help: "Requests that took at least half a second, one right after the other on a connection: long polling, or a client that keeps a slow server busy; which of the two, health and the latency objective judge by the other requests of the server and by names.polled. Also in the request durations. Absent where there were none.",
        labels: EDGE,
        fed_by: "sk_data_ready, sock_send_length",
        render: waited,
    },
];

fn unanswered(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in &view.rows {
        let by_cause =
            [("other", row.counters.unanswered), ("stopping", row.counters.unanswered_stopping)];
        for (cause, count) in by_cause.into_iter().filter(|(_, count)| *count > 0) {
            samples.integer(Some(&row.labels.with([("cause", cause)])), count)?;
        }
    }
    Ok(())
}

fn waited(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in view.rows.iter().filter(|row| row.counters.waits > 0) {
        samples.integer(Some(&row.labels), row.counters.waits)?;
    }
    Ok(())
}
