//! Labels of pods and containers, by the service that they are called as.

use super::Names;
use super::inventory::Workload;
use model::directory::ContainerLabels;

impl Names {
    /// Changes when an inventory does, and with it what [`Self::container_labels`] gives.
    pub fn inventory_version(&self) -> u64 {
        self.inventory_version
    }

    /// The values of these labels, by service. A rule that names a program within a container makes
    /// it another service, which has none.
    pub fn container_labels(&self, keys: &[String]) -> ContainerLabels {
        let mut labels = ContainerLabels::new(keys);
        if keys.is_empty() {
            return labels;
        }
        for workload in self.inventories.iter().flat_map(|inventory| inventory.workloads()) {
            let Workload { service, labels: own, .. } = workload;
            let value = |number: usize| {
                let wanted = keys.get(number)?;
                own.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str())
            };
            labels.add(self.rules.workload(workload).as_ref().unwrap_or(service), value);
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inventory::Inventory;
    use crate::rules::{Rule, Rules};
    use linux::probes::Probes;
    use model::service::{Entity, Service, Source};

    fn workload(name: &str, labels: &[(&str, &str)]) -> Workload {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Workload {
            service: Service::new(name, Source::Docker),
            entity: Entity::of(name),
            instance: name.into(),
            labels: labels.iter().map(own).collect(),
        }
    }

    #[test]
    fn labels_belong_to_the_name_that_edges_have() {
        let rules =
            Rules::new(vec![Rule::parse("label:app=shop -> prod/shop").unwrap()], Vec::new());
        let mut names = Names::new(rules, true, 16, &Probes::inline());
        let mut docker = Inventory::default();
        docker.add_container(&"a".repeat(64), workload("web", &[("team", "payments")]));
        docker
            .add_container(&"b".repeat(64), workload("c1", &[("app", "shop"), ("team", "sales")]));
        docker.add_container(&"c".repeat(64), workload("bare", &[]));
        names.set_inventories(vec![Arc::new(docker)], false);
        let labels = names.container_labels(&["team".to_owned()]);
        let check = |name: &str, namespace: &str, expected: Option<&str>| {
            let found = labels.of(&name.into(), &namespace.into()).next();
            assert_eq!(found, expected.map(|team| ("label_team", team)), "{namespace}/{name}");
        };
        check("web", "", Some("payments"));
        check("shop", "prod", Some("sales"));
        check("c1", "", None);
        check("bare", "", None);
        assert_eq!(names.container_labels(&[]), ContainerLabels::default());
    }
}
