//! How connections recover from loss, beyond retransmits: timeouts, and segments received twice.

use std::fmt;

use agent_common::counters::EdgeCounters;

use super::View;
use super::metric::{EDGE, Kind, Metric, Samples};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_tcp_rto_total",
        kind: Kind::Counter,
        help: "Retransmission timeouts (RTO) of connections and connects; Linux 6.7 or later. Absent where there were none.",
        labels: EDGE,
        fed_by: "iterate_table, iterate_sockets, inet_sock_set_state",
        render: timeouts,
    },
    Metric {
        name: "portolan_tcp_dsacks_total",
        kind: Kind::Counter,
        help: "Segments that the other end reported as received twice (DSACK), so that a retransmit was unnecessary or the network duplicated them. Absent where there were none.",
        labels: EDGE,
        fed_by: "iterate_table, iterate_sockets, inet_sock_set_state",
        render: dsacks,
    },
];

fn timeouts(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    counters(view, samples, |counters| counters.timeouts)
}

fn dsacks(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    counters(view, samples, |counters| counters.dsacks)
}

fn counters(
    view: &View,
    samples: &mut Samples<'_>,
    choose: fn(&EdgeCounters) -> u64,
) -> fmt::Result {
    for row in &view.rows {
        let count = choose(&row.counters);
        if count > 0 {
            samples.integer(Some(&row.labels), count)?;
        }
    }
    Ok(())
}
