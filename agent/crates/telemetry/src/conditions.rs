//! Conditions of network namespaces: connection tracking, interfaces, memory of TCP.

use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::conditions::{Coverage, Fill, InterfaceCounters, MemoryCounters};

const NETNS: &[&str] = &["netns_of"];
const INTERFACE: &[&str] = &["netns_of", "interface"];
const FED_BY: &str = "a periodic look into every network namespace";

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_conntrack_used_ratio",
        kind: Kind::Gauge,
        help: "Tracked connections as a share of `nf_conntrack_max`, in the network namespace of a service (`host`: the agent's own); the fullest of its namespaces. At 1 new connections are dropped. No series where the kernel cannot track connections.",
        labels: NETNS,
        fed_by: FED_BY,
        render: conntrack,
    },
    Metric {
        name: "portolan_interface_packets_total",
        kind: Kind::Counter,
        help: "Packets that an interface sent and received, since the agent first read it. Interfaces that exist in any number count together under their kind (veth, tun, macvlan, macvtap, ipvlan, ifb); of others sixteen for each service, the rest is `other`.",
        labels: INTERFACE,
        fed_by: FED_BY,
        render: packets,
    },
    Metric {
        name: "portolan_interface_drops_total",
        kind: Kind::Counter,
        help: "Packets that an interface dropped in either direction: full rings and queues, packets longer than the MTU of the other end of a veth.",
        labels: INTERFACE,
        fed_by: FED_BY,
        render: drops,
    },
    Metric {
        name: "portolan_interface_errors_total",
        kind: Kind::Counter,
        help: "Errors that an interface counted in either direction: broken frames, carrier lost.",
        labels: INTERFACE,
        fed_by: FED_BY,
        render: errors,
    },
    Metric {
        name: "portolan_tcp_memory_pressure_total",
        kind: Kind::Counter,
        help: "Times that TCP was short of memory, in the network namespaces of a service, by event: pressure (began to save memory, TCPMemoryPressures), aborted (gave up a connection, TCPAbortOnMemory), pruned (dropped data that a socket had received, RcvPruned).",
        labels: &["netns_of", "event"],
        fed_by: FED_BY,
        render: memory,
    },
    Metric {
        name: "portolan_network_namespaces",
        kind: Kind::Gauge,
        help: "Network namespaces by whether they could be read for the metrics of connection tracking, interfaces and TCP memory: read, denied (cannot be entered), untrusted (made by a user who is not in trusted_users), over_share (more than 64 of one trusted user), over_limit (more than 256).",
        labels: &["state"],
        fed_by: FED_BY,
        render: namespaces,
    },
];

fn conntrack(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for (netns_of, row) in &view.snapshot.conditions.rows {
        let Some(fill) = row.conntrack else { continue };
        samples.float(Some(&[("netns_of", &**netns_of)]), Fill::ratio(fill))?;
    }
    Ok(())
}

fn packets(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    interfaces(view, samples, |counters| counters.packets)
}

fn drops(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    interfaces(view, samples, |counters| counters.drops)
}

fn errors(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    interfaces(view, samples, |counters| counters.errors)
}

/// A sample of every interface, of those that dropped nothing too: the first drop has to be an
/// increase.
fn interfaces(
    view: &View,
    samples: &mut Samples<'_>,
    value: fn(&InterfaceCounters) -> u64,
) -> fmt::Result {
    for (netns_of, row) in &view.snapshot.conditions.rows {
        for (interface, counters) in &row.interfaces {
            let labels = [("netns_of", &**netns_of), ("interface", interface.as_str())];
            samples.integer(Some(&labels), value(counters))?;
        }
    }
    Ok(())
}

fn memory(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    for (netns_of, row) in &view.snapshot.conditions.rows {
        let Some(MemoryCounters { pressures, aborted, pruned }) = row.memory else { continue };
        for (event, count) in [("pressure", pressures), ("aborted", aborted), ("pruned", pruned)] {
            samples.integer(Some(&[("netns_of", &**netns_of), ("event", event)]), count)?;
        }
    }
    Ok(())
}

fn namespaces(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let Some(coverage) = view.snapshot.conditions.coverage else { return Ok(()) };
    let Coverage { read, denied, untrusted, over_share, over_limit } = coverage;
    let states = [
        ("read", read),
        ("denied", denied),
        ("untrusted", untrusted),
        ("over_share", over_share),
        ("over_limit", over_limit),
    ];
    for (state, count) in states {
        samples.integer(Some(&[("state", state)]), count)?;
    }
    Ok(())
}
