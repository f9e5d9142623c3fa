//! Container runtimes with the CRI, as containerd and CRI-O have it for the kubelet: pods, their
//! containers and addresses.
//!
//! Of the protocol (`runtime.v1.RuntimeService`, k8s.io/cri-api) three methods are needed, so
//! their messages are declared here with the fields that are read, and nothing is generated.
//! Events exist only in newer runtimes; lists are made when the core misses a name, and
//! periodically.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_common::address;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_prost::ProstCodec;

use super::{ANSWER_WITHIN, NameSource, Publisher, SourceError, controller, root_cause};
use crate::inventory::{Inventory, Workload};
use model::service::{Entity, Kind, Service, Source, printable};

/// `PodSandboxState::SANDBOX_READY` and `ContainerState::CONTAINER_RUNNING`.
const SANDBOX_READY: i32 = 0;
const CONTAINER_RUNNING: i32 = 1;
/// `NamespaceMode::NODE`: the pod has the host's network, so its addresses are not its own.
const NODE: i32 = 2;

/// A runtime behind one of these sockets.
pub(super) struct Cri {
    sockets: Vec<PathBuf>,
    labels: Arc<[String]>,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sandbox {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<Metadata>,
    #[prost(int32, tag = "3")]
    state: i32,
    #[prost(map = "string, string", tag = "5")]
    labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Sandboxes {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Sandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    sandbox: String,
    #[prost(int32, tag = "6")]
    state: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Containers {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusQuestion {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct StatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, optional, tag = "5")]
    network: Option<Network>,
    #[prost(message, optional, tag = "6")]
    linux: Option<Linux>,
}

#[derive(Clone, PartialEq, Message)]
struct Network {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(message, repeated, tag = "2")]
    more: Vec<Ip>,
}

#[derive(Clone, PartialEq, Message)]
struct Ip {
    #[prost(string, tag = "1")]
    ip: String,
}

#[derive(Clone, PartialEq, Message)]
struct Linux {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<Namespaces>,
}

#[derive(Clone, PartialEq, Message)]
struct Namespaces {
    #[prost(message, optional, tag = "2")]
    options: Option<NamespaceOptions>,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceOptions {
    #[prost(int32, tag = "1")]
    network: i32,
}

impl Cri {
    pub(super) fn new(sockets: Vec<PathBuf>, labels: Arc<[String]>) -> Self {
        Self { sockets, labels }
    }

    async fn follow(&self, publisher: &Publisher) -> Result<(), SourceError> {
        let Some(socket) = self.sockets.iter().find(|socket| socket.exists()) else {
            let paths: Vec<_> = self.sockets.iter().map(|path| path.to_string_lossy()).collect();
            return Err(SourceError::Absent(format!("{} does not exist", paths.join(" or "))));
        };
        let mut runtime = Runtime::connect(socket).await?;
        // The addresses of a pod do not change during its life.
        let mut statuses: HashMap<String, Option<Status>> = HashMap::new();
        loop {
            publisher.looked_up();
            let sandboxes: Sandboxes = runtime.ask("ListPodSandbox", Empty {}).await?;
            let containers: Containers = runtime.ask("ListContainers", Empty {}).await?;
            let ready: Vec<Sandbox> =
                sandboxes.items.into_iter().filter(|pod| pod.state == SANDBOX_READY).collect();
            statuses.retain(|id, _| ready.iter().any(|pod| pod.id == *id));
            for pod in &ready {
                if !statuses.contains_key(&pod.id) {
                    publisher.looked_up();
                    let question = StatusQuestion { id: pod.id.clone() };
                    // The pod may have ended in between.
                    let answer: Result<StatusAnswer, _> =
                        runtime.ask("PodSandboxStatus", question).await;
                    statuses.insert(pod.id.clone(), answer.ok().and_then(|answer| answer.status));
                }
            }
            publisher.publish(inventory(&ready, &containers.items, &statuses, &self.labels), None);
            publisher.wait(std::future::pending()).await?;
        }
    }
}

impl NameSource for Cri {
    async fn run(&mut self, publisher: &Publisher) -> SourceError {
        match self.follow(publisher).await {
            Err(error) => error,
            Ok(()) => SourceError::Failed("the task stopped".to_owned()),
        }
    }
}

/// A connection to the runtime.
struct Runtime {
    grpc: Grpc<Channel>,
}

impl Runtime {
    async fn connect(socket: &Path) -> Result<Self, SourceError> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The host name is not used: the connector opens the socket.
        let endpoint = Endpoint::from_static("http://localhost").timeout(ANSWER_WITHIN);
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| {
            SourceError::Failed(format!("{}: {}", socket.display(), root_cause(&error)))
        })?;
        // A list of many pods with their annotations is more than the usual 4 MiB.
        Ok(Self { grpc: Grpc::new(channel).max_decoding_message_size(64 * 1024 * 1024) })
    }

