//! What servers answered: responses by protocol and status, and connections by protocol.

use std::fmt;

use agent_common::response::{PROTOCOL_NAMES, STATUS_NAMES, STATUSES, security};

use super::View;
use super::metric::{Kind, Metric, Samples, edge_and};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_responses_total",
        kind: Kind::Counter,
        help: "Responses of servers on this host by protocol and status, from their first bytes: the first response of each exchange on connections whose protocol is recognised. A combination that never occurred has no series.",
        labels: edge_and!("protocol", "status"),
        fed_by: "sock_send_length",
        render: responses,
    },
    Metric {
        name: "portolan_connection_security_total",
        kind: Kind::Counter,
        help: "Connections by what their server's first response showed: security `tls`, `plaintext` (a recognised protocol) or `unknown`, and the protocol. A combination that never occurred has no series.",
        labels: edge_and!("security", "protocol"),
        fed_by: "sock_send_length",
        render: connections,
    },
];

fn responses(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in &view.rows {
        let counts = STATUS_NAMES.iter().zip(row.counters.responses);
        for ((protocol, status), count) in counts.filter(|(_, count)| *count > 0) {
            let labels = row.labels.with([("protocol", *protocol), ("status", *status)]);
            samples.integer(Some(&labels), count)?;
        }
    }
    Ok(())
}

fn connections(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for row in &view.rows {
        let counts = row.counters.responses.iter().skip(STATUSES);
        for (protocol, count) in PROTOCOL_NAMES.iter().zip(counts).filter(|(_, count)| **count > 0)
        {
            let labels =
                row.labels.with([("security", security(protocol)), ("protocol", *protocol)]);
            samples.integer(Some(&labels), *count)?;
        }
    }
    Ok(())
}
