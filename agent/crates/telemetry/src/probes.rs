//! Probes of processes, namespaces and sockets: their outcomes, and stuck threads.

use std::fmt;

use super::View;
use super::metric::{Kind, Metric, NO_LABELS, Samples};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_probes_total",
        kind: Kind::Counter,
        help: "Lookups in /proc, network namespaces and sockets by kind and outcome: ok, failed (gone, or not readable), deadline (timed out) or queue_full (not started). A lookup without a result costs a name or a reason, never a count.",
        labels: &["kind", "result"],
        fed_by: "the probes",
        render: looks,
    },
    Metric {
        name: "portolan_probes_stuck",
        kind: Kind::Gauge,
        help: "Threads that are stuck in a lookup past its deadline. Up to sixteen are replaced; with more, names are missing.",
        labels: &[],
        fed_by: "the probes",
        render: stuck,
    },
];

fn looks(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let happened =
        view.snapshot.probes.looks.iter().filter(|one| one.count > 0 || one.result == "ok");
    for looks in happened {
        samples.integer(Some(&[("kind", looks.kind), ("result", looks.result)]), looks.count)?;
    }
    Ok(())
}

fn stuck(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    samples.integer(NO_LABELS, view.snapshot.probes.stuck)
}
