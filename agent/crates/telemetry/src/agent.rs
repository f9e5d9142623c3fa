//! The agent itself: version, table usage, cost.

use std::fmt;

use super::View;
use super::metric::{Kind, Metric, NO_LABELS, Samples};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_build_info",
        kind: Kind::Gauge,
        help: "Always 1: the version of the agent and the release of the kernel.",
        labels: &["version", "kernel"],
        fed_by: "the agent",
        render: build_info,
    },
    Metric {
        name: "portolan_map_entries",
        kind: Kind::Gauge,
        help: "Rows in use of a kernel table.",
        labels: &["map"],
        fed_by: "the drain",
        render: map_entries,
    },
    Metric {
        name: "portolan_map_capacity",
        kind: Kind::Gauge,
        help: "Rows a kernel table can hold.",
        labels: &["map"],
        fed_by: "the loader",
        render: map_capacity,
    },
    Metric {
        name: "portolan_sockets_spilled_total",
        kind: Kind::Counter,
        help: "Sockets that found no room in the table of sockets: their state lies in the socket, which costs more; nothing is lost.",
        labels: &[],
        fed_by: "inet_sock_set_state",
        render: sockets_spilled,
    },
    Metric {
        name: "portolan_unresolved_owners",
        kind: Kind::Gauge,
        help: "Processes with sockets that no source has named yet.",
        labels: &[],
        fed_by: "identity",
        render: unresolved_owners,
    },
    Metric {
        name: "portolan_drains_total",
        kind: Kind::Counter,
        help: "Collections: reads of the kernel's tables.",
        labels: &[],
        fed_by: "the drain",
        render: drains,
    },
    Metric {
        name: "portolan_drain_duration_seconds_total",
        kind: Kind::Counter,
        help: "Time spent in collections.",
        labels: &[],
        fed_by: "the drain",
        render: drain_duration,
    },
    Metric {
        name: "portolan_scrape_duration_seconds",
        kind: Kind::Gauge,
        help: "Duration of the previous scrape, including the collection; absent on the first scrape.",
        labels: &[],
        fed_by: "the HTTP server",
        render: scrape_duration,
    },
];

fn build_info(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let build = &view.build;
    let labels = [("version", build.version.as_str()), ("kernel", build.kernel.as_str())];
    samples.integer(Some(&labels), 1)
}

fn map_entries(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for map in &view.snapshot.maps {
        samples.integer(Some(&[("map", map.name.as_str())]), map.entries)?;
    }
    Ok(())
}

fn map_capacity(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for map in &view.snapshot.maps {
        samples.integer(Some(&[("map", map.name.as_str())]), map.capacity)?;
    }
    Ok(())
}

fn sockets_spilled(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    samples.integer(NO_LABELS, view.snapshot.ledger.kernel.spilled)
}

fn unresolved_owners(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    samples.integer(NO_LABELS, view.snapshot.unresolved_owners)
}

fn drains(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    samples.integer(NO_LABELS, view.snapshot.drains)
}

fn drain_duration(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    samples.float(NO_LABELS, view.snapshot.drain_seconds)
}

fn scrape_duration(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    match view.scrape.previous {
        Some(previous) => samples.float(NO_LABELS, previous.as_secs_f64()),
        None => Ok(()),
    }
}
