//! The ledger: events seen, exported, and lost by reason.

use std::fmt;

use agent_common::ledger::{
    CLASS_NAMES, DNS_ANSWER, EDGE, EVENT, MAP_ERROR, NO_OWNER, NO_SLOT, NO_STORAGE, OWNER,
    RATE_LIMITED, REASON_NAMES, RECURSION, RING_FULL, SOCKET,
};

use super::View;
use super::metric::{Kind, Metric, Samples};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_events_seen_total",
        kind: Kind::Counter,
        help: "Events that the kernel programs saw, by class.",
        labels: &["class"],
        fed_by: "every hook",
        render: seen,
    },
    Metric {
        name: "portolan_events_exported_total",
        kind: Kind::Counter,
        help: "Events that reached the agent's tables, by class; seen = exported + lost when nothing is in flight.",
        labels: &["class"],
        fed_by: "the drain",
        render: exported,
    },
    Metric {
        name: "portolan_events_lost_total",
        kind: Kind::Counter,
        help: "Lost events, by class and reason; class hook_run counts program runs that the kernel skipped.",
        labels: &["class", "reason"],
        fed_by: "every hook",
        render: lost,
    },
];

/// The known pairs of class and reason, exported from the start so that an alert sees the increase
/// from zero. Any other pair appears with its first loss.
const CAN_OCCUR: &[(usize, usize)] = &[
    (SOCKET, NO_STORAGE),
    (EDGE, NO_SLOT),
    (EDGE, MAP_ERROR),
    (OWNER, NO_OWNER),
    (OWNER, MAP_ERROR),
    (EVENT, RING_FULL),
    (EVENT, RATE_LIMITED),
    (DNS_ANSWER, RING_FULL),
    (DNS_ANSWER, RATE_LIMITED),
];

fn seen(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    by_class(samples, &view.snapshot.ledger.kernel.seen)
}

fn exported(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    by_class(samples, &view.snapshot.ledger.exported)
}

fn lost(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let ledger = &view.snapshot.ledger;
    for (class, (class_name, reasons)) in CLASS_NAMES.iter().zip(ledger.kernel.lost).enumerate() {
        for (reason, (reason_name, count)) in REASON_NAMES.iter().zip(reasons).enumerate() {
            if count > 0 || CAN_OCCUR.contains(&(class, reason)) {
                let labels = [("class", *class_name), ("reason", *reason_name)];
                samples.integer(Some(&labels), count)?;
            }
        }
    }
    let labels = [("class", "hook_run"), ("reason", REASON_NAMES[RECURSION])];
    samples.integer(Some(&labels), ledger.recursion_misses)
}

fn by_class(samples: &mut Samples<'_>, counts: &[u64]) -> fmt::Result {
    for (class, count) in CLASS_NAMES.iter().zip(counts) {
        samples.integer(Some(&[("class", *class)]), *count)?;
    }
    Ok(())
}
