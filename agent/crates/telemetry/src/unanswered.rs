//! Requests without an answer.

use std::fmt;

use super::View;
use super::metric::{EDGE, Kind, Metric, Samples};

pub(super) const METRICS: &[Metric] = &[Metric {
    name: "portolan_requests_unanswered_total",
    kind: Kind::Counter,
    help: "Requests without a response: the connection ended, or the client closed it after it had waited at least 50 ms. Absent where there were none.",
    labels: EDGE,
    fed_by: "inet_sock_set_state, sk_data_ready, sock_send_length",
    render,
}];

fn render(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in view.rows.iter().filter(|row| row.counters.unanswered > 0) {
        samples.integer(Some(&row.labels), row.counters.unanswered)?;
    }
    Ok(())
}
