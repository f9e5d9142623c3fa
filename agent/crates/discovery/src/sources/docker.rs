//! Docker, and podman with its compatible API: containers, their compose names, addresses and
//! published ports.
//!
//! One list has everything that runs; events trigger the next list, and name what ended before it.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use agent_common::address;
use bollard::models::{ContainerSummary, EventMessage, PortSummaryTypeEnum};
use bollard::query_parameters::EventsOptions;
use bollard::{API_DEFAULT_VERSION, Docker as Client};
use futures_util::{Stream, StreamExt as _};

use self::ended::Ended;
use self::starts::Starts;
use super::{ANSWER_WITHIN, NameSource, Publisher, SourceError, controller, root_cause};
use crate::inventory::{Inventory, Workload};
use linux::clock::monotonic_us;
use linux::peer::Peer;
use model::service::{Entity, Kind, Service, Source, printable};

mod ended;
mod starts;

// Labels that compose and swarm set on their containers.
const COMPOSE_PROJECT: &str = "com.docker.compose.project";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
const PODMAN_PROJECT: &str = "io.podman.compose.project";
const SWARM_STACK: &str = "com.docker.stack.namespace";
const SWARM_SERVICE: &str = "com.docker.swarm.service.name";

/// A container engine with Docker's API: Docker itself, or podman.
pub(super) struct Docker {
    socket: PathBuf,
    source: Source,
    labels: Arc<[String]>,
}

impl Docker {
    pub(super) fn at(socket: PathBuf, labels: Arc<[String]>) -> Self {
        Self { socket, source: Source::Docker, labels }
    }

    pub(super) fn podman(socket: PathBuf, labels: Arc<[String]>) -> Self {
        Self { socket, source: Source::Podman, labels }
    }

    async fn follow(&self, publisher: &Publisher) -> Result<(), SourceError> {
        if !self.socket.exists() {
            return Err(SourceError::Absent(format!("{} does not exist", self.socket.display())));
        }
        let path = self.socket.to_string_lossy();
        let within = ANSWER_WITHIN.as_secs();
        let client = Client::connect_with_unix(&path, within, API_DEFAULT_VERSION)?;
        let client = client.negotiate_version().await?;
        // From now on, so that nothing falls between the first list and the first event.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let options = EventsOptions { since: Some(now.to_string()), ..EventsOptions::default() };
        let mut events = pin!(client.events(Some(options)));
        let mut starts = Starts::new(self.source, self.labels.clone());
        let mut ended = Ended::default();
        loop {
            publisher.looked_up();
            let list = client.list_containers(None).await?;
            let mut inventory = Inventory::default();
            if let Ok(netns) = namespace_of(&self.socket) {
                inventory.publishes_in(netns);
            }
            if let Ok(socket) = std::fs::metadata(&self.socket) {
                inventory.set_engine_of(socket.uid());
            }
            ended.report(&mut inventory, monotonic_us(), self.source, &self.labels);
            for container in list {
                add(&mut inventory, container, self.source, &self.labels);
            }
            starts.report(&mut inventory, monotonic_us());
            publisher.publish(inventory, None);
            let mut heard = None;
            let event = async {
                heard = Some(next(&mut events).await?);
                Ok(())
            };
            publisher.happened(event).await?;
            // A container that fails to start may be gone within 0.1 s: no event waits for the pause.
            let mut pause = pin!(Publisher::debounce());
            loop {
                if let Some(event) = heard {
                    ended.learn(&event, monotonic_us());
                    starts.learn(&client, event).await?;
                }
                heard = tokio::select! {
                    event = next(&mut events) => Some(event?),
                    () = &mut pause => break,
                };
            }
        }
    }
}

/// The next event; an error if there will be none.
async fn next<S>(events: &mut S) -> Result<EventMessage, SourceError>
where
    S: Stream<Item = Result<EventMessage, bollard::errors::Error>> + Unpin,
{
    match events.next().await {
        Some(event) => Ok(event?),
        None => Err(SourceError::Failed("the stream of events has ended".to_owned())),
    }
}

impl From<bollard::errors::Error> for SourceError {
    fn from(error: bollard::errors::Error) -> Self {
        Self::Failed(problem(&error))
    }
}

/// Why the engine gave no answer, without the words of the library.
fn problem(error: &bollard::errors::Error) -> String {
    use bollard::errors::Error;
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            // A page of another server can be long.
            let line = message.lines().next().unwrap_or_default();
            let line: String = line.chars().filter(|c| !c.is_control()).take(120).collect();
            format!("it answered with status {status_code} ({line})")
        }
        Error::JsonDataError { .. }
        | Error::JsonSerdeError { .. }
        | Error::StrParseError { .. }
        | Error::APIVersionParseError {} => {
            "the answer is not of Docker's API; is it the socket of another program?".to_owned()
        }
        Error::RequestTimeoutError => {
            format!("no answer within {} s", ANSWER_WITHIN.as_secs())
        }
        error => root_cause(error),
    }
}

