//! Containers that failed to start, and the ports they were to publish.
//!
//! The engine binds a container's published ports before the container runs. If one is taken, the
//! container has no process, no address and no port in any list, and with `--rm` it is removed
//! within 0.1 s. So its settings are read when it is created. A failed start shows when its network
//! is released (`releaseNetwork`, moby, daemon/container_operations.go).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, EventMessage, EventMessageTypeEnum};
use bollard::{Docker as Client, errors};

use super::{controller, name_of};
use crate::inventory::{Inventory, Workload};
use linux::clock::monotonic_us;
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
    ports: Vec<(IpAddr, Port)>,
    /// CLOCK_MONOTONIC microseconds.
    lost_network_us: Option<u64>,
    /// It runs, or did until it lost its network.
    ran: bool,
}

/// The container's part of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContainerEvent {
    Created,
    Started,
    LostNetwork,
}

// === impl Starts ===

impl Starts {
    pub(super) fn new(source: Source, labels: Arc<[String]>) -> Self {
        Self { source, labels, made: VecDeque::new() }
    }

    /// Processes an event; inspects each container once.
    pub(super) async fn learn(
        &mut self,
        client: &Client,
        event: EventMessage,
    ) -> Result<(), errors::Error> {
        let Some((id, happened)) = read(event) else { return Ok(()) };
        if !self.made.iter().any(|made| made.id == id) {
            match client.inspect_container(&id, None).await {
                Ok(container) => self.add(id.clone(), container),
                // Removed already, or never completed.
                Err(errors::Error::DockerResponseServerError { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        match happened {
            ContainerEvent::Created => {}
            ContainerEvent::Started => self.started(&id),
            ContainerEvent::LostNetwork => self.lost_network(&id, monotonic_us()),
        }
        Ok(())
    }

    /// Adds the ports of containers that have just lost their network.
    pub(super) fn report(&self, inventory: &mut Inventory, now_us: u64) {
        for Created { workload, ports, lost_network_us, ran, .. } in &self.made {
            let Some(at_us) = *lost_network_us else { continue };
            if u128::from(now_us.saturating_sub(at_us)) > REPORT_FOR.as_micros() {
                continue;
            }
            for (address, port) in ports {
                inventory.add_failed_start(*port, at_us, workload.clone());
                if !ran {
                    inventory.add_refused_start(*port, *address, at_us, workload.clone());
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
        self.made.push_back(Created { id, workload, ports, lost_network_us: None, ran: false });
    }

    fn started(&mut self, id: &str) {
        for made in self.made.iter_mut().filter(|made| made.id == id) {
            (made.ran, made.lost_network_us) = (true, None);
        }
    }

    fn lost_network(&mut self, id: &str, now_us: u64) {
        let at = self.made.iter().position(|made| made.id == id);
        if let Some(mut made) = at.and_then(|at| self.made.remove(at)) {
            // What runs keeps its network until it stops; after that it is started again.
            made.ran = made.ran && made.lost_network_us.is_none();
            made.lost_network_us = Some(now_us);
            self.made.push_back(made);
        }
    }
}

/// Which container an event is about.
fn read(event: EventMessage) -> Option<(String, ContainerEvent)> {
    let actor = event.actor?;
    match (event.typ?, event.action?.as_str()) {
        (EventMessageTypeEnum::CONTAINER, "create") => Some((actor.id?, ContainerEvent::Created)),
        (EventMessageTypeEnum::CONTAINER, "start") => Some((actor.id?, ContainerEvent::Started)),
        (EventMessageTypeEnum::NETWORK, "disconnect") => {
            Some((actor.attributes?.remove("container")?, ContainerEvent::LostNetwork))
        }
        _ => None,
    }
}

/// The addresses and ports of the host that a container is to publish. Without ports that the engine chooses (none, or a
/// range): it takes another one if one is taken.
fn ports(container: &ContainerInspectResponse) -> Vec<(IpAddr, Port)> {
    let bindings = container.host_config.as_ref().and_then(|host| host.port_bindings.as_ref());
    let mut ports = Vec::new();
    for (inside, outside) in bindings.into_iter().flatten() {
        let protocol = inside.split_once('/').map_or("tcp", |(_, protocol)| protocol);
        for binding in outside.iter().flatten() {
            let port = binding.host_port.as_deref().unwrap_or_default();
            let address = binding.host_ip.as_deref().and_then(|text| text.parse().ok());
            let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            ports.extend(format!("{port}/{protocol}").parse().ok().map(|port| (address, port)));
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_common::address;
    use hashbrown::HashSet;
    use model::service::Service;

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

    /// Whose a bind is that failed at a time, as known some time later.
    fn who(starts: &Starts, port: Port, at_us: u64, later_us: u64) -> Option<String> {
        let mut inventory = Inventory::default();
        inventory.publishes_in(HERE);
        starts.report(&mut inventory, at_us + later_us);
        let found = inventory.failed_start(HERE, port, at_us, 1);
        found.map(|workload| workload.service.name.to_string())
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
        assert_eq!(event(other), Some(("abc".to_owned(), ContainerEvent::Started)));
        let other = serde_json::json!({
            "Type": "container", "Action": "die", "Actor": {"ID": "abc", "Attributes": {}},
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
        let at = |address: &str, port| (address.parse().unwrap(), port);
        let expected = [
            at("0.0.0.0", Port::udp(53)),
            at("0.0.0.0", Port::tcp(5432)),
            at("::1", Port::tcp(5433)),
        ];
        assert_eq!(found.iter().collect::<HashSet<_>>(), expected.iter().collect());
        assert_eq!(found.len(), expected.len());
    }

    #[test]
    fn a_failed_bind_is_of_the_next_container_that_loses_its_network() {
        let mut starts = starts();
        let bindings = serde_json::json!({"5432/tcp": [{"HostPort": "5432"}]});
        for name in ["db", "cache"] {
            starts.add(name.to_owned(), container(name, &bindings));
        }
        let port = Port::tcp(5432);
        assert_eq!(who(&starts, port, 1000, 10), None, "nothing has failed yet");
        starts.lost_network("cache", 1005);
        assert_eq!(who(&starts, port, 1000, 10).as_deref(), Some("cache"));
        assert_eq!(who(&starts, port, 2000, 10), None, "the engine has not reported it yet");
        starts.lost_network("db", 2005);
        assert_eq!(who(&starts, port, 2000, 10).as_deref(), Some("db"));
        assert_eq!(who(&starts, port, 1000, 2000).as_deref(), Some("cache"));
        assert_eq!(who(&starts, Port::udp(5432), 1000, 2000), None);
        let long_ago = REPORT_FOR.as_micros() as u64 + 10_000;
        assert_eq!(who(&starts, port, 1000, long_ago), None);
    }

    #[test]
    fn what_the_engine_gave_to_another_container_is_known_until_that_is_gone() {
        let mut starts = starts();
        let bindings = serde_json::json!({"80/tcp": [{"HostPort": "8080"}]});
        starts.add("second".to_owned(), container("second", &bindings));
        let allocated = |starts: &Starts, has: &str| -> Vec<(String, String, u64)> {
            let mut inventory = Inventory::default();
            inventory.publishes_in(HERE);
            let service = Service::new(has, Source::Docker);
            let entity = Entity::of(has);
            let (instance, labels) = (has.into(), Arc::default());
            let holder = Workload { service, entity, instance, labels };
            let all = address::from_ip(Ipv4Addr::UNSPECIFIED.into());
            inventory.add_published(all, 8080, holder);
            starts.report(&mut inventory, 3000);
            let names = |one: crate::inventory::Allocated| {
                let name = |workload: &Workload| workload.service.name.to_string();
                (name(&one.claimant), name(&one.holder), one.at_us)
            };
            inventory.allocated().map(names).collect()
        };
        assert_eq!(allocated(&starts, "first"), [], "it was not tried");
        starts.lost_network("second", 1000);
        let expected = ("second".to_owned(), "first".to_owned(), 1000);
        assert_eq!(allocated(&starts, "first"), [expected]);
        assert_eq!(allocated(&starts, "second"), [], "nobody is in its own way");
        // It ran, and was stopped.
        starts.started("second");
        starts.lost_network("second", 2000);
        assert_eq!(allocated(&starts, "first"), []);
        starts.lost_network("second", 2500);
        assert_eq!(allocated(&starts, "first").len(), 1, "and then could not be started again");
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
