//! Operations: requests to services whose protocols are walked, how they ended, and how long they took.

use std::fmt;

use agent_common::operations::PROTOCOL;

use super::View;
use super::metric::{Kind, Metric, Samples, edge_and};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_operations_total",
        kind: Kind::Counter,
        help: "Requests that the services of `protocols.services` have answered, each one, by protocol, operation (the HTTP method, `_OTHER` for those that are not registered) and status. A combination that never occurred has no series.",
        labels: edge_and!("protocol", "operation", "status"),
        fed_by: WALKS,
        render: operations,
    },
    Metric {
        name: "portolan_operation_duration_seconds",
        kind: Kind::Histogram,
        help: "Time from the first byte of a request to the first byte of its final response, at the server's socket, for the services of `protocols.services`.",
        labels: edge_and!("protocol", "operation"),
        fed_by: WALKS,
        render: durations,
    },
    Metric {
        name: "portolan_operations_unanswered_total",
        kind: Kind::Counter,
        help: "Requests to the services of `protocols.services` that had no response when their connection ended.",
        labels: edge_and!("protocol"),
        fed_by: WALKS,
        render: unanswered,
    },
];

const WALKS: &str = "walk_in, walk_out";

fn operations(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in &view.rows {
        for (operation, status, count) in row.counters.operations.answered() {
            let labels = [("protocol", PROTOCOL), ("operation", operation), ("status", status)];
            samples.integer(Some(&row.labels.with(labels)), count)?;
        }
    }
    Ok(())
}

fn durations(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in &view.rows {
        for (operation, durations) in row.counters.operations.durations() {
            let labels = [("protocol", PROTOCOL), ("operation", operation)];
            samples.histogram(&row.labels.with(labels), durations)?;
        }
    }
    Ok(())
}

fn unanswered(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let with_any = view.rows.iter().filter(|row| !row.counters.operations.is_empty());
    for row in with_any {
        let labels = row.labels.with([("protocol", PROTOCOL)]);
        samples.integer(Some(&labels), row.counters.operations.unanswered())?;
    }
    Ok(())
}