impl NameSource for Docker {
    async fn run(&mut self, publisher: &Publisher) -> SourceError {
        match self.follow(publisher).await {
            Err(SourceError::Failed(why)) => {
                SourceError::Failed(format!("{}: {why}", self.socket.display()))
            }
            Err(error) => error,
            Ok(()) => SourceError::Failed("it stopped".to_owned()),
        }
    }
}

fn add(inventory: &mut Inventory, container: ContainerSummary, source: Source, keys: &[String]) {
    let Some(id) = container.id else { return };
    let labels = container.labels.unwrap_or_default();
    let names = container.names.unwrap_or_default();
    let name =
        names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
    let name = name.or(id.get(..12)).unwrap_or(&id);
    let workload = named(inventory, &id, name, &labels, source, keys);
    let networks = container.network_settings.and_then(|settings| settings.networks);
    for endpoint in networks.unwrap_or_default().into_values() {
        let addresses = [endpoint.ip_address, endpoint.global_ipv6_address];
        for ip in addresses.into_iter().flatten().filter_map(|text| text.parse::<IpAddr>().ok()) {
            inventory.add_address(address::from_ip(ip), &workload);
        }
    }
    for port in container.ports.unwrap_or_default() {
        let Some(public) = port.public_port else { continue };
        if port.typ.is_some_and(|protocol| protocol != PortSummaryTypeEnum::TCP) {
            continue;
        }
        let ip = port.ip.as_deref().and_then(|text| text.parse::<IpAddr>().ok());
        let ip = ip.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        inventory.add_published(address::from_ip(ip), public, workload.clone());
    }
    inventory.add_container(&id, workload);
}

/// A container as a workload; what it is in a pod's cgroup is added to the inventory.
fn named(
    inventory: &mut Inventory,
    id: &str,
    name: &str,
    labels: &impl controller::Labels,
    source: Source,
    keys: &[String],
) -> Workload {
    let workload = Workload {
        service: name_of(labels, name, source),
        entity: Entity::of(id),
        instance: printable(name).into(),
        labels: controller::selected(labels, keys),
    };
    if let Some((service, _)) = controller::of_runtime_labels(labels, source) {
        inventory.add_in_pod(id, Workload { service, ..workload.clone() });
    }
    workload
}

/// The name of a container: from labels of compose or swarm, else its own.
fn name_of(labels: &impl controller::Labels, name: &str, source: Source) -> Service {
    let project = labels.label(COMPOSE_PROJECT).or_else(|| labels.label(PODMAN_PROJECT));
    if let (Some(service), Some(project)) = (labels.label(COMPOSE_SERVICE), project) {
        return Service::new(service, source).within(project).of_kind(Kind::ComposeService);
    }
    if let Some(service) = labels.label(SWARM_SERVICE) {
        let stack = labels.label(SWARM_STACK).unwrap_or_default();
        let bare = service.strip_prefix(stack).and_then(|rest| rest.strip_prefix('_'));
        let service = Service::new(bare.unwrap_or(service), source);
        return service.within(stack).of_kind(Kind::ComposeService);
    }
    Service::new(name, source).of_kind(Kind::Container)
}

