//! Durations: connecting, round trips, requests.

use std::fmt;

use agent_common::counters::EdgeCounters;
use agent_common::histogram::Histogram;

use super::View;
use super::metric::{EDGE, Kind, Metric, Samples};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_tcp_connect_duration_seconds",
        kind: Kind::Histogram,
        help: "Time from the SYN to the established connection, on the client's side.",
        labels: EDGE,
        fed_by: "inet_sock_set_state",
        render: connect,
    },
    Metric {
        name: "portolan_tcp_rtt_seconds",
        kind: Kind::Histogram,
        help: "The kernel's smoothed round trip time, sampled through the life of every connection.",
        labels: EDGE,
        fed_by: "iterate_table, iterate_sockets, inet_sock_set_state",
        render: rtt,
    },
    Metric {
        name: "portolan_request_duration_seconds",
        kind: Kind::Histogram,
        help: "Request latency at the socket: client, last byte sent to first byte back; server, first byte of the request in to first byte of the response out.",
        labels: EDGE,
        fed_by: "sk_data_ready, sock_send_length, tcp_retransmit_skb",
        render: request,
    },
];

fn connect(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    histograms(view, samples, |counters| &counters.connect)
}

fn rtt(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    histograms(view, samples, |counters| &counters.rtt)
}

fn request(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    histograms(view, samples, |counters| &counters.request)
}

/// The chosen histogram of every row that observed something.
fn histograms(
    view: &View,
    samples: &mut Samples<'_>,
    choose: fn(&EdgeCounters) -> &Histogram,
) -> fmt::Result {
    for row in view.rows.iter().filter(|row| row.has_connections()) {
        let histogram = choose(&row.counters);
        if histogram.buckets.iter().any(|count| *count > 0) {
            samples.histogram(&row.labels, histogram)?;
        }
    }
    Ok(())
}