    async fn ask<Q, A>(&mut self, method: &'static str, question: Q) -> Result<A, SourceError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let failed = |why: String| SourceError::Failed(format!("{method}: {why}"));
        self.grpc.ready().await.map_err(|error| failed(root_cause(&error)))?;
        let path = format!("/runtime.v1.RuntimeService/{method}");
        let path = PathAndQuery::try_from(path).map_err(|error| failed(error.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = self.grpc.unary(Request::new(question), path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| failed(problem(&status)))
    }
}

/// Why the runtime gave no answer: its own message, or that of the transport.
fn problem(status: &tonic::Status) -> String {
    match std::error::Error::source(status) {
        Some(inner) => {
            format!(
                "no answer of the CRI ({}); is it the socket of another program?",
                root_cause(inner)
            )
        }
        None => status.message().to_owned(),
    }
}

fn inventory(
    pods: &[Sandbox],
    containers: &[Container],
    statuses: &HashMap<String, Option<Status>>,
    keys: &[String],
) -> Inventory {
    let mut inventory = Inventory::default();
    let mut workloads = HashMap::new();
    for pod in pods {
        let (workload, uid) = workload(pod, keys);
        if let Some(Some(status)) = statuses.get(&pod.id) {
            for address in addresses(status) {
                inventory.add_address(address, &workload);
            }
        }
        if !uid.is_empty() {
            inventory.add_pod(&uid, workload.clone());
        }
        // The sandbox is a container too (the pause container).
        inventory.add_container(&pod.id, workload.clone());
        workloads.insert(pod.id.as_str(), workload);
    }
    for container in containers.iter().filter(|one| one.state == CONTAINER_RUNNING) {
        if let Some(workload) = workloads.get(container.sandbox.as_str()) {
            inventory.add_container(&container.id, workload.clone());
        }
    }
    inventory
}

/// The workload of a pod, and its uid.
fn workload(pod: &Sandbox, keys: &[String]) -> (Workload, String) {
    let labels = controller::selected(&pod.labels, keys);
    let metadata = pod.metadata.clone().unwrap_or_default();
    let (service, uid) =
        controller::of_runtime_labels(&pod.labels, Source::Cri).unwrap_or_else(|| {
            // Not created by a kubelet.
            let controller::Controller { kind, name } =
                controller::of_labels(&metadata.name, &pod.labels);
            let name = if name.is_empty() { pod.id.clone() } else { name };
            let kind = if pod.metadata.is_some() { kind } else { Kind::Container };
            let service = Service::new(&name, Source::Cri).within(&metadata.namespace);
            (service.of_kind(kind), metadata.uid.clone())
        });
    let id = if uid.is_empty() { &pod.id } else { &uid };
    (
        Workload {
            service,
            entity: Entity::of(id),
            instance: printable(&metadata.name).into(),
            labels,
        },
        uid,
    )
}

fn addresses(status: &Status) -> impl Iterator<Item = address::Address> {
    let mode = |linux: &Linux| Some(linux.namespaces.as_ref()?.options.as_ref()?.network);
    let own = status.linux.as_ref().and_then(mode) != Some(NODE);
    let network = status.network.as_ref().filter(|_| own);
    let texts = network.into_iter().flat_map(|network| {
        std::iter::once(network.ip.as_str()).chain(network.more.iter().map(|more| more.ip.as_str()))
    });
    texts.filter_map(|text| text.parse().ok()).map(address::from_ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup_info::CgroupInfo;

    #[test]
    fn pods_name_their_containers_and_addresses() {
        let pod = |id: &str, name: &str, labels: &[(&str, &str)]| Sandbox {
            id: id.repeat(64),
            metadata: Some(Metadata {
                name: name.into(),
                uid: "u".into(),
                namespace: "test".into(),
            }),
            state: SANDBOX_READY,
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let pods = [
            pod("a", "web-7d4-x", &[("pod-template-hash", "7d4"), ("tier", "front")]),
            pod("b", "host-agent", &[]),
        ];
        let container = |id: &str, sandbox: &str, state| Container {
            id: id.repeat(64),
            sandbox: sandbox.repeat(64),
            state,
        };
        let containers = [container("c", "a", CONTAINER_RUNNING), container("d", "a", 2)];
        let status = |ip: &str, network| {
            Some(Status {
                network: Some(Network { ip: ip.into(), more: vec![Ip { ip: "fd00::7".into() }] }),
                linux: Some(Linux {
                    namespaces: Some(Namespaces { options: Some(NamespaceOptions { network }) }),
                }),
            })
        };
        let statuses = [
            ("a".repeat(64), status("10.1.0.7", 0)),
            ("b".repeat(64), status("192.168.1.1", NODE)),
        ];
        let inventory = inventory(&pods, &containers, &statuses.into(), &["tier".to_owned()]);
        let name = |id: &str| {
            let place = CgroupInfo::of(&format!("/k8s.io/{}", id.repeat(64)));
            inventory.workload(&place).map(|workload| workload.service.name.to_string())
        };
        assert_eq!(name("a").as_deref(), Some("web"));
        assert_eq!(name("c").as_deref(), Some("web"));
        assert_eq!(name("d"), None, "it has ended");
        let at = |ip: &str| inventory.at(address::from_ip(ip.parse().unwrap()));
        assert_eq!(&*at("10.1.0.7").unwrap().service.namespace, "test");
        assert_eq!(at("fd00::7"), at("10.1.0.7"));
        assert_eq!(at("192.168.1.1"), None, "the address of the host belongs to no pod");
    }
}
