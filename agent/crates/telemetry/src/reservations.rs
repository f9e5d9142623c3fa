//! Port reservations and their breaches.

use std::collections::BTreeMap;
use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::breaches::BreachKey;
use model::reservations::Origin;

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "portolan_port_reservations",
        kind: Kind::Gauge,
        help: "Port reservations in force on this host, by origin: the configuration file, or the command line and API (state).",
        labels: &["origin"],
        fed_by: "reservations",
        render: reservations,
    },
    Metric {
        name: "portolan_port_reservation_breaches_total",
        kind: Kind::Counter,
        help: "Reserved ports bound by another service than the owner (audited: each holder counts once, however long it stays), or denied to one (denied: every attempt).",
        labels: &["port", "protocol", "owner", "offender", "action"],
        fed_by: "reservations, iterate_table, iterate_sockets",
        render: breaches,
    },
];

fn reservations(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let reservations = &view.snapshot.reservations;
    let now = view.snapshot.taken_seconds.max(0.0) as u64;
    for origin in [Origin::Config, Origin::State] {
        let in_force = reservations
            .state
            .reservations
            .iter()
            .filter(|one| one.origin == origin && one.in_force(now, reservations.environment));
        samples.integer(Some(&[("origin", origin.as_str())]), in_force.count() as u64)?;
    }
    Ok(())
}

fn breaches(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    // Full names are unique as rows of the model; as labels they must be, too.
    let mut sums: BTreeMap<_, u64> = BTreeMap::new();
    for (BreachKey { port, owner, offender, action }, count) in &view.snapshot.reservations.breaches
    {
        let place = port.map_or((0, "other"), |port| (port.number, port.protocol.as_str()));
        *sums.entry((place, owner.to_string(), offender.to_string(), *action)).or_default() +=
            count;
    }
    for (((number, protocol), owner, offender, action), count) in &sums {
        let names = [("owner", owner.as_str()), ("offender", offender.as_str())];
        let labels = (
            [("port", *number)],
            ([("protocol", *protocol)], (names, [("action", action.as_str())])),
        );
        samples.integer(Some(&labels), *count)?;
    }
    Ok(())
}
