//! Containers that were started and have ended since: one whose port is taken ends at once, and is in
//! no list. An event of its start has its name and labels.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bollard::models::{EventMessage, EventMessageTypeEnum};

use super::named;
use crate::inventory::Inventory;
use model::service::Source;

/// Containers remembered at most.
const MOST: usize = 256;
/// What a container did is reported within seconds.
const REPORT_FOR: Duration = Duration::from_mins(1);

/// Containers that were started lately, the last one at the end.
#[derive(Default)]
pub(super) struct Ended(VecDeque<Started>);

struct Started {
    id: String,
    name: String,
    labels: HashMap<String, String>,
    /// CLOCK_MONOTONIC microseconds.
    at_us: u64,
}

// === impl Ended ===

impl Ended {
    /// Remembers the container of an event that it was started, or has ended.
    pub(super) fn learn(&mut self, event: &EventMessage, at_us: u64) {
        let is_its = event.typ == Some(EventMessageTypeEnum::CONTAINER)
            && matches!(event.action.as_deref(), Some("start" | "die"));
        let Some(actor) = event.actor.as_ref().filter(|_| is_its) else { return };
        let (Some(id), Some(labels)) = (&actor.id, &actor.attributes) else { return };
        // The engine has put its own name for the container among the labels.
        let mut labels = labels.clone();
        let Some(name) = labels.remove("name") else { return };
        self.0.retain(|known| known.id != *id);
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(Started { id: id.clone(), name, labels, at_us });
    }

    /// Adds those of the last minute; what is in a list as well has to be added later.
    pub(super) fn report(
        &self,
        inventory: &mut Inventory,
        now_us: u64,
        source: Source,
        keys: &[String],
    ) {
        for Started { id, name, labels, at_us } in &self.0 {
            if u128::from(now_us.saturating_sub(*at_us)) <= REPORT_FOR.as_micros() {
                let workload = named(inventory, id, name, labels, source, keys);
                inventory.add_container(id, workload);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup_info::CgroupInfo;

    fn event(action: &str, id: &str, name: &str) -> EventMessage {
        serde_json::from_value(serde_json::json!({
            "Type": "container", "Action": action,
            "Actor": {"ID": id, "Attributes": {
                "name": name, "image": "web", "com.docker.compose.project": "shop",
                "com.docker.compose.service": "web",
            }},
        }))
        .unwrap()
    }

    fn name(ended: &Ended, id: &str, now_us: u64) -> Option<String> {
        let mut inventory = Inventory::default();
        ended.report(&mut inventory, now_us, Source::Docker, &[]);
        let service = &inventory.workload(&CgroupInfo::of(&format!("/docker/{id}")))?.service;
        Some(format!("{}/{}", service.namespace, service.name))
    }

    #[test]
    fn a_container_that_was_started_is_known_for_a_minute() {
        let mut ended = Ended::default();
        let id = "e".repeat(64);
        ended.learn(&event("create", &id, "shop_web_1"), 1000);
        assert_eq!(name(&ended, &id, 1000), None, "nothing runs yet");
        ended.learn(&event("start", &id, "shop_web_1"), 2000);
        assert_eq!(name(&ended, &id, 2000).as_deref(), Some("shop/web"));
        let minute = REPORT_FOR.as_micros() as u64;
        assert_eq!(name(&ended, &id, minute + 2001), None);
        ended.learn(&event("die", &id, "shop_web_1"), minute);
        assert!(name(&ended, &id, minute + 2001).is_some());
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let mut ended = Ended::default();
        for number in 0..MOST + 10 {
            ended.learn(&event("start", &format!("{number:064x}"), "web"), 0);
        }
        assert_eq!(ended.0.len(), MOST);
        ended.learn(&event("die", &format!("{:064x}", MOST + 9), "web"), 0);
        assert_eq!(ended.0.len(), MOST, "once each");
    }
}
