//! Probes of processes, namespaces and sockets: their outcomes, and stuck threads.

use std::fmt;

use super::View;
use super::metric::{Kind, Metric, NO_LABELS, Samples};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_probes_total",
        kind: Kind::Counter,
        help: "Looks into /proc, network namespaces and sockets by what was looked at and how it ended: ok, failed (gone, or not readable), deadline (no answer in time: given up) or queue_full (given up before it began). What was given up costs a name or a reason, never a count.",
        labels: &["kind", "result"],
        fed_by: "the probes",
        render: looks,
    },
    Metric {
        name: "portolan_probes_stuck",
        kind: Kind::Gauge,
        help: "Threads that hang in a look past its deadline. Up to eight are replaced; with more than that names get worse.",
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
