//! For how long something other than the network kept programs' data from being sent.

use std::fmt;

use agent_common::limit::LIMIT_NAMES;

use super::View;
use super::metric::{Kind, Metric, Samples, edge_and};

pub(super) const METRICS: &[Metric] = &[Metric {
    name: "portolan_tcp_limited_seconds_total",
    kind: Kind::Counter,
    help: "Time in which connections of this side had data to send and were limited by the other end's receive window or by their own send buffer, as the kernel times it. A limit that was never met has no series.",
    labels: edge_and!("by"),
    fed_by: "iterate_table, iterate_sockets, inet_sock_set_state",
    render,
}];

fn render(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in &view.rows {
        let limits = LIMIT_NAMES.iter().zip(row.counters.limited_us);
        for (by, us) in limits.filter(|(_, us)| *us > 0) {
            samples.float(Some(&row.labels.with([("by", *by)])), us as f64 / 1e6)?;
        }
    }
    Ok(())
}
