//! Containers that failed to start, and the ports they were to publish.
//!
//! The engine binds a container's published ports before the container runs. If one is taken, the
//! container has no process, no address and no port in any list, and with `--rm` it is removed
//! within 0.1 s. So its settings are read when it is created. A failed start shows when its network
//! is released (`releaseNetwork`, moby, daemon/container_operations.go).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::models::{ContainerInspectResponse, EventMessage, EventMessageTypeEnum};
use bollard::{Docker as Client, errors};

use super::{controller, name_of};
use crate::inventory::{Inventory, Workload};
use model::port::Port;
use model::service::{Entity, Source};

/// Containers remembered at most.
const MOST: usize = 256;
/// How long a failed start is kept: the failed bind behind it is reported within seconds.
const REPORT_FOR: Duration = Duration::from_mins(1);

/// Containers with ports to publish, the one with the latest event at the end.
pub(super) struct Starts {
    source: Source,
    labels: Arc<[String]>,
    made: VecDeque<Created>,
}

struct Created {
    id: String,
    workload: Workload,
    ports: Vec<Port>,
    lost_network: Option<Instant>,
}

/// The container's part of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContainerEvent {
    Created,
    LostNetwork,
}

// === impl Starts ===

impl Starts {
    pub(super) fn new(source: Source, labels: Arc<[String]>) -> Self {
        Self { source, labels, made: VecDeque::new() }
    }

    /// Processes events; inspects each container once.
    pub(super) async fn learn(
        &mut self,
        client: &Client,
        events: Vec<EventMessage>,
    ) -> Result<(), errors::Error> {
        for event in events {
            let Some((id, happened)) = read(event) else { continue };
            if !self.made.iter().any(|made| made.id == id) {
                match client.inspect_container(&id, None).await {
                    Ok(container) => self.add(id.clone(), container),
                    // Removed already, or never completed.
                    Err(errors::Error::DockerResponseServerError { .. }) => continue,
                    Err(error) => return Err(error),
                }
            }
            if happened == ContainerEvent::LostNetwork {
                self.lost_network(&id, Instant::now());
            }
        }
        Ok(())
    }

    /// Adds the ports of containers that have just lost their network.
    pub(super) fn report(&self, inventory: &mut Inventory, now: Instant) {
        // The last container that requested a port comes last, and stays.
        for Created { workload, ports, lost_network, .. } in &self.made {
            if lost_network.is_some_and(|at| now.saturating_duration_since(at) <= REPORT_FOR) {
                for port in ports {
                    inventory.add_failed_start(*port, workload.clone());
                }
            }
        }
    }

    fn add(&mut self, id: String, container: ContainerInspectResponse) {
        let ports = ports(&container);
        if ports.is_empty() {
            return;
        }
        let labels = container.config.and_then(|config| config.labels).unwrap_or_default();
        let name = container.name.unwrap_or_default();
        let name = Some(name.trim_start_matches('/')).filter(|name| !name.is_empty());
        let name = name.or(id.get(..12)).unwrap_or(&id);
        let service = name_of(&labels, name, self.source);
        let labels = controller::selected(&labels, &self.labels);
        let workload = Workload { service, entity: Entity::of(&id), instance: name.into(), labels };
        if self.made.len() >= MOST {
            self.made.pop_front();
        }
        self.made.push_back(Created { id, workload, ports, lost_network: None });
    }

    fn lost_network(&mut self, id: &str, now: Instant) {
        let at = self.made.iter().position(|made| made.id == id);
        if let Some(mut made) = at.and_then(|at| self.made.remove(at)) {
            made.lost_network = Some(now);
            self.made.push_back(made);
        }
    }
}

/// Which container an event is about.
fn read(event: EventMessage) -> Option<(String, ContainerEvent)> {
    let actor = event.actor?;
    match (event.typ?, event.action?.as_str()) {
        (EventMessageTypeEnum::CONTAINER, "create") => Some((actor.id?, ContainerEvent::Created)),
        (EventMessageTypeEnum::NETWORK, "disconnect") => {
            Some((actor.attributes?.remove("container")?, ContainerEvent::LostNetwork))
        }
        _ => None,
    }
}

