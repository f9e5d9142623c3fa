//! Services and how their names were found, to be joined with `on (service, service_namespace)`.

use std::collections::BTreeMap;
use std::fmt;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::service::Source;

pub(super) const METRICS: &[Metric] = &[Metric {
    name: "portolan_service_info",
    kind: Kind::Gauge,
    help: "Always 1: a service on an edge or a listener, and the source of its name.",
    labels: &["service", "service_namespace", "source"],
    fed_by: "identity",
    render,
}];

fn render(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let snapshot = &view.snapshot;
    let ends = snapshot.edges.iter().flat_map(|edge| [&edge.labels.client, &edge.labels.server]);
    let listening = snapshot.listeners.iter().map(|listener| &listener.service);
    // One series per name, or a join would find two: the most reliable source is shown.
    let mut services: BTreeMap<(&str, &str), Source> = BTreeMap::new();
    for service in ends.chain(listening).filter(|service| !service.is_loopback()) {
        services
            .entry((&service.name, &service.namespace))
            .and_modify(|source| *source = service.source.min(*source))
            .or_insert(service.source);
    }
    for ((name, namespace), source) in services {
        let labels =
            [("service", name), ("service_namespace", namespace), ("source", source.as_str())];
        samples.integer(Some(&labels), 1)?;
    }
    Ok(())
}
