//! Established connections that the kernel gave up, by cause.

use std::fmt;

use agent_common::abort::ABORT_CAUSE_NAMES;

use super::View;
use super::metric::{Kind, Metric, Samples, edge_and};

pub(super) const METRICS: &[Metric] = &[Metric {
    name: "portolan_tcp_aborts_total",
    kind: Kind::Counter,
    help: "Established connections that the kernel of this side gave up because the peer did not answer, by cause; the program gets ETIMEDOUT or EHOSTUNREACH. A cause that never occurred has no series.",
    labels: edge_and!("cause"),
    fed_by: "inet_sock_set_state",
    render,
}];

fn render(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in &view.rows {
        let aborts = ABORT_CAUSE_NAMES.iter().zip(row.counters.aborts);
        for (cause, count) in aborts.filter(|(_, count)| *count > 0) {
            samples.integer(Some(&row.labels.with([("cause", *cause)])), count)?;
        }
    }
    Ok(())
}
