//! Sources of names: whether they are up, and counts of their queries and entries.

use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::snapshot::{SourceState, SourceView};

const SOURCE: &[&str] = &["source"];

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_identity_source_up",
        kind: Kind::Gauge,
        help: "1 while a source of names works, 0 while it fails; no series where it is not on this host. /api/v1/status has the details.",
        labels: SOURCE,
        fed_by: "identity",
        render: up,
    },
    Metric {
        name: "portolan_identity_source_entries",
        kind: Kind::Gauge,
        help: "Names and addresses known from a source.",
        labels: SOURCE,
        fed_by: "identity",
        render: entries,
    },
    Metric {
        name: "portolan_identity_source_lookups_total",
        kind: Kind::Counter,
        help: "Queries to a source; for dns, DNS responses that were parsed.",
        labels: SOURCE,
        fed_by: "identity, sk_data_ready, sendmsg4, sendmsg6",
        render: lookups,
    },
    Metric {
        name: "portolan_identity_source_errors_total",
        kind: Kind::Counter,
        help: "Failed queries to a source; for dns, malformed DNS responses.",
        labels: SOURCE,
        fed_by: "identity",
        render: errors,
    },
];

fn up(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    write(view, samples, |source| u64::from(source.state == SourceState::Up))
}

fn entries(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    write(view, samples, |source| source.entries)
}

fn lookups(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    write(view, samples, |source| source.lookups)
}

fn errors(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    write(view, samples, |source| source.errors)
}

fn write(view: &View, samples: &mut Samples<'_>, value: fn(&SourceView) -> u64) -> fmt::Result {
    // A source that is not on this host has no series, unless it was there before.
    let there = |source: &&SourceView| source.state != SourceState::Absent || source.entries > 0;
    for source in view.snapshot.sources.iter().filter(there) {
        samples.integer(Some(&[("source", source.name.as_str())]), value(source))?;
    }
    Ok(())
}
