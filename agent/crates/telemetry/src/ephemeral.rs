//! Ephemeral ports: how near a namespace is to running out.

use std::collections::BTreeMap;
use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::ephemeral::EphemeralView;

const NETNS: &[&str] = &["netns_of"];

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_ephemeral_ports_used_ratio",
        kind: Kind::Gauge,
        help: "Used share of the ephemeral port range in the network namespace of a service (`host`: the agent's own), by TCP or UDP, whichever uses more. Read every half minute; the fullest of a service's namespaces.",
        labels: NETNS,
        fed_by: "a periodic sock_diag dump of every network namespace",
        render: used,
    },
    Metric {
        name: "portolan_ephemeral_ports_destination_ratio",
        kind: Kind::Gauge,
        help: "The same for connections to the destination (address and port) that uses most: at 1 the next connect to it fails with EADDRNOTAVAIL.",
        labels: NETNS,
        fed_by: "a periodic sock_diag dump of every network namespace",
        render: destination,
    },
    Metric {
        name: "portolan_tcp_time_wait_connections",
        kind: Kind::Gauge,
        help: "Sockets in TIME_WAIT: closed connections that keep their ports for a minute.",
        labels: NETNS,
        fed_by: "a periodic sock_diag dump of every network namespace",
        render: time_wait,
    },
];

fn used(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    fullest(view, samples, |row| row.ephemeral.used_ratio())
}

fn destination(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    fullest(view, samples, |row| row.ephemeral.destination_ratio())
}

fn time_wait(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    fullest(view, samples, |row| f64::from(row.ephemeral.time_wait))
}

fn fullest(
    view: &View,
    samples: &mut Samples<'_>,
    value: fn(&EphemeralView) -> f64,
) -> fmt::Result {
    let mut values: BTreeMap<&str, f64> = BTreeMap::new();
    // A user who fills up a namespace of their own raises no alert.
    let verified = |row: &&EphemeralView| row.unverified_user.is_none();
    for row in view.snapshot.ephemeral.iter().filter(verified) {
        let known = values.entry(&row.netns_of.name).or_default();
        *known = known.max(value(row));
    }
    for (netns_of, value) in values {
        samples.float(Some(&[("netns_of", netns_of)]), value)?;
    }
    Ok(())
}
