//! Connections that the rules between segments do not allow, or not in plain text.

use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::violations::Between;

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_segment_violations_total",
        kind: Kind::Counter,
        help: "Established connections that violate the rules between segments, each once even if both ends are on this host; reason is not_allowed, or plaintext where TLS is required; absent where there are none.",
        labels: &[
            "reason",
            "client_segment",
            "server_segment",
            "client",
            "client_namespace",
            "server",
            "server_namespace",
            "port",
        ],
        fed_by: "inet_sock_set_state, bootstrap_tcp",
        render: violations,
    },
    Metric {
        name: "portolan_names_overflowed_total",
        kind: Kind::Counter,
        help: "Names that did not fit into a full table and count in its row `other`.",
        labels: &["table"],
        fed_by: "the agent",
        render: folded,
    },
];

fn violations(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for (between, connections) in
        view.snapshot.related.segments.iter().flat_map(|segments| &segments.rows)
    {
        let Between { reason, client_segment, server_segment, ends } = between;
        let names = [
            ("reason", reason.as_str()),
            ("client_segment", &**client_segment),
            ("server_segment", &**server_segment),
            ("client", &*ends.client),
            ("client_namespace", &*ends.client_namespace),
            ("server", &*ends.server),
            ("server_namespace", &*ends.server_namespace),
        ];
        samples.integer(Some(&(names, [("port", ends.port)])), *connections)?;
    }
    Ok(())
}

fn folded(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let related = &view.snapshot.related;
    samples.integer(Some(&[("table", "backends")]), related.relations.folded)?;
    let Some(segments) = &related.segments else { return Ok(()) };
    samples.integer(Some(&[("table", "segment_violations")]), segments.folded)
}
