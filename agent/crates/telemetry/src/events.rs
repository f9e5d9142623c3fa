//! Events that were reported one by one.

use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::events;

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_reported_events_total",
        kind: Kind::Counter,
        help: "What was reported as events (`portolan events`), by kind, each repetition included. An edge with both sides on this host is reported once.",
        labels: &["kind"],
        fed_by: "the agent",
        render: reported,
    },
    Metric {
        name: "portolan_reported_events_dropped_total",
        kind: Kind::Counter,
        help: "Events that are no longer in the list (`overwritten`), or that a follower (`follower`) or events.log (`log`) did not get.",
        labels: &["reason"],
        fed_by: "the agent",
        render: dropped,
    },
];

/// Every kind from the start, so that an alert has a zero to rise from.
fn reported(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for (kind, total) in events::Kind::ALL.iter().zip(view.snapshot.events.totals) {
        samples.integer(Some(&[("kind", kind.as_str())]), total)?;
    }
    Ok(())
}

fn dropped(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let events = &view.snapshot.events;
    let reasons = [
        ("overwritten", events.overwritten),
        ("follower", events.not_followed),
        ("log", events.not_logged),
    ];
    for (reason, count) in reasons {
        samples.integer(Some(&[("reason", reason)]), count)?;
    }
    Ok(())
}