/// The host ports that a container is to publish. Without ports that the engine chooses (none, or a
/// range): it takes another one if one is taken.
fn ports(container: &ContainerInspectResponse) -> Vec<Port> {
    let bindings = container.host_config.as_ref().and_then(|host| host.port_bindings.as_ref());
    let mut ports = Vec::new();
    for (inside, outside) in bindings.into_iter().flatten() {
        let protocol = inside.split_once('/').map_or("tcp", |(_, protocol)| protocol);
        for binding in outside.iter().flatten() {
            let port = binding.host_port.as_deref().unwrap_or_default();
            ports.extend(format!("{port}/{protocol}").parse::<Port>().ok());
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: u32 = 1;

    fn event(json: serde_json::Value) -> Option<(String, ContainerEvent)> {
        read(serde_json::from_value(json).unwrap())
    }

    fn container(name: &str, bindings: &serde_json::Value) -> ContainerInspectResponse {
        let labels = serde_json::json!({
            "com.docker.compose.project": "shop", "com.docker.compose.service": name,
        });
        serde_json::from_value(serde_json::json!({
            "Name": format!("/shop_{name}_1"),
            "Config": {"Labels": labels},
            "HostConfig": {"PortBindings": bindings},
        }))
        .unwrap()
    }

    fn starts() -> Starts {
        Starts::new(Source::Docker, Arc::default())
    }

    fn who(starts: &Starts, port: Port, now: Instant) -> Option<String> {
        let mut inventory = Inventory::default();
        inventory.publishes_in(HERE);
        starts.report(&mut inventory, now);
        inventory.failed_start(HERE, port).map(|workload| workload.service.name.to_string())
    }

    #[test]
    fn only_what_is_made_and_what_loses_its_network_matters() {
        let made = serde_json::json!({
            "Type": "container", "Action": "create",
            "Actor": {"ID": "abc", "Attributes": {"image": "postgres", "name": "db"}},
        });
        assert_eq!(event(made), Some(("abc".to_owned(), ContainerEvent::Created)));
        let lost = serde_json::json!({
            "Type": "network", "Action": "disconnect",
            "Actor": {"ID": "net", "Attributes": {"container": "abc", "name": "bridge"}},
        });
        assert_eq!(event(lost), Some(("abc".to_owned(), ContainerEvent::LostNetwork)));
        let other = serde_json::json!({
            "Type": "container", "Action": "start", "Actor": {"ID": "abc", "Attributes": {}},
        });
        assert_eq!(event(other), None);
        assert_eq!(event(serde_json::json!({"Type": "network", "Action": "disconnect"})), None);
    }

    #[test]
    fn a_port_that_the_engine_may_choose_is_not_wanted() {
        let bindings = serde_json::json!({
            "5432/tcp": [{"HostIp": "", "HostPort": "5432"}, {"HostIp": "::1", "HostPort": "5433"}],
            "53/udp": [{"HostPort": "53"}],
            "80/tcp": [{"HostPort": ""}, {"HostPort": "8000-8010"}],
            "81/tcp": null,
        });
        let mut found = ports(&container("db", &bindings));
        found.sort_unstable();
        assert_eq!(found, [Port::udp(53), Port::tcp(5432), Port::tcp(5433)]);
    }

    #[test]
    fn the_last_one_that_failed_to_start_wanted_the_port() {
        let mut starts = starts();
        let bindings = serde_json::json!({"5432/tcp": [{"HostPort": "5432"}]});
        for name in ["db", "cache"] {
            starts.add(name.to_owned(), container(name, &bindings));
        }
        let began = Instant::now();
        let port = Port::tcp(5432);
        assert_eq!(who(&starts, port, began), None, "nothing has failed yet");
        starts.lost_network("cache", began);
        assert_eq!(who(&starts, port, began).as_deref(), Some("cache"));
        starts.lost_network("db", began);
        assert_eq!(who(&starts, port, began).as_deref(), Some("db"));
        starts.lost_network("cache", began);
        assert_eq!(who(&starts, port, began).as_deref(), Some("cache"));
        assert_eq!(who(&starts, Port::udp(5432), began), None);
        assert_eq!(who(&starts, port, began + REPORT_FOR + Duration::from_secs(1)), None);
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let mut starts = starts();
        let bindings = serde_json::json!({"80/tcp": [{"HostPort": "80"}]});
        for number in 0..MOST + 10 {
            starts.add(number.to_string(), container("web", &bindings));
        }
        assert_eq!(starts.made.len(), MOST);
        starts.add("none".to_owned(), container("none", &serde_json::json!({})));
        assert_eq!(starts.made.len(), MOST, "one without ports is not remembered");
    }
}
