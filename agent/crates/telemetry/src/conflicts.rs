//! Failed binds and listens.

use std::collections::BTreeMap;
use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::conflicts::ConflictLabels;

const CONFLICT: &[&str] =
    &["port", "protocol", "claimant", "claimant_namespace", "holder", "holder_namespace", "errno"];

pub(super) const METRICS: &[Metric] = &[Metric {
    name: "portolan_port_conflicts_total",
    kind: Kind::Counter,
    help: "Failed binds and listens. Holder: the service that has the port, or `none`. Port 0: the program left the choice to the kernel. `portolan ports conflicts` explains each.",
    labels: CONFLICT,
    fed_by: "bind4, bind6, post_bind4, post_bind6, inet_bind_sk, inet6_bind_sk, expire_attempts, bound_sockets, inet_sock_set_state",
    render: conflicts,
}];

fn conflicts(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    // Conflicts that differ only in the source of a name have the same labels.
    let mut sums: BTreeMap<_, u64> = BTreeMap::new();
    for total in &view.snapshot.conflict_totals {
        let ConflictLabels { port, protocol, claimant, holder, errno } = &total.labels;
        let protocol = protocol.map_or("other", |protocol| protocol.as_str());
        let claimant = (&*claimant.name, &*claimant.namespace);
        let holder = (&*holder.name, &*holder.namespace);
        *sums.entry((*port, protocol, claimant, holder, *errno)).or_default() += total.count;
    }
    for ((port, protocol, claimant, holder, errno), sum) in sums {
        let place = ([("port", port)], [("protocol", protocol)]);
        let claimant = [("claimant", claimant.0), ("claimant_namespace", claimant.1)];
        let holder = [("holder", holder.0), ("holder_namespace", holder.1)];
        samples.integer(Some(&((place, claimant), (holder, [("errno", errno)]))), sum)?;
    }
    Ok(())
}
