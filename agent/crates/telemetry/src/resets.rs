//! Resets, by direction and cause.

use std::fmt;

use agent_common::reset::CAUSE_NAMES;

use super::View;
use super::metric::{Kind, Metric, Samples, edge_and};

pub(super) const METRICS: &[Metric] = &[Metric {
    name: "portolan_tcp_resets_total",
    kind: Kind::Counter,
    help: "TCP resets by direction and cause; a cause that never occurred has no series. Cause `unused`: health checks; `stopping`: the server stopped.",
    labels: edge_and!("direction", "cause"),
    fed_by: "tcp_send_reset, tcp_receive_reset",
    render,
}];

fn render(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in &view.rows {
        let counters = &row.counters;
        for (direction, resets) in
            [("sent", counters.resets_sent), ("received", counters.resets_received)]
        {
            for (cause, count) in CAUSE_NAMES.iter().zip(resets).filter(|(_, count)| *count > 0) {
                let labels = row.labels.with([("direction", direction), ("cause", *cause)]);
                samples.integer(Some(&labels), count)?;
            }
        }
    }
    Ok(())
}