/// The network namespace of the process that listens on a local socket: published ports are there.
fn namespace_of(socket: &Path) -> io::Result<u32> {
    let stream = UnixStream::connect(socket)?;
    // A listener from outside of our PID namespace has no number here: the host's then.
    let process = Peer::of(&stream)?.pid.unwrap_or(1);
    Ok(std::fs::metadata(format!("/proc/{process}/ns/net"))?.ino() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(containers: serde_json::Value) -> Inventory {
        let list: Vec<ContainerSummary> = serde_json::from_value(containers).unwrap();
        let mut inventory = Inventory::default();
        inventory.publishes_in(1);
        for container in list {
            add(&mut inventory, container, Source::Docker, &["tier".to_owned()]);
        }
        inventory
    }

    #[test]
    fn errors_come_without_the_words_of_the_library() {
        let page = format!("<html>{}\nmore", "x".repeat(500));
        let status =
            bollard::errors::Error::DockerResponseServerError { status_code: 404, message: page };
        let said = problem(&status);
        assert!(said.starts_with("it answered with status 404 (<html>xxx"), "{said}");
        assert!(said.len() < 200 && !said.contains("more"), "{said}");
        let refused = io::Error::from_raw_os_error(13);
        assert_eq!(problem(&refused.into()), "Permission denied (os error 13)");
        let json = serde_json::from_str::<u32>("<html>").unwrap_err();
        assert!(problem(&json.into()).contains("is it the socket of another program?"));
    }

    #[test]
    fn a_list_gives_names_addresses_and_published_ports() {
        let id = "a".repeat(64);
        let inventory = inventory(serde_json::json!([{
            "Id": id,
            "Names": ["/other/alias", "/shop_web_1"],
            "Labels": {COMPOSE_PROJECT: "shop", COMPOSE_SERVICE: "web", "tier": "front", "x": "y"},
            "Ports": [
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"PrivatePort": 443, "Type": "tcp"},
                {"IP": "0.0.0.0", "PrivatePort": 53, "PublicPort": 53, "Type": "udp"},
            ],
            "NetworkSettings": {"Networks": {"shop_front": {
                "IPAddress": "172.20.0.2", "GlobalIPv6Address": "",
            }}},
        }, {
            "Id": "b".repeat(64),
            "Names": ["/lonely"],
        }]));
        let place = |id: &str| crate::cgroup_info::CgroupInfo::of(&format!("/docker/{id}"));
        let web = inventory.workload(&place(&id)).unwrap();
        assert_eq!((&*web.service.name, &*web.service.namespace), ("web", "shop"));
        assert_eq!(web.service.kind, Kind::ComposeService);
        assert_eq!(&*web.labels, [("tier".to_owned(), "front".to_owned())]);
        let ip = |text: &str| address::from_ip(text.parse::<IpAddr>().unwrap());
        assert_eq!(inventory.at(ip("172.20.0.2")), Some(web));
        assert_eq!(inventory.published(1, Some(ip("10.0.0.1")), 8080), Some(web));
        assert_eq!(inventory.published(1, None, 53), None, "only TCP is seen");
        let lonely = &inventory.workload(&place(&"b".repeat(64))).unwrap().service;
        assert_eq!((&*lonely.name, lonely.kind), ("lonely", Kind::Container));
    }

    #[test]
    fn swarm_has_names_of_its_own() {
        let check = |labels: &[(&str, &str)], name: &str, namespace: &str, kind| {
            let labels: std::collections::HashMap<String, String> =
                labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let service = name_of(&labels, "x", Source::Docker);
            assert_eq!(
                (&*service.name, &*service.namespace, service.kind),
                (name, namespace, kind)
            );
        };
        check(
            &[(SWARM_SERVICE, "shop_web"), (SWARM_STACK, "shop")],
            "web",
            "shop",
            Kind::ComposeService,
        );
        check(&[(SWARM_SERVICE, "alone")], "alone", "", Kind::ComposeService);
        check(
            &[(COMPOSE_SERVICE, "web"), (PODMAN_PROJECT, "shop")],
            "web",
            "shop",
            Kind::ComposeService,
        );
        check(&[], "x", "", Kind::Container);
    }

    #[test]
    fn labels_of_a_pod_name_a_container_in_a_pods_cgroup_only() {
        let id = "c".repeat(64);
        let inventory = inventory(serde_json::json!([{
            "Id": id,
            "Names": ["/image-says-so"],
            "Labels": {
                "io.kubernetes.pod.name": "payments-0",
                "io.kubernetes.pod.namespace": "prod",
                "io.kubernetes.pod.uid": "1b2c0a8c-1111-2222-3333-444455556666",
            },
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.9"}}},
        }]));
        let at = |path: &str| {
            let place = crate::cgroup_info::CgroupInfo::of(path);
            let service = &inventory.workload(&place).unwrap().service;
            (service.namespace.to_string(), service.name.to_string())
        };
        let own = (String::new(), "image-says-so".to_owned());
        assert_eq!(at(&format!("/docker/{id}")), own);
        let pod = "/kubepods/burstable/pod1b2c0a8c-1111-2222-3333-444455556666";
        assert_eq!(at(&format!("{pod}/{id}")), ("prod".to_owned(), "payments-0".to_owned()));
        let ip = address::from_ip("172.17.0.9".parse::<IpAddr>().unwrap());
        assert_eq!(&*inventory.at(ip).unwrap().service.name, "image-says-so");
    }

    #[test]
    fn an_engine_of_a_user_names_containers_of_that_user() {
        let id = "d".repeat(64);
        let mut inventory =
            inventory(serde_json::json!([{"Id": id, "Names": ["/own"], "Labels": {}}]));
        let place = |uid| {
            let path = format!("/user.slice/user@{uid}.service/user.slice/libpod-{id}.scope");
            let delegation = linux::hierarchy::Delegation { parts: 2, uid };
            crate::cgroup_info::CgroupInfo::within(&path, Some(delegation))
        };
        assert_eq!(inventory.workload(&place(1500)), None);
        inventory.set_engine_of(1500);
        let found =
            |uid| inventory.workload(&place(uid)).map(|found| found.service.name.to_string());
        assert_eq!((found(1500).as_deref(), found(1600)), (Some("own"), None));
    }

    #[test]
    fn the_namespace_of_a_listener_is_found_through_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino() as u32;
        assert_eq!(namespace_of(&path).unwrap(), own);
    }
}
