//! Services: how their names were found, their class, and labels of their containers, to be joined
//! with `on (service, service_namespace)`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::View;
use super::metric::{Kind, Metric, Samples};
use model::service::Source;

pub(super) const METRICS: &[Metric] = &[Metric {
    name: "portolan_service_info",
    kind: Kind::Gauge,
    help: "Always 1: a service on an edge or a listener, the source of its name, its class (application, monitoring or system), polled=\"true\" if names.polled lists it, and the labels of its pods or containers that names.labels lists.",
    labels: &["service", "service_namespace", "source", "class", "polled", "label_*"],
    fed_by: "identity",
    render,
}];

fn render(view: &View, samples: &mut Samples<'_>) -> fmt::Result {
    let snapshot = &view.snapshot;
    let directory = &snapshot.related.directory;
    let ends =
        snapshot.verified_edges().flat_map(|edge| [&edge.labels.client, &edge.labels.server]);
    let listening = snapshot.listeners.iter().map(|listener| &listener.service);
    // One series per name, or a join would find two: the most reliable source is shown.
    let mut services: BTreeMap<(&Arc<str>, &Arc<str>), Source> = BTreeMap::new();
    for service in ends.chain(listening).filter(|service| !service.is_loopback()) {
        services
            .entry((&service.name, &service.namespace))
            .and_modify(|source| *source = service.source.min(*source))
            .or_insert(service.source);
    }
    for ((name, namespace), source) in services {
        let labels = [
            ("service", &**name),
            ("service_namespace", &**namespace),
            ("source", source.as_str()),
            ("class", directory.classes.of(name, namespace).as_str()),
        ];
        let polled = directory.classes.is_polled(name, namespace).then_some(("polled", "true"));
        let of_containers = directory.labels.of(name, namespace);
        let more: Vec<(&str, &str)> = polled.into_iter().chain(of_containers).collect();
        samples.integer(Some(&(labels, more)), 1)?;
    }
    Ok(())
}
